"""One question to a model that has one reply: leased, asked, and dropped when the client goes away or we stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from starlette.types import Receive

from axion_llm.pool.interface import ModelPool, RunningModel
from axion_llm.servers.drain import Drain
from axion_llm.servers.exchange import ClientGone

T = TypeVar("T")


class Question(Generic[T]):
    def __init__(self, pool: ModelPool, drain: Drain) -> None:
        self._pool = pool
        self._drain = drain
        self._outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def ask(self, model: str, question: Callable[[RunningModel], Awaitable[T]], receive: Receive) -> T:
        """The reply; raises what the pool or the model raises, ClientGone, or ShuttingDown."""
        self._drain.enter(self)
        tasks = [asyncio.create_task(self._ask(model, question)), asyncio.create_task(self._watch(receive))]
        try:
            return await self._outcome
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._drain.leave(self)

    def fail(self, error: BaseException) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)

    async def _ask(self, model: str, question: Callable[[RunningModel], Awaitable[T]]) -> None:
        try:
            async with self._pool.lease(model) as running:
                reply = await question(running)
        except Exception as error:
            return self.fail(error)
        if not self._outcome.done():
            self._outcome.set_result(reply)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.fail(ClientGone())
