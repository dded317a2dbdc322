"""Calls to an OpenAI-compatible endpoint: concurrent, with retries. Each call returns a reply or a reason for failure.

Servers implement this protocol with small differences: `replies` parses their replies, `refusals` interprets their
errors and adapts requests, and `proxies` finds the proxy to use. Start reading at `client`. It is not imported here,
because it loads openai, which takes as long as starting an actor.
"""

from sftkey_dist.endpoint.chat import Chat, Pace, endpoint_key
from sftkey_dist.endpoint.replies import CUT_OFF, EMPTY, Reply, failure_name

__all__ = ["CUT_OFF", "EMPTY", "Chat", "Pace", "Reply", "endpoint_key", "failure_name"]
