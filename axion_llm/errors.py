"""Every error the package raises on purpose, as one tree.

    AxionError
    ├── ConfigError             a settings or registry file, an option: names key, value, line
    ├── NativeLibraryError      llama.cpp libraries missing, unpatched or from another build
    ├── RequestError            the client's fault; becomes HTTP 4xx
    │   ├── BadRequest          a field has a bad value
    │   ├── ContextLengthExceeded
    │   │   └── PreviousResponseNotFound   unknown, expired, deleted, or another key's
    │   ├── ModelNotFound       no such name in the registry
    │   ├── ResponseNotFound    the same of a response that is asked for by its id
    │   ├── ModelInUse          requests are in flight that an order would end
    │   ├── Unauthenticated     no API key, or one that is not known
    │   ├── Forbidden           the key, the host or the page may not do this
    │   └── Overloaded          too much queued; has retry_after_seconds
    │       └── RateLimited     the key's requests or tokens per minute are used up
    └── ServiceError            ours or the machine's fault; becomes HTTP 5xx
        ├── ModelLoadError      file missing, truncated, not GGUF, unsupported
        │   └── CrashedInLoad   the process ended by itself meanwhile
        ├── DownloadError       hub not reached or refuses, checksum wrong, disk full
        ├── InsufficientMemory
        ├── WorkerDied          the model's process ended under a request
        │   └── Quarantined     twice, the second time with no other request in it
        ├── NoQuorum            too few experts of a consensus answered
        ├── DeadlineExceeded    no answer within the time that the request gave
        ├── ModelUnavailable    its process has crashed again and again; has retry_after_seconds
        ├── StorageUnavailable  stored responses cannot be read or written now: locked, disk full
        ├── Suspended           unloaded under a request, which goes on in the model's next turn; no client sees it
        ├── ShuttingDown
        └── EngineError         llama_decode failed, an invariant broke

An error crosses a process boundary as its `code` and message (`to_wire`, `from_wire`); `code` is also what an HTTP
client sees, so it never changes its spelling.
"""

from __future__ import annotations

import re
from typing import ClassVar

# From a slash at the begin of a word to the last one before a colon, a quote or the end: names may have blanks.
_FOLDERS = re.compile(r"(?:(?<=[\s'\"(=:,])|^)[/~][^\n:'\"]*/")


def public(message: str) -> str:
    """What a client may know of a fault of ours: its cause in one line; where files lie is for the log."""
    return _FOLDERS.sub("", message.partition("\n")[0])


class AxionError(Exception):
    """Base of all; `code` is the stable machine-readable name."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    @property
    def public_message(self) -> str:
        """What a client may know of it."""
        return public(self.message)


def unexpected(error: BaseException) -> AxionError:
    """What a request is told that ended by a bug of ours; the log has the rest."""
    if isinstance(error, AxionError):
        return error
    return EngineError(f"the request ended by a fault inside the engine: {type(error).__name__}")


class ConfigError(AxionError):
    code = "config_error"


class NativeLibraryError(AxionError):
    code = "native_library_error"


class RequestError(AxionError):
    code = "invalid_request"

    @property
    def public_message(self) -> str:
        return self.message  # about what the client has sent


class BadRequest(RequestError):
    code = "invalid_value"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class PreviousResponseNotFound(BadRequest):
    code = "previous_response_not_found"


class ResponseNotFound(RequestError):
    code = "response_not_found"


class ModelNotFound(RequestError):
    code = "model_not_found"


class ModelInUse(RequestError):
    code = "model_in_use"


class Overloaded(RequestError):
    code = "overloaded"

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, param=param)
        self.retry_after_seconds = retry_after_seconds


class RateLimited(Overloaded):
    code = "rate_limit_exceeded"


class Unauthenticated(RequestError):
    code = "invalid_api_key"


class Forbidden(RequestError):
    code = "permission_denied"


class ServiceError(AxionError):
    code = "service_error"


class ModelLoadError(ServiceError):
    code = "model_load_failed"


class CrashedInLoad(ModelLoadError):
    """The process ended by itself while it loaded the model; whether it would do so again is not known."""

    is_fault = False  # by a signal that a bad instruction, a bad address or an assert raises


class DownloadError(ServiceError):
    code = "download_failed"


class InsufficientMemory(ServiceError):
    code = "insufficient_memory"


class WorkerDied(ServiceError):
    code = "worker_died"


class Quarantined(WorkerDied):
    """Of the parent's own making: it never comes from a worker."""


class StorageUnavailable(ServiceError):
    code = "storage_unavailable"


class NoQuorum(ServiceError):
    code = "no_quorum"


class DeadlineExceeded(ServiceError):
    code = "deadline_exceeded"


class ModelUnavailable(ServiceError):
    code = "model_unavailable"

    def __init__(self, message: str, *, param: str | None = None, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, param=param)
        self.retry_after_seconds = retry_after_seconds


class Suspended(ServiceError):
    code = "suspended"


class ShuttingDown(ServiceError):
    code = "shutting_down"


class EngineError(ServiceError):
    code = "engine_error"


def _tree(cls: type[AxionError]) -> dict[str, type[AxionError]]:
    """By code; where classes share one, the most general."""
    found = {cls.code: cls}
    for sub in cls.__subclasses__():
        found = _tree(sub) | found
    return found


def from_wire(
    code: str, message: str, param: str | None = None, retry_after_seconds: float | None = None
) -> AxionError:
    """The exception that `code` names; an unknown code (a newer worker) becomes a ServiceError."""
    error = _tree(AxionError).get(code, ServiceError)(message, param=param)
    if isinstance(error, Overloaded) and retry_after_seconds is not None:
        error.retry_after_seconds = retry_after_seconds
    return error
