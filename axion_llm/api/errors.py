"""The one place that turns an exception into an HTTP answer: {"error": {message, type, param, code}}.

What is not meant for a client (a bug, a configuration error found late) becomes a 500 that only says where to
look: the request id, under which the log has the traceback.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from axion_llm import errors
from axion_llm.api import sse

INVALID_REQUEST = "invalid_request_error"
RATE_LIMIT = "rate_limit_error"
SERVER_ERROR = "server_error"

MAX_ECHOED_CHARS = 40


@dataclass(frozen=True)
class Problem:
    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_expected: bool = True  # False: a bug; the log gets the traceback

    def to_dict(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self.to_dict())

    def to_response(self) -> Response:
        headers = {"content-type": "application/json", **self.headers}
        return Response(self.to_json(), status_code=self.status, headers=headers)

    def to_event(self) -> bytes:
        """The end of a stream that has already begun."""
        return sse.event(self.to_dict()) + sse.DONE


def problem_for(exc: BaseException) -> Problem:
    if isinstance(exc, errors.RequestError | errors.ServiceError):
        return _of_axion_error(exc)
    if isinstance(exc, ValidationError):
        return _of_validation(exc)
    if isinstance(exc, HTTPException):
        return _of_http_exception(exc)
    message = "internal error; the server's log has the details under this request's x-request-id"
    return Problem(500, SERVER_ERROR, message, code="internal_error", is_expected=False)


# ---- our own tree

_BY_CLASS: dict[type[BaseException], tuple[int, str]] = {
    errors.RequestError: (400, INVALID_REQUEST),
    errors.ResponseNotFound: (404, INVALID_REQUEST),
    errors.ModelNotFound: (404, INVALID_REQUEST),
    errors.ModelInUse: (409, INVALID_REQUEST),
    errors.Unauthenticated: (401, INVALID_REQUEST),
    errors.Forbidden: (403, INVALID_REQUEST),
    errors.Overloaded: (429, RATE_LIMIT),
    errors.ServiceError: (500, SERVER_ERROR),
    errors.ModelLoadError: (503, SERVER_ERROR),
    errors.InsufficientMemory: (503, SERVER_ERROR),
    errors.WorkerDied: (503, SERVER_ERROR),
    errors.ModelUnavailable: (503, SERVER_ERROR),
    errors.ShuttingDown: (503, SERVER_ERROR),
    errors.StorageUnavailable: (503, SERVER_ERROR),
    errors.NoQuorum: (503, SERVER_ERROR),
    errors.DeadlineExceeded: (504, SERVER_ERROR),
}


def _of_axion_error(exc: errors.RequestError | errors.ServiceError) -> Problem:
    status, kind = next(_BY_CLASS[cls] for cls in type(exc).__mro__ if cls in _BY_CLASS)
    return Problem(status, kind, exc.public_message, exc.code, exc.param, _headers_of(exc))


def _headers_of(exc: errors.AxionError) -> dict[str, str]:
    if isinstance(exc, errors.Overloaded | errors.ModelUnavailable):
        return {"retry-after": str(max(1, math.ceil(exc.retry_after_seconds)))}
    if isinstance(exc, errors.Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(exc, errors.ModelLoadError | errors.DeadlineExceeded | errors.Quarantined):
        return {"x-should-retry": "false"}  # neither gets better; OpenAI's SDK reads this header
    return {}


# ---- a body that does not fit its schema


def _of_validation(exc: ValidationError) -> Problem:
    found = exc.errors(include_url=False, include_context=False)
    first, param = found[0], _path(found[0]["loc"])
    message = f"{param}: {_text(first)}" if param else f"the body: {_text(first)}"
    if len(found) > 1:
        message += f" (and {len(found) - 1} more)"
    return Problem(400, INVALID_REQUEST, message, _code(first["type"]), param)


def _path(location: tuple[int | str, ...]) -> str | None:
    """("messages", 0, "role") as messages[0].role"""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("~"):  # the schema's own name for one form of a value
            path += f".{part[:MAX_ECHOED_CHARS]}"
    return path.lstrip(".") or None


def _text(error: Any) -> str:
    text, value = str(error["msg"]), error["input"]
    if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_ECHOED_CHARS):
        return f"{text}, got {_short(value)}"
    return text


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a very large number"
    return text if len(text) <= 2 * MAX_ECHOED_CHARS else text[: 2 * MAX_ECHOED_CHARS] + "…"


def _code(pydantic_type: str) -> str:
    if pydantic_type in ("invalid_value", "unsupported_value"):
        return pydantic_type
    if pydantic_type == "missing":
        return "missing_required_parameter"
    if pydantic_type == "json_invalid":
        return "invalid_json"
    return "invalid_type" if pydantic_type.endswith("_type") else "invalid_value"


# ---- what the framework and the ports raise themselves

_BY_STATUS = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    503: "not_ready",
}
_BY_PHRASE = {  # the framework's own words say too little
    "Not Found": "there is nothing at this path; see /v1/models and /v1/chat/completions",
    "Method Not Allowed": "this path does not take this method; see the allow header",
}


def _of_http_exception(exc: HTTPException) -> Problem:
    kind = INVALID_REQUEST if exc.status_code < 500 else SERVER_ERROR
    code = _BY_STATUS.get(exc.status_code)
    message = _BY_PHRASE.get(exc.detail, str(exc.detail))
    return Problem(exc.status_code, kind, message, code, headers=dict(exc.headers or {}))
