"""Calls to an OpenAI-compatible endpoint: many at a time, retried, each answer or the reason why there is none.

Servers of many makes speak this protocol, each a little differently: `replies` reads what they send, `refusals` what
they refuse and how to ask instead, `proxies` is the way to them. Start reading at `client`.
"""

from sftkey_dist.endpoint.client import Chat, Endpoint, Pace, check_endpoint, endpoint_key, require_server
from sftkey_dist.endpoint.replies import CUT_OFF, EMPTY, Reply, failure_name

__all__ = [
    "CUT_OFF",
    "EMPTY",
    "Chat",
    "Endpoint",
    "Pace",
    "Reply",
    "check_endpoint",
    "endpoint_key",
    "failure_name",
    "require_server",
]
