"""One model in the pool: who uses it, its worker, its load and its unloading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from axion_llm.models.spec import ModelSpec
from axion_llm.pool.interface import ModelState, ModelStatus, RunningModel
from axion_llm.pool.policy import Resident
from axion_llm.worker.messages import EngineStats, Load, Loaded


class ModelWorker(RunningModel, Protocol):
    """What the pool needs beyond `RunningModel`: start, load, and stop when it is not wanted any more.

    A start or load that fails leaves nothing behind. `is_alive` turns false at its end, whatever the reason.
    """

    @property
    def is_alive(self) -> bool: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def last_stats(self) -> EngineStats: ...

    async def start(self) -> None: ...

    async def load(self, load: Load, timeout_seconds: float) -> Loaded: ...

    def set_cores(self, num_threads: int, cpus: Sequence[int]) -> None: ...

    async def stop(self) -> None: ...


@dataclass(eq=False)
class Slot:
    """Written by the pool only. It has a place from the admission of a load to the end of its worker."""

    listed: ModelSpec  # as the registry has it now
    spec: ModelSpec = field(init=False)  # as it was loaded; the same when it is not
    num_leases: int = 0  # requests that use it or wait for it
    last_used: float = 0.0
    error: str | None = None  # why the last load failed
    worker: ModelWorker | None = None
    path: Path | None = None  # its file, as found at the last load
    loading: asyncio.Task[ModelWorker] | None = None
    leaving: asyncio.Task[None] | None = None
    has_place: bool = False
    held_bytes: int = 0  # by its place
    pin: bool | None = None  # an order; None: as the registry says

    def __post_init__(self) -> None:
        self.spec = self.listed

    @property
    def ready(self) -> ModelWorker | None:
        """The worker, if it can take requests."""
        return self.worker if self.worker and self.worker.is_alive and not self.leaving else None

    @property
    def is_working(self) -> bool:
        """It computes: for requests, or to load."""
        return self.num_leases > 0 if self.ready else bool(self.loading and self.has_place)

    @property
    def is_pinned(self) -> bool:
        return self.listed.pin if self.pin is None else self.pin

    def take_place(self, num_bytes: int) -> None:
        self.has_place, self.held_bytes = True, num_bytes

    def give_up_place(self) -> None:
        self.worker, self.has_place, self.held_bytes = None, False, 0

    def resident(self, mapped_bytes: Callable[[int | None], int]) -> Resident | None:
        """As the policy sees it; None when it has no place."""
        name, held = self.spec.name, self.held_bytes
        if self.leaving:
            return Resident(name, "leaving", self.last_used, held, 0)
        if worker := self.ready:
            mapped = mapped_bytes(worker.pid)
            state: Literal["busy", "idle"] = "busy" if self.num_leases else "idle"
            return Resident(name, state, self.last_used, held, mapped, self.is_pinned)
        if self.loading and self.has_place:
            return Resident(name, "loading", self.last_used, held, held, self.is_pinned)
        return None

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
