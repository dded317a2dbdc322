"""Interprets the errors of different kinds of servers, and adapts requests to what a server accepts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

MAX_TOKENS = "max_tokens"
_OTHER_NAMES = {MAX_TOKENS: "max_completion_tokens"}
_LONGEST_MESSAGE = 4000
_STATUS_OF_WORDS = {
    "rate_limit": 429,
    "resource_exhausted": 429,
    "overloaded": 529,
    "timeout": 408,
    "authentication": 401,
    "invalid_api_key": 401,
    "permission": 403,
    "not_found": 404,
    "notfound": 404,
    "invalid_request": 400,
    "badrequest": 400,
    "bad_request": 400,
    "unexpected endpoint": 404,
}
_OUT_OF_QUOTA = re.compile(r"insufficient[_ ](quota|credits|balance)|exceeded your current quota", re.IGNORECASE)
_FILTERED = re.compile(
    r"content[_ ]?(filter|policy|management)|responsible ?ai|flagged|moderation|data_inspection", re.IGNORECASE
)
_TOO_MUCH = re.compile(r"context|too (large|long|many|big)|exceed|at most|maximum|less than or equal", re.IGNORECASE)
_UNSUPPORTED = re.compile(
    r"un(supported|known|recognized|expected)|n[o']t (be )?(support|allowed|permitted)|instead|extra inputs",
    re.IGNORECASE,
)
_NO_SUCH_MODEL = re.compile(
    r"model_not_found|(in|un)valid model|unknown model|no such model|no healthy deployments|not a valid model|"
    r"model\b.*\b(not found|not exist|n't exist|not available|no longer|not supported)",
    re.IGNORECASE | re.DOTALL,
)
_NO_SYSTEM = re.compile(
    r"\b(system|developer)\W+(role|message|prompt|instruction)|\brole\W.{0,60}\b(system|developer)\b|"
    r"roles must alternate",
    re.IGNORECASE | re.DOTALL,
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Refusal:
    """An error that an endpoint has returned.

    Attributes:
        status: HTTP status, or the corresponding status in the body.
        message: message in one line; "" if there is none.
        code: name of the error; "" if there is none.
        parameters: names of the refused parameters, if they are given separately from the message.
    """

    status: int
    message: str = ""
    code: str = ""
    parameters: tuple[str, ...] = ()

    @classmethod
    def of(cls, response: httpx.Response) -> "Refusal":
        """Read the error from a response with an error status."""
        return cls._read(response.status_code, _json(response), response.text)

    @classmethod
    def in_body(cls, body: object) -> "Refusal | None":
        """Read the error from the body of a response with status 200; None if it contains no error."""
        body = _only(body)
        if not isinstance(body, Mapping):
            return None
        is_error = body.get("error") or body.get("object") == "error" or _number(body.get("statusCode")) >= 400
        if not (_error_of_choice(body) or (is_error and not body.get("choices"))):
            return None
        found = cls._read(0, body, "")
        text = found.message if isinstance(body.get("error"), str) else ""
        words = f"{found.code} {_text(_error_of(body).get('type'))} {text}".lower()
        status = next((status for word, status in _STATUS_OF_WORDS.items() if word in words), 502)
        return cls(found.status or status, found.message, found.code, found.parameters)

    @property
    def is_of_quota(self) -> bool:
        """Whether a quota is used up, so that retrying soon is useless."""
        return self.status == 402 or (self.status in (403, 429) and bool(_OUT_OF_QUOTA.search(self._words)))

    @property
    def is_of_content(self) -> bool:
        """Whether a content filter refuses this question."""
        return self.status in (400, 403, 422, 451) and bool(_FILTERED.search(self._words))

    def is_of_model(self, model: str) -> bool:
        """Whether the endpoint does not have the model."""
        return self.status in (400, 422) and bool(_NO_SUCH_MODEL.search(self._words)) and model in self._words

    def objects_to(self, parameter: str) -> bool:
        """Whether the endpoint seems not to support a parameter at all, as opposed to refusing its value."""
        names = (parameter, _OTHER_NAMES.get(parameter, parameter))
        if self.status not in (400, 422) and not (self.status >= 500 and _UNSUPPORTED.search(self.message)):
            return False
        if parameter == MAX_TOKENS and _TOO_MUCH.search(self.message) and not _UNSUPPORTED.search(self.message):
            return False
        return any(name in self.parameters or re.search(rf"\b{name}\b", self.message) for name in names)

    @property
    def objects_to_system(self) -> bool:
        """Whether the endpoint's model does not support system messages."""
        return self.status in (400, 422, 500, 501) and bool(_NO_SYSTEM.search(self._words))

    @property
    def _words(self) -> str:
        return " ".join((self.code, *self.parameters, self.message))

    @classmethod
    def _read(cls, status: int, body: object, raw: str) -> "Refusal":
        body = _only(body)
        if not isinstance(body, Mapping):
            title = _TITLE.search(raw)
            text = title.group(1) if title else "" if "<html" in raw.lower() else raw
            return cls(status, _one_line(text))
        error = _error_of(body)
        detail = error.get("detail")
        details = [item for item in detail if isinstance(item, Mapping)] if isinstance(detail, list) else []
        message = error.get("message") or "; ".join(_text(item.get("msg")) for item in details) or detail
        metadata = error.get("metadata")
        said_behind = metadata.get("raw") if isinstance(metadata, Mapping) else None
        places = [str(place) for item in details for place in _sequence(item.get("loc"))]
        parameters = [*_sequence(error.get("param")), *places]
        return cls(
            status or next((n for n in map(_number, (error.get("code"), error.get("statusCode"))) if n >= 400), 0),
            _one_line(": ".join(filter(None, (_text(message), _text(said_behind))))),
            _text(error.get("code")) if not _number(error.get("code")) else _text(error.get("type")),
            tuple(str(name).rpartition(".")[2] for name in parameters if name and name != "body"),
        )


@dataclass(frozen=True)
class Manner:
    """How requests to an endpoint are adapted: parameters that it has refused are left out or renamed."""

    changes: Mapping[str, str | None] = field(default_factory=dict)
    folds_system: bool = False

    def applied(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request, adapted to the endpoint."""
        named = {self.changes.get(name, name): value for name, value in body.items()}
        if self.folds_system and "messages" in body:
            named["messages"] = _folded(body["messages"])
        return {name: value for name, value in named.items() if name is not None}

    def after(self, refusal: Refusal, body: Mapping[str, Any], may_drop: Sequence[str]) -> "Manner | None":
        """Another manner in which to repeat a refused request; None if there is none.

        Args:
            refusal: the endpoint's error.
            body: the request without any adaptation.
            may_drop: parameters that can be left out without changing the question; ``system`` means that the system
                message may be merged into the user's message.
        """
        for name in body:
            if refusal.objects_to(name):
                if name in _OTHER_NAMES and name not in self.changes:
                    return Manner({**self.changes, name: _OTHER_NAMES[name]}, self.folds_system)
                if name in may_drop and self.changes.get(name, "") is not None:
                    return Manner({**self.changes, name: None}, self.folds_system)
        has_system = any(message["role"] == "system" for message in body.get("messages", ()))
        if has_system and "system" in may_drop and not self.folds_system and refusal.objects_to_system:
            return Manner(self.changes, folds_system=True)
        return None

    def notes(self) -> tuple[str, ...]:
        """Descriptions of the adaptations."""
        changes = (
            f"{name} is sent as {other}, as the server asks" if other else f"the server takes no {name}: it is left out"
            for name, other in self.changes.items()
        )
        system = ("the model takes no system message: its text stands at the head of the user's",)
        return (*changes, *(system if self.folds_system else ()))


def tell_errors_by_status(response: httpx.Response) -> None:
    """A response hook that sets the status of errors, so that the client retries transient ones.

    Servers and gateways may return errors of their backend with status 200. 425 is retried like 429, but a used-up
    quota is not retried.
    """
    response.read()
    if response.status_code == 200:
        refusal = Refusal.in_body(_json(response))
        if refusal is not None:
            response.status_code = refusal.status
    if response.status_code == 425:
        response.headers["x-should-retry"] = "true"
    if response.is_error and Refusal.of(response).is_of_quota:
        response.headers["x-should-retry"] = "false"


def _folded(messages: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The conversation with its system message prepended to the first message after it."""
    (system, first, *rest) = messages
    if system["role"] != "system":
        return list(messages)
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _error_of(body: Mapping[str, object]) -> Mapping[str, object]:
    """The object that describes the error, which may be the body itself."""
    error = _error_of_choice(body) or body.get("error")
    if isinstance(error, str):
        return {"message": error, **{name: value for name, value in body.items() if name != "error"}}
    return error if isinstance(error, Mapping) else body


def _error_of_choice(body: Mapping[str, object]) -> object:
    choice = _only(body.get("choices"))
    return choice.get("error") if isinstance(choice, Mapping) else None


def _only(body: object) -> object:
    """The only item of a list, since some servers return the error in a list; any other value unchanged."""
    return body[0] if isinstance(body, list) and len(body) == 1 else body


def _sequence(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _number(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if 100 <= number <= 599 else 0


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST_MESSAGE]


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
