"""Which requests are in flight, on all ports together, and how they end when the service stops."""

from __future__ import annotations

import asyncio
from typing import Protocol

from axion_llm.errors import ShuttingDown


class InFlight(Protocol):
    def fail(self, error: BaseException) -> None: ...


class Drain:
    def __init__(self) -> None:
        self.is_stopping = False
        self._in_flight: set[InFlight] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    def enter(self, request: InFlight) -> None:
        if self.is_stopping:
            raise ShuttingDown("the server is shutting down")
        self._in_flight.add(request)
        self._idle.clear()

    def leave(self, request: InFlight) -> None:
        self._in_flight.discard(request)
        if not self._in_flight:
            self._idle.set()

    def stop_entering(self) -> None:
        self.is_stopping = True

    async def wait_until_idle(self) -> None:
        await self._idle.wait()

    def end_all(self) -> None:
        for request in list(self._in_flight):
            request.fail(ShuttingDown("the server is shutting down; this answer is not complete"))
