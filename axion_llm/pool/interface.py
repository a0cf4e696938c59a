"""What the servers see of a running model and of the pool; a worker process is one implementation, Ray a later one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from axion_llm.kernels.footing import Footing
from axion_llm.models.spec import ModelSpec
from axion_llm.pool.report import Account, MemoryReport
from axion_llm.worker.messages import (
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    EngineStats,
    Event,
    Generate,
    Load,
    Loaded,
    Tokenize,
    Tokenized,
)

ModelState = Literal["missing", "available", "loading", "ready", "failed"]
"""missing: its file is not on this machine; available: can be loaded; failed: the last load did not succeed."""


class RunningModel(Protocol):
    """A loaded model that answers requests."""

    @property
    def info(self) -> Loaded: ...

    def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        """Events of one request as they come, at least Accepted and Finished; a Failed is raised as its exception.

        Closing the generator before its end cancels the request.
        """
        ...

    async def embed(self, request: Embed) -> Embedded:
        """A vector of length one for each input, in order; cancelling the call cancels the work.

        Raises ContextLengthExceeded for an input beyond `info.n_embedding_tokens`, BadRequest from a model without
        embeddings.
        """
        ...

    async def tokenize(self, request: Tokenize) -> Tokenized: ...

    async def detokenize(self, request: Detokenize) -> Detokenized: ...

    async def stats(self) -> EngineStats: ...


class ModelWorker(RunningModel, Protocol):
    """What the pool needs beyond `RunningModel`: start, load, and stop when it is not wanted any more.

    The one place to implement when models run elsewhere than in a process of this machine. A start or load that fails
    leaves nothing behind. `is_alive` turns false at its end, whatever the reason.
    """

    @property
    def is_alive(self) -> bool: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def is_faulty(self) -> bool:
        """It ended at an instruction of its own: a bad one, a bad address, an assert."""
        ...

    @property
    def seconds_silent(self) -> float:
        """How long it has done nothing though it should; it ends itself when that is too long."""
        ...

    @property
    def last_stats(self) -> EngineStats:
        """As it said last: the final ones once it has been stopped in order."""
        ...

    async def start(self) -> None: ...

    async def load(self, load: Load, timeout_seconds: float) -> Loaded: ...

    def set_cores(self, num_threads: int, cpus: Sequence[int]) -> None: ...

    async def stop(self, *, suspend: bool = False) -> None:
        """Its requests end with ShuttingDown, or with Suspended when they are to go on elsewhere."""
        ...

    async def ended(self) -> str | None:
        """Returns at its end: why, or None when it was stopped."""
        ...


@dataclass(frozen=True)
class ModelStatus:
    spec: ModelSpec
    state: ModelState
    error: str | None = None  # why the last load failed
    info: Loaded | None = None  # when ready
    is_pinned: bool = False
    pid: int | None = None  # of its process, when ready
    num_requests: int = 0  # that use it or wait for it
    num_threads: int = 0  # it computes with, when ready
    seconds_silent: float = 0.0  # without progress though it should make some
    idle_seconds: float | None = None  # since its last request; None: it has had none


class ModelPool(Protocol):
    """All models of the service."""

    def models(self) -> list[ModelStatus]:
        """Every model of the registry, loaded or not. Answers at once and never loads."""
        ...

    def running(self) -> dict[str, RunningModel]:
        """The models that are loaded now, by name; for looking at them, requests take a lease."""
        ...

    def lease(self, name: str) -> AbstractAsyncContextManager[RunningModel]:
        """The named model, loaded first when it is not; raises ModelNotFound or a ServiceError."""
        ...

    async def load(self, name: str) -> None:
        """Returns when it is loaded; raises like `lease`. Idle models make room as they do for a request."""
        ...

    async def unload(self, name: str, *, force: bool = False) -> None:
        """Returns when it is gone, or was not loaded; a pin does not hold against it.

        Raises ModelInUse while it is being loaded or has requests, unless `force` is to end these.
        """
        ...

    def pin(self, name: str, is_pinned: bool) -> None:
        """Once loaded, a pinned model stays: neither idle time nor another model unloads it."""
        ...

    def accounts(self) -> dict[str, Account]:
        """By name, of every model to which something has happened since the start."""
        ...

    async def memory(self) -> MemoryReport:
        """Measured now, which takes some milliseconds, in a thread."""
        ...

    @property
    def registry_error(self) -> str | None:
        """A mistake in the registry's files as they are now; what was read before it is in force."""
        ...

    @property
    def footing(self) -> Footing:
        """What its workers compute with on this machine."""
        ...

    async def reload(self) -> None:
        """Read the registry anew. Running models go on: a change takes effect at the next load, a removal when idle."""
        ...

    def is_ready(self) -> bool:
        """True when the models to be warm at start are loaded (or have failed to)."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
