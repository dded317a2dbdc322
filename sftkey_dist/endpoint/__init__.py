"""Calls to an OpenAI-compatible endpoint: many at a time, retried, each answer or the reason why there is none.

Servers of many makes speak this protocol, each a little differently: `replies` reads what they send, `refusals` what
they refuse and how to ask instead, `proxies` is the way to them. Start reading at `client`, which those who ask import
themselves: it loads openai, and takes as long as an actor's start.
"""

from sftkey_dist.endpoint.chat import Chat, Pace, endpoint_key
from sftkey_dist.endpoint.replies import CUT_OFF, EMPTY, Reply, failure_name

__all__ = ["CUT_OFF", "EMPTY", "Chat", "Pace", "Reply", "endpoint_key", "failure_name"]
