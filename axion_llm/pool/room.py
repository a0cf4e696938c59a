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
from axion_llm.pool.ledger import Ledger
from axion_llm.pool.machine import Memory, mapped_bytes
from axion_llm.pool.report import UnloadReason
from axion_llm.pool.slot import ModelWorker, Slot

WORKER_BYTES = 128 << 20  # a worker process before it has a model
RECHECK_SECONDS = 1.0  # memory is also freed by others, who do not tell us

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
        self._max_loaded = settings.max_loaded
        self._patience_seconds = settings.load_timeout_seconds
        self._read_memory = read_memory
        self._queue: list[Slot] = []
        self._watchers: list[asyncio.Future[None]] = []

    async def take(self, slot: Slot, need: MemoryNeed) -> None:
        """Returns when `slot` has a place."""
        self._queue.append(slot)
        deadline = time.monotonic() + self._patience_seconds
        try:
            while not slot.has_place:
                await self._perform(self._plan(slot, need), slot, need, deadline)
        finally:
            self._queue.remove(slot)
            self.notify()

    def notify(self) -> None:
        """Something has changed that a load may wait for."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher.set_result(None)

    def residents(self) -> list[policy.Resident]:
        residents = (slot.resident(mapped_bytes) for slot in self._slots.values())
        return [resident for resident in residents if resident]

    def unload(self, slot: Slot, reason: UnloadReason, why: str) -> asyncio.Task[None]:
        assert slot.worker is not None and slot.leaving is None
        self._ledger.unloaded(slot.spec.name, reason)
        _log.info("%s: unloaded, %s", slot.spec.name, why)
        slot.leaving = asyncio.create_task(self._leave(slot, slot.worker))
        return slot.leaving

    async def _leave(self, slot: Slot, worker: ModelWorker) -> None:
        try:
            await worker.stop()
        finally:
            self._ledger.ended(slot.spec.name, worker.last_stats)
            slot.give_up_place()
            slot.leaving = None
            self.notify()

    def _plan(self, slot: Slot, need: MemoryNeed) -> policy.Decision:
        demand = policy.Demand(need.total + WORKER_BYTES, self._queue[0] is slot, slot.num_leases > 0)
        limits = policy.Limits(self._max_loaded, self._read_memory().available_bytes)
        return policy.plan_load(self.residents(), demand, limits)

    async def _perform(self, decision: policy.Decision, slot: Slot, need: MemoryNeed, deadline: float) -> None:
        name = slot.spec.name
        match decision:
            case policy.Admit():
                slot.take_place(need.total + WORKER_BYTES)
            case policy.Evict(victim):
                await asyncio.wait({self.unload(self._slots[victim], "evicted", f"makes room for {name}")})
            case policy.Wait(lacks):
                if not await self._change_before(deadline):
                    raise self._gave_up(name, lacks, need)
            case policy.Refuse(lacks="place"):
                raise Overloaded(self._all_pinned(name))
            case policy.Refuse(free_bytes):
                raise InsufficientMemory(_too_big(slot.spec, need, free_bytes, self._read_memory()))
            case policy.Forgo():
                raise ServiceError(f"{name}: no room for it, and no request waits for it")

    async def _change_before(self, deadline: float) -> bool:
        """False when there is no time left to wait for one."""
        remaining = deadline - time.monotonic()
        if remaining > 0:
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(change)
            await asyncio.wait({change}, timeout=min(remaining, RECHECK_SECONDS))
        return remaining > 0

    def _all_pinned(self, name: str) -> str:
        pinned = ", ".join(resident.name for resident in self.residents())
        return (
            f"{name}: no place for it, all {self._max_loaded} are held by pinned models ({pinned}): unpin one of them"
        )

    def _gave_up(self, name: str, lacks: str, need: MemoryNeed) -> InsufficientMemory | Overloaded:
        waited = f"{self._patience_seconds:g} s"
        if lacks == "memory":
            return InsufficientMemory(f"{name}: {gib(need.total)} of memory did not get free in {waited}")
        return Overloaded(f"{name}: no place for it in {waited}, the models that are loaded are in use")


def _too_big(spec: ModelSpec, need: MemoryNeed, free_bytes: int, memory: Memory) -> str:
    parts = f"weights {gib(need.weights)}, KV cache {gib(need.kv)}, compute {gib(need.compute)}"
    limit = memory.cgroup_limit_bytes
    cgroup = f", cgroup {gib(limit)} less {gib(memory.cgroup_used_bytes)} in use" if limit else ""
    return (
        f"{spec.name} needs {gib(need.total + WORKER_BYTES)} ({parts}, the process {gib(WORKER_BYTES)}); "
        f"{gib(free_bytes)} could be freed for it (machine: {gib(memory.machine_bytes)} available of "
        f"{gib(memory.total_bytes)}{cgroup}). A smaller context or a smaller quantisation needs less."
    )


def gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"
