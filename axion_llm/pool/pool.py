"""All models of the service on this machine: loads on demand, shares loads, unloads what is idle.

A load is a task of the pool's own: requests wait for it, and one that leaves does not end it. What to do is
decided in policy.py, who gets a place and when is up to room.py, who computes with how many threads to cores.py, the
life of a process to worker/client.py, and that a request survives it to lease.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial

from axion_llm.config import Settings
from axion_llm.errors import (
    AxionError,
    CrashedInLoad,
    ModelInUse,
    ModelLoadError,
    ModelUnavailable,
    ServiceError,
    ShuttingDown,
)
from axion_llm.kernels.footing import Footing
from axion_llm.models.registry import locate
from axion_llm.models.spec import ModelSpec
from axion_llm.pool import machine, memory, policy
from axion_llm.pool.breaker import Breaker
from axion_llm.pool.caretaker import Caretaker, Models
from axion_llm.pool.cores import CoreBudget, Working, usable_cores
from axion_llm.pool.interface import ModelStatus, ModelWorker, RunningModel
from axion_llm.pool.ladder import Ladder, embedded_model
from axion_llm.pool.lease import Lease
from axion_llm.pool.ledger import Ledger
from axion_llm.pool.loader import Candidate, Estimate, Loader, Locate, estimate
from axion_llm.pool.report import Account, MemoryReport
from axion_llm.pool.room import Room
from axion_llm.pool.slot import Slot
from axion_llm.pool.spare import Spares
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.launch import DEFAULT_COMMAND

_log = logging.getLogger(__name__)


class Pool:
    """A `ModelPool`. What it does to the world is handed in, with the real thing as the default."""

    def __init__(
        self,
        registry: Models,
        settings: Settings,
        *,
        new_worker: Callable[[], ModelWorker] | None = None,
        locate: Locate = locate,
        estimate: Estimate = estimate,
        read_memory: Callable[[], machine.Memory] = machine.read_memory,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._ladder = Ladder(settings, lambda: embedded_model(registry, settings, locate))
        self._spares = Spares(new_worker or self._new_worker, settings.spare_workers)
        self._loader = Loader(settings, self._spares, locate, estimate)
        self._cores = CoreBudget(
            settings.threads or usable_cores(machine.available_cores()),
            machine.available_cpus() if settings.pin_cores else (),
            is_shared=settings.share_cores,
        )
        self._slots: dict[str, Slot] = {}
        self._ledger = Ledger()
        self._read_memory = read_memory
        self._room = Room(self._slots, settings, read_memory, self._ledger)
        self._caretaker = Caretaker(registry, self._slots, self._room, settings)
        self._warming: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._warm: set[str] = set()  # names of the models loaded at the start
        self._is_stopping = False

    # ---- ModelPool

    def models(self) -> list[ModelStatus]:
        return [
            self._slot(spec).status(self._loader.is_on_machine(spec), self._cores.num_threads(spec.name))
            for spec in self._registry
        ]

    def running(self) -> dict[str, RunningModel]:
        return {name: worker for name, slot in self._slots.items() if (worker := slot.ready)}

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[RunningModel]:
        slot = self._slot(self._registry.get(name))
        lease = Lease(name, lambda: self._ensure_ready(slot), self._share_cores, slot.quarantine)
        slot.leases.add(lease)
        try:
            await lease.renew()
            yield lease
        finally:
            slot.leases.discard(lease)
            slot.last_used = time.monotonic()
            self._room.unload_closed(slot)
            self._share_cores()
            self._room.notify()

    async def load(self, name: str) -> None:
        async with self.lease(name):
            pass

    async def unload(self, name: str, *, force: bool = False) -> None:
        slot = self._slot(self._registry.get(name))
        if slot.loading:
            raise ModelInUse(f"{name} is being loaded; unload it when it is there")
        if slot.num_leases and not force:
            raise ModelInUse(
                f"{name} has requests in flight ({slot.num_leases}); wait for them, or force it to end them"
            )
        if slot.ready:
            self._room.unload(slot, "asked", "as ordered")
        if slot.leaving:
            await asyncio.wait({slot.leaving})

    def pin(self, name: str, is_pinned: bool) -> None:
        self._slot(self._registry.get(name)).pin = is_pinned
        self._room.notify()

    async def memory(self) -> MemoryReport:
        tenants = [
            memory.Tenant(name, worker.pid, slot.file.path if slot.file else None, slot.spec.kv_type, worker.info)
            for name, slot in self._slots.items()
            if (worker := slot.ready) and worker.pid is not None
        ]
        return await asyncio.to_thread(memory.report, self._read_memory(), tenants, self._spares.pids)

    def accounts(self) -> dict[str, Account]:
        return self._ledger.accounts()

    @property
    def registry_error(self) -> str | None:
        return self._registry.error

    @property
    def footing(self) -> Footing:
        return self._ladder.footing

    async def reload(self) -> None:
        await asyncio.to_thread(self._registry.reload)
        self._caretaker.retire()

    def is_ready(self) -> bool:
        return self._warming is not None and self._warming.done() and not self._is_stopping

    async def start(self) -> None:
        self._warming = self._spawn(self._warm_up())
        self._spawn(self._caretaker.look_after_models())
        self._spawn(self._caretaker.follow_registry())

    async def stop(self) -> None:
        self._is_stopping = True
        slots = self._slots.values()
        tasks = [task for task in (*self._background, *(s.loading for s in slots)) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cores.close()
        await asyncio.gather(self._spares.stop(), *(slot.worker.stop() for slot in slots if slot.worker))
        await asyncio.gather(*(slot.leaving for slot in slots if slot.leaving))

    # ---- load

    def _slot(self, spec: ModelSpec) -> Slot:
        slot = self._slots.setdefault(spec.name, Slot(spec))
        slot.listed = spec  # the registry may have been read anew
        if not slot.worker and not slot.loading:
            slot.spec = spec
        return slot

    async def _ensure_ready(self, slot: Slot) -> ModelWorker:
        """Waits for a load without owning it; every waiter gets an exception of its own."""
        if self._is_stopping:
            raise ShuttingDown("the service is shutting down")
        if worker := slot.open:
            return worker
        if slot.loading is None:
            slot.loading = asyncio.create_task(self._load(slot))
            slot.loading.add_done_callback(_retrieve)
        load = slot.loading
        await asyncio.wait({load})
        if load.cancelled():
            raise ShuttingDown("the service is shutting down")
        if error := load.exception():
            raise copy.copy(error)
        return load.result()

    async def _load(self, slot: Slot) -> ModelWorker:
        name = slot.spec.name
        try:
            return await self._try_to_load(slot)
        except AxionError as error:
            slot.error = error.message
            self._ledger.failed(name)
            _log.warning("%s: not loaded: %s", name, error.message)
            raise
        except Exception as error:
            self._ledger.failed(name)
            slot.error = f"{name}: the load failed unexpectedly: {error!r}"
            _log.exception("%s", slot.error)
            raise ServiceError(slot.error) from error
        finally:
            slot.loading = None
            if not slot.worker:
                slot.give_up_place()
            slot.last_used = time.monotonic()
            self._share_cores()
            self._room.notify()
            self._spares.refill()

    async def _try_to_load(self, slot: Slot) -> ModelWorker:
        """Once more where the process was killed and had not been lately: a bad moment is no bad model.

        And as often as the ladder finds that not the model is to blame, but what this machine computes with.
        """
        is_second = False
        while True:
            footing = self._ladder.footing
            try:
                return await self._wait_for_turn(slot) or await self._open(slot)
            except CrashedInLoad as error:
                if error.is_fault and await self._step_down(slot, footing):
                    continue
                if is_second or slot.breaker.num_crashes(time.monotonic()) > 1:
                    raise
                is_second = True
                _log.warning("%s: is loaded once more: %s", slot.spec.name, error.message.partition("\n")[0])

    async def _step_down(self, slot: Slot, footing: Footing) -> bool:
        if not await self._ladder.after_fault(footing):
            return False
        slot.breaker = Breaker()
        await self._spares.replace()
        return True

    async def _wait_for_turn(self, slot: Slot) -> ModelWorker | None:
        """Until a load may begin; gives the worker if it stays after all."""
        while slot.ready and slot.closing_since is not None:
            await self._room.change()
        if slot.leaving:
            await asyncio.wait({slot.leaving})
        if worker := slot.open:
            return worker
        is_faulty = slot.worker is not None and slot.worker.is_faulty
        self._bury_crashed(slot)
        slot.give_up_place()
        if is_faulty:  # under a request, perhaps the first that asked for what no load computes
            await self._step_down(slot, self._ladder.footing)
        slot.spec = slot.listed
        now = time.monotonic()
        delay = slot.breaker.delay_seconds(now)
        if slot.breaker.is_open(now):
            raise ModelUnavailable(
                f"{slot.spec.name} has crashed {slot.breaker.num_crashes(now)} times in a short time and rests for "
                f"{delay:.0f} s. Last: {slot.crash or 'unknown'}",
                retry_after_seconds=delay,
            )
        await asyncio.sleep(delay)
        return None

    async def _open(self, slot: Slot) -> ModelWorker:
        name = slot.spec.name
        candidate = await self._inspect(slot.spec)
        await self._room.take(slot, candidate.need)
        self._share_cores()
        num_threads = self._cores.num_threads(name)
        worker, seconds = await self._loader.start(
            slot.spec,
            candidate,
            num_threads,
            is_wanted=slot.num_leases > 0,
            on_crash=partial(self._crashed, slot),
        )
        if worker.info.wrong_kernels is not None and self._ladder.note_test(worker.info.wrong_kernels):
            await self._spares.replace()
        slot.file = candidate.stamp
        slot.took_worker(worker, seconds, time.monotonic())
        self._ledger.loaded(name, seconds)
        self._spawn(self._watch(slot, worker))
        _log.info("%s: loaded in %.2f s (pid %s)", name, seconds, worker.pid)
        return worker

    async def _inspect(self, spec: ModelSpec) -> Candidate:
        """A file on a device that does not answer must not hold up the load for ever."""
        limit = self._settings.load_timeout_seconds
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._loader.inspect, spec), limit)
        except (TimeoutError, asyncio.TimeoutError):
            raise ModelLoadError(f"{spec.name}: its file could not be read in {limit:g} s") from None

    # ---- crashes

    def _bury_crashed(self, slot: Slot) -> None:
        if slot.worker and not slot.worker.is_alive and not slot.leaving and not self._is_stopping:
            self._crashed(slot, slot.crash, slot.worker.pid)
            self._ledger.ended(slot.spec.name, slot.worker.last_stats)
            slot.give_up_place()

    def _crashed(self, slot: Slot, why: str | None, pid: int | None = None) -> None:
        now = time.monotonic()
        slot.crash = why.partition("\n")[0] if why else None
        self._ledger.crashed(slot.spec.name)
        slot.breaker.note_crash(now, pid)
        if slot.breaker.is_open(now):
            rest = slot.breaker.delay_seconds(now)
            _log.error("%s: crashes again and again, no new load for %.0f s", slot.spec.name, rest)

    async def _watch(self, slot: Slot, worker: ModelWorker) -> None:
        """For the life of a worker: notices when it ends by itself, and brings back what is to be there always."""
        why = await worker.ended()
        if why is None or self._is_stopping:
            return
        slot.crash = why.partition("\n")[0]
        if slot.worker is worker:
            self._bury_crashed(slot)
        self._share_cores()
        self._room.notify()
        if slot.is_pinned or slot.spec.name in self._warm:
            with contextlib.suppress(AxionError):  # logged, and kept for its status
                await self._ensure_ready(slot)

    def _new_worker(self) -> ModelWorker:
        settings = self._settings
        return WorkerClient(
            [*DEFAULT_COMMAND, *self._ladder.worker_options()],
            env=self._ladder.worker_environment(),
            start_seconds=settings.start_timeout_seconds,
            grace_seconds=settings.shutdown_grace_seconds,
            hang_seconds=settings.hang_seconds,
        )

    def _share_cores(self) -> None:
        """To be called when a model begins or ends to work."""
        if not self._is_stopping:
            slots = self._slots.items()
            self._cores.update(
                {name: Working(slot.spec.threads, slot.ready) for name, slot in slots if slot.is_working}
            )

    # ---- in the background

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a task of the pool ended unexpectedly", exc_info=error)

    async def _warm_up(self) -> None:
        specs = await asyncio.to_thread(self._warm_models)
        self._warm = {spec.name for spec in specs}
        for spec in specs:
            with contextlib.suppress(AxionError):  # logged, and kept for its status
                await self._ensure_ready(self._slot(spec))

    def _warm_models(self) -> list[ModelSpec]:
        """In a thread: looks for files."""
        here = [spec for spec in self._registry if self._loader.is_on_machine(spec)]
        count = max(self._settings.warm, sum(spec.pin for spec in here))
        return policy.choose_warm(here, min(count, self._settings.max_loaded))


def _retrieve(load: asyncio.Task[ModelWorker]) -> None:
    """An error that nobody waits for any more has been logged: it needs no complaint from asyncio."""
    if not load.cancelled():
        load.exception()
