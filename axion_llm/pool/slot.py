"""One model in the pool: who uses it, its worker, its load and its unloading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from axion_llm.models.spec import ModelSpec
from axion_llm.pool.breaker import Breaker
from axion_llm.pool.interface import ModelState, ModelStatus, ModelWorker
from axion_llm.pool.lease import Lease
from axion_llm.pool.loader import FileStamp
from axion_llm.pool.policy import Resident
from axion_llm.pool.quarantine import Quarantine


@dataclass(eq=False)
class Slot:
    """Written by the pool only. It has a place from the admission of a load to the end of its worker."""

    listed: ModelSpec  # as the registry has it now
    spec: ModelSpec = field(init=False)  # as it was loaded; the same when it is not
    leases: set[Lease] = field(default_factory=set)  # requests that use it or wait for it
    breaker: Breaker = field(default_factory=Breaker)
    last_used: float = 0.0
    error: str | None = None  # why the last load failed
    crash: str | None = None  # how its worker ended the last time that it did by itself
    worker: ModelWorker | None = None
    loading: asyncio.Task[ModelWorker] | None = None
    leaving: asyncio.Task[None] | None = None
    has_place: bool = False
    held_bytes: int = 0  # by its place
    file: FileStamp | None = None  # of what its worker has opened
    ready_at: float = 0.0
    load_seconds: float = 0.0  # of the last load
    closing_since: float | None = None  # it ends what it has begun, and new requests wait for its next load
    is_stale: bool = False  # closing because its file has changed
    quarantine: Quarantine = field(init=False)  # who may share its worker
    pin: bool | None = None  # an order; None: as the registry says

    def __post_init__(self) -> None:
        self.spec = self.listed
        self.quarantine = Quarantine(self.breaker.excuse)

    @property
    def ready(self) -> ModelWorker | None:
        """The worker, if it can take requests."""
        return self.worker if self.worker and self.worker.is_alive and not self.leaving else None

    @property
    def open(self) -> ModelWorker | None:
        """The worker, if it can take new requests."""
        return self.ready if self.closing_since is None else None

    @property
    def num_leases(self) -> int:
        return len(self.leases)

    @property
    def num_users(self) -> int:
        """Requests that its worker of now has."""
        return sum(lease.worker is self.worker for lease in self.leases) if self.worker else 0

    @property
    def is_working(self) -> bool:
        """It computes: for requests, or to load."""
        return self.num_users > 0 if self.ready else bool(self.loading and self.has_place)

    @property
    def is_pinned(self) -> bool:
        return self.listed.pin if self.pin is None else self.pin

    def take_place(self, num_bytes: int) -> None:
        self.has_place, self.held_bytes = True, num_bytes

    def give_up_place(self) -> None:
        self.worker, self.has_place, self.held_bytes = None, False, 0
        self.closing_since, self.is_stale, self.file = None, False, None

    def took_worker(self, worker: ModelWorker, load_seconds: float, now: float) -> None:
        self.worker, self.error = worker, None
        self.ready_at, self.load_seconds = now, load_seconds

    def resident(self, mapped_bytes: Callable[[int | None], int]) -> Resident | None:
        """As the policy sees it; None when it has no place."""
        name, held = self.spec.name, self.held_bytes
        if self.leaving:
            return Resident(name, "leaving", self.last_used, held, 0)
        if worker := self.ready:
            mapped = mapped_bytes(worker.pid)
            return Resident(
                name,
                self._use(),
                self.last_used,
                held,
                mapped,
                self.is_pinned,
                self.ready_at,
                self.load_seconds,
                self.closing_since or 0.0,
            )
        if self.loading and self.has_place:
            return Resident(name, "loading", self.last_used, held, held, self.is_pinned)
        return None

    def _use(self) -> Literal["busy", "closing", "idle"]:
        if self.closing_since is not None:
            return "closing" if self.num_users else "idle"
        return "busy" if self.leases else "idle"

    def status(self, is_on_machine: bool, num_threads: int = 0) -> ModelStatus:
        worker = self.ready
        state = self._state(is_on_machine)
        return ModelStatus(
            self.spec,
            state,
            None if state in ("ready", "loading") else self.error,
            info=worker.info if worker else None,
            is_pinned=self.is_pinned,
            pid=worker.pid if worker else None,
            num_requests=self.num_leases,
            num_threads=num_threads if worker else 0,
            seconds_silent=worker.seconds_silent if worker else 0.0,
            idle_seconds=time.monotonic() - self.last_used if self.last_used else None,
        )

    def _state(self, is_on_machine: bool) -> ModelState:
        if self.ready:
            return "ready"
        if self.loading:
            return "loading"
        if not is_on_machine:
            return "missing"
        return "failed" if self.error else "available"
