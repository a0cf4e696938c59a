"""Workers that stand ready without a model: started, imports done, so that a load costs little but the file."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from axion_llm.errors import AxionError
from axion_llm.pool.interface import ModelWorker

REFILL_SECONDS = 1.0  # after a load: its first request has the cores for itself

_log = logging.getLogger(__name__)


class Spares:
    """`take` hands one out; `refill`, called when a load is over, has another one started in the background."""

    def __init__(self, new_worker: Callable[[], ModelWorker], count: int) -> None:
        self._new_worker = new_worker
        self._count = count
        self._ready: list[ModelWorker] = []
        self._starting: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._ready if worker.pid]

    async def take(self) -> ModelWorker:
        """One that has started. Raises what its start raises."""
        while self._ready:
            if (worker := self._ready.pop(0)).is_alive:
                return worker
        worker = self._new_worker()
        await worker.start()
        return worker

    async def replace(self) -> None:
        """Those that stand ready compute with what is no longer wanted."""
        old, self._ready = self._ready, []
        await asyncio.gather(*(worker.stop() for worker in old))

    def refill(self) -> None:
        if self._starting is None and not self._is_stopping:
            self._starting = asyncio.create_task(self._start())

    async def stop(self) -> None:
        self._is_stopping = True
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in self._ready))

    async def _start(self) -> None:
        try:
            await asyncio.sleep(REFILL_SECONDS)
            self._ready = [worker for worker in self._ready if worker.is_alive]
            while len(self._ready) < self._count:
                worker = self._new_worker()
                await worker.start()
                self._ready.append(worker)
        except AxionError as error:  # the next load will tell whoever waits for it
            _log.warning("no spare worker: %s", error.message)
        finally:
            self._starting = None
