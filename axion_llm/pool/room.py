"""Who gets a place: puts the decisions of policy.py into effect, one load after another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from axion_llm.config import Settings
from axion_llm.errors import InsufficientMemory, Overloaded, ServiceError
from axion_llm.models.gguf_header import MemoryNeed
from axion_llm.models.spec import ModelSpec
from axion_llm.pool import policy
from axion_llm.pool.interface import ModelWorker
from axion_llm.pool.ledger import Ledger
from axion_llm.pool.machine import Memory, mapped_bytes
from axion_llm.pool.report import UnloadReason
from axion_llm.pool.slot import Slot

WORKER_BYTES = 128 << 20  # a worker process before it has a model
RECHECK_SECONDS = 1.0  # memory is also freed by others, who do not tell us
MIN_RECHECK_SECONDS = 0.01
CHANGED = "its file has changed"

_log = logging.getLogger(__name__)


class Room:
    """Places for models, given out first come, first served.

    A load that has to wait holds up those behind it, so that many small models cannot starve a large one.
    It holds up no request to a model that is loaded.
    """

    def __init__(
        self, slots: Mapping[str, Slot], settings: Settings, read_memory: Callable[[], Memory], ledger: Ledger
    ) -> None:
        self._slots = slots
        self._ledger = ledger
        self._settings = settings
        self._read_memory = read_memory
        self._queue: list[Slot] = []
        self._watchers: list[asyncio.Future[None]] = []

    async def take(self, slot: Slot, need: MemoryNeed) -> None:
        """Returns when `slot` has a place."""
        self._queue.append(slot)
        since = time.monotonic()
        try:
            while not slot.has_place:
                await self._perform(self._plan(slot, need, since), slot, need, since)
        finally:
            self._queue.remove(slot)
            if not self._queue:
                self._reopen()
            self.notify()

    def _reopen(self) -> None:
        """Nobody waits for their places any more."""
        for slot in self._slots.values():
            if slot.closing_since is not None and not slot.is_stale:
                slot.closing_since = None

    async def change(self, timeout_seconds: float = RECHECK_SECONDS) -> None:
        """Returns at the next `notify`, or after a while."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append(change)
        await asyncio.wait({change}, timeout=timeout_seconds)

    def notify(self) -> None:
        """Something has changed that a load may wait for."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    def residents(self) -> list[policy.Resident]:
        residents = (slot.resident(mapped_bytes) for slot in self._slots.values())
        return [resident for resident in residents if resident]

    def unload(self, slot: Slot, reason: UnloadReason, why: str) -> asyncio.Task[None]:
        assert slot.worker is not None and slot.leaving is None
        self._ledger.unloaded(slot.spec.name, reason)
        _log.info("%s: unloaded, %s", slot.spec.name, why)
        slot.leaving = asyncio.create_task(self._leave(slot, slot.worker, suspend=reason in ("evicted", "changed")))
        return slot.leaving

    def unload_closed(self, slot: Slot) -> None:
        """When a closing model has ended what it had begun."""
        if slot.ready and slot.closing_since is not None and not slot.num_users:
            self.unload(slot, *(("changed", CHANGED) if slot.is_stale else ("evicted", "its turn is over")))

    async def _leave(self, slot: Slot, worker: ModelWorker, *, suspend: bool) -> None:
        try:
            await worker.stop(suspend=suspend)
        finally:
            self._ledger.ended(slot.spec.name, worker.last_stats)
            slot.give_up_place()
            slot.leaving = None
            self.notify()

    def _plan(self, slot: Slot, need: MemoryNeed, since: float) -> policy.Decision:
        settings = self._settings
        demand = policy.Demand(need.total + WORKER_BYTES, self._queue[0] is slot, slot.num_leases > 0, since)
        limits = policy.Limits(
            settings.max_loaded,
            self._read_memory().available_bytes,
            settings.memory_limit,
            time.monotonic(),
            settings.turn_seconds,
        )
        return policy.plan_load(self.residents(), demand, limits)

    async def _perform(self, decision: policy.Decision, slot: Slot, need: MemoryNeed, since: float) -> None:
        name = slot.spec.name
        match decision:
            case policy.Admit():
                slot.take_place(need.total + WORKER_BYTES)
            case policy.Evict(victim):
                await asyncio.wait({self.unload(self._slots[victim], "evicted", f"makes room for {name}")})
            case policy.Close(victim):
                _log.info("%s: takes no new request until its next turn, %s waits for its place", victim, name)
                self._slots[victim].closing_since = time.monotonic()
            case policy.Wait(lacks, until):
                if time.monotonic() - since >= self._settings.room_wait_seconds:
                    raise self._gave_up(name, lacks, need)
                pause = RECHECK_SECONDS if until is None else min(RECHECK_SECONDS, until - time.monotonic())
                await self.change(max(pause, MIN_RECHECK_SECONDS))
            case policy.Refuse(lacks="place"):
                raise Overloaded(self._all_pinned(name))
            case policy.Refuse(free_bytes):
                raise InsufficientMemory(self._too_big(slot.spec, need, free_bytes))
            case policy.Forgo():
                raise ServiceError(f"{name}: no room for it, and no request waits for it")

    def _all_pinned(self, name: str) -> str:
        pinned = ", ".join(resident.name for resident in self.residents())
        places = self._settings.max_loaded
        return f"{name}: no place for it, all {places} are held by pinned models ({pinned}): unpin one of them"

    def _gave_up(self, name: str, lacks: str, need: MemoryNeed) -> InsufficientMemory | Overloaded:
        waited = f"{self._settings.room_wait_seconds:g} s"
        held = ", ".join(f"{r.name} {r.state}, {gib(r.held_bytes)}" for r in self.residents())
        if lacks == "memory":
            return InsufficientMemory(
                f"{name}: {gib(need.total + WORKER_BYTES)} of memory did not get free in {waited} (loaded: {held})"
            )
        return Overloaded(f"{name}: no place for it in {waited}, the models that are loaded are in use ({held})")

    def _too_big(self, spec: ModelSpec, need: MemoryNeed, free_bytes: int) -> str:
        memory, limit = self._read_memory(), self._settings.memory_limit
        parts = f"weights {gib(need.weights)}, KV cache {gib(need.kv)}, compute {gib(need.compute)}"
        figures = f"machine: {gib(memory.machine_bytes)} available of {gib(memory.total_bytes)}"
        if memory.cgroup_limit_bytes:
            figures += f", cgroup {gib(memory.cgroup_limit_bytes)} less {gib(memory.cgroup_used_bytes)} in use"
        if limit:
            figures += f", memory_limit {gib(limit)}"
        return (
            f"{spec.name} needs {gib(need.total + WORKER_BYTES)} ({parts}, the process {gib(WORKER_BYTES)}); "
            f"{gib(free_bytes)} could be freed for it ({figures}). "
            "A smaller context or a smaller quantisation needs less."
        )


def gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"
