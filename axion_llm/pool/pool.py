"""All models of the service on this machine: loads on demand, shares loads, unloads what is idle.

A load is a task of the pool's own: requests wait for it, and one that leaves does not end it. What to do is
decided in policy.py, who gets a place and when is up to room.py, the life of a process to worker/client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from axion_llm.config import Settings
from axion_llm.errors import AxionError, ModelInUse, ModelLoadError, ServiceError, ShuttingDown
from axion_llm.models.gguf_header import MemoryNeed, check_file, estimate_bytes
from axion_llm.models.registry import locate
from axion_llm.models.spec import ModelSpec
from axion_llm.pool import machine, memory, policy
from axion_llm.pool.cores import CoreBudget, Working, usable_cores
from axion_llm.pool.interface import ModelStatus, RunningModel
from axion_llm.pool.ledger import Ledger
from axion_llm.pool.report import Account, MemoryReport
from axion_llm.pool.room import Room
from axion_llm.pool.slot import ModelWorker, Slot
from axion_llm.pool.spare import Spares
from axion_llm.worker.client import WorkerClient
from axion_llm.worker.messages import Load

IDLE_CHECK_SECONDS = 5.0
REGISTRY_CHECK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Models(Protocol):
    """What the pool asks of the registry."""

    def get(self, name: str) -> ModelSpec: ...

    def __iter__(self) -> Iterator[ModelSpec]: ...

    def __contains__(self, name: object) -> bool: ...

    @property
    def error(self) -> str | None: ...

    def has_changed(self) -> bool: ...

    def reload(self) -> None: ...


def estimate(path: Path, spec: ModelSpec) -> MemoryNeed:
    """Reads the file's header; raises ModelLoadError when it is no whole GGUF."""
    return estimate_bytes(check_file(path), spec.n_ctx, spec.kv_type)


class Pool:
    """A `ModelPool`. What it does to the world is handed in, with the real thing as the default."""

    def __init__(
        self,
        registry: Models,
        settings: Settings,
        *,
        new_worker: Callable[[], ModelWorker] | None = None,
        locate: Callable[[ModelSpec, Settings], Path | None] = locate,
        estimate: Callable[[Path, ModelSpec], MemoryNeed] = estimate,
        read_memory: Callable[[], machine.Memory] = machine.read_memory,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._spares = Spares(new_worker or self._new_worker, settings.spare_workers)
        self._locate, self._estimate = locate, estimate
        self._cores = CoreBudget(
            settings.threads or usable_cores(machine.available_cores()),
            machine.available_cpus() if settings.pin_cores else (),
            is_shared=settings.share_cores,
        )
        self._slots: dict[str, Slot] = {}
        self._ledger = Ledger()
        self._read_memory = read_memory
        self._room = Room(self._slots, settings, read_memory, self._ledger)
        self._warming: asyncio.Task[None] | None = None
        self._janitor: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._is_stopping = False

    # ---- ModelPool

    def models(self) -> list[ModelStatus]:
        for slot in self._slots.values():
            self._bury_crashed(slot)
        return [
            self._slot(spec).status(
                is_on_machine=self._locate(spec, self._settings) is not None,
                num_threads=self._cores.num_threads(spec.name),
            )
            for spec in self._registry
        ]

    def running(self) -> dict[str, RunningModel]:
        return {name: worker for name, slot in self._slots.items() if (worker := slot.ready)}

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[RunningModel]:
        slot = self._slot(self._registry.get(name))
        slot.num_leases += 1
        try:
            worker = await self._ensure_ready(slot)
            self._share_cores()
            yield worker
        finally:
            slot.num_leases -= 1
            slot.last_used = time.monotonic()
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
            memory.Tenant(name, worker.pid, slot.path, slot.spec.kv_type, worker.info)
            for name, slot in self._slots.items()
            if (worker := slot.ready) and worker.pid is not None
        ]
        return await asyncio.to_thread(memory.report, self._read_memory(), tenants, self._spares.pids)

    def accounts(self) -> dict[str, Account]:
        return self._ledger.accounts()

    @property
    def registry_error(self) -> str | None:
        return self._registry.error

    async def reload(self) -> None:
        await asyncio.to_thread(self._registry.reload)
        self._retire()

    def is_ready(self) -> bool:
        return self._warming is not None and self._warming.done() and not self._is_stopping

    async def start(self) -> None:
        self._warming = asyncio.create_task(self._warm_up())
        self._janitor = asyncio.create_task(self._unload_idle())
        self._following = asyncio.create_task(self._follow_registry())

    async def stop(self) -> None:
        self._is_stopping = True
        slots = self._slots.values()
        tasks = [task for task in (self._warming, self._janitor, self._following, *(s.loading for s in slots)) if task]
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
        if worker := slot.ready:
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
        try:
            if slot.leaving:
                await asyncio.wait({slot.leaving})
            self._bury_crashed(slot)
            slot.give_up_place()
            slot.spec = slot.listed
            path, need = await asyncio.to_thread(self._inspect, slot.spec)
            await self._room.take(slot, need)
            self._share_cores()
            slot.worker = worker = await self._start_worker(slot.spec, path)
            slot.path, slot.error = path, None
            return worker
        except AxionError as error:
            slot.error = error.message
            self._ledger.failed(slot.spec.name)
            _log.warning("%s: not loaded: %s", slot.spec.name, error.message)
            raise
        except Exception as error:
            self._ledger.failed(slot.spec.name)
            slot.error = f"{slot.spec.name}: the load failed unexpectedly: {error!r}"
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

    def _bury_crashed(self, slot: Slot) -> None:
        if slot.worker and not slot.worker.is_alive and not slot.leaving and not self._is_stopping:
            self._ledger.crashed(slot.spec.name)
            self._ledger.ended(slot.spec.name, slot.worker.last_stats)
            slot.give_up_place()

    def _inspect(self, spec: ModelSpec) -> tuple[Path, MemoryNeed]:
        """In a thread: reads files."""
        path = self._locate(spec, self._settings)
        if path is None:
            raise ModelLoadError(_missing(spec))
        return path, self._estimate(path, spec)

    async def _start_worker(self, spec: ModelSpec, path: Path) -> ModelWorker:
        began = time.monotonic()
        worker = await self._spares.take()
        await worker.load(self._load_message(spec, path), self._settings.load_timeout_seconds)
        seconds = time.monotonic() - began
        self._ledger.loaded(spec.name, seconds)
        _log.info("%s: loaded in %.2f s (pid %s)", spec.name, seconds, worker.pid)
        return worker

    def _load_message(self, spec: ModelSpec, path: Path) -> Load:
        return Load(
            name=spec.name,
            path=str(path),
            n_ctx=spec.n_ctx,
            n_seq_max=spec.n_seq_max,
            kv_type=spec.kv_type,
            num_threads=self._cores.num_threads(spec.name),
            chat_template=spec.chat_template,
            step_seconds=self._settings.step_ms / 1e3,
            steps_per_decision=self._settings.num_scheduler_steps,
            speculation=spec.speculation,
            max_waiting=self._settings.max_queue,
            max_waiting_tokens=self._settings.max_queue_tokens,
        )

    def _new_worker(self) -> ModelWorker:
        settings = self._settings
        return WorkerClient(grace_seconds=settings.shutdown_grace_seconds, hang_seconds=settings.hang_seconds)

    def _share_cores(self) -> None:
        """To be called when a model begins or ends to work."""
        if not self._is_stopping:
            slots = self._slots.items()
            self._cores.update(
                {name: Working(slot.spec.threads, slot.ready) for name, slot in slots if slot.is_working}
            )

    # ---- in the background

    async def _warm_up(self) -> None:
        for spec in await asyncio.to_thread(self._warm_models):
            with contextlib.suppress(AxionError):  # logged, and kept for its status
                await self._ensure_ready(self._slot(spec))

    def _warm_models(self) -> list[ModelSpec]:
        """In a thread: looks for files."""
        here = [spec for spec in self._registry if self._locate(spec, self._settings)]
        count = max(self._settings.warm, sum(spec.pin for spec in here))
        return policy.choose_warm(here, min(count, self._settings.max_loaded))

    async def _unload_idle(self) -> None:
        idle_seconds = self._settings.idle_unload_seconds
        while idle_seconds > 0:
            await asyncio.sleep(min(IDLE_CHECK_SECONDS, idle_seconds / 4))
            for name in policy.expired(self._room.residents(), time.monotonic(), idle_seconds):
                self._room.unload(self._slots[name], "idle", f"not used for {idle_seconds:g} s")

    async def _follow_registry(self) -> None:
        while True:
            await asyncio.sleep(REGISTRY_CHECK_SECONDS)
            if await asyncio.to_thread(self._registry.has_changed):
                await self.reload()
            self._retire()

    def _retire(self) -> None:
        """What is no longer in the registry goes as soon as nobody uses it."""
        for name, slot in self._slots.items():
            if name not in self._registry and slot.ready and not slot.num_leases:
                self._room.unload(slot, "removed", "no longer in the registry")


def _retrieve(load: asyncio.Task[ModelWorker]) -> None:
    """An error that nobody waits for any more has been logged: it needs no complaint from asyncio."""
    if not load.cancelled():
        load.exception()


def _missing(spec: ModelSpec) -> str:
    if spec.source.path is not None:
        return f"{spec.name}: its file {spec.source.path} does not exist"
    if spec.source.package is not None:
        return f"{spec.name}: the Python package {spec.source.package} that carries it is not installed"
    return f"{spec.name} is not on this machine yet; get it with: axion-llm pull {spec.name}"
