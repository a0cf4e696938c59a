"""The answer of the consensus port, as an ASGI response: an object or a stream, as the API that was asked has it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from axion_llm.api.errors import Problem, problem_for
from axion_llm.api.sse import KEEP_ALIVE
from axion_llm.consensus import happenings as h
from axion_llm.consensus.orchestrator import Orchestrator, Task
from axion_llm.consensus.plan import Plan
from axion_llm.errors import ServiceError
from axion_llm.servers.access import Record
from axion_llm.servers.answer import STREAM_HEADERS
from axion_llm.servers.exchange import ClientGone
from axion_llm.servers.service import Service

KEEP_ALIVE_SECONDS = 5.0  # shorter than of a plain stream: a vote is silent until it is decided
OPENING_SECONDS = 0.25  # in which an error of all experts can still become a plain HTTP status


class Form(Protocol):
    """What happens, as an API says it: opening(), encode(...) until is_finished, closing() or failing(); or whole()."""

    @property
    def is_finished(self) -> bool: ...

    def opening(self) -> bytes: ...

    def encode(self, item: h.Happening) -> bytes: ...

    def closing(self) -> bytes: ...

    def failing(self, problem: Problem) -> bytes: ...

    def whole(self, text: str, done: h.Done) -> dict[str, Any]: ...

    def error(self, error: Exception) -> Exception:
        """With the names of this API's fields."""
        ...

    async def before_end(self) -> dict[str, Any]:
        """What is to be done before a client hears that its answer is complete; fields of it that this decides."""
        ...


class ConsensusAnswer(Response):
    keep_alive_seconds = KEEP_ALIVE_SECONDS

    def __init__(
        self,
        form: Form,
        task: Task,
        plan: Plan,
        orchestrator: Orchestrator,
        service: Service,
        record: Record,
        *,
        is_streamed: bool,
    ) -> None:
        super().__init__()
        self._form, self._task, self._plan = form, task, plan
        self._orchestrator, self._service, self._record = orchestrator, service, record
        self._is_streamed = is_streamed
        self._queue: asyncio.Queue[h.Happening | Exception] = asyncio.Queue()
        record.model = task.request.model

    def fail(self, error: BaseException) -> None:
        """From outside: the service stops."""
        self._queue.put_nowait(error if isinstance(error, Exception) else ServiceError(str(error)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._service.drain.enter(self)
        tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._watch(receive))]
        try:
            if self._is_streamed:
                await self._stream(send)
            else:
                response = Response(await self._collect(), media_type="application/json")
                await response(scope, receive, send)
        except ClientGone:
            self._record.finish = "disconnected"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._service.drain.leave(self)

    async def _pump(self) -> None:
        happenings: AsyncGenerator[h.Happening, None] = self._orchestrator.run(self._task, self._plan)
        async with contextlib.aclosing(happenings):
            try:
                async for happening in happenings:
                    self._queue.put_nowait(happening)
            except Exception as exc:
                self._queue.put_nowait(exc)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._queue.put_nowait(ClientGone())

    async def _take(self, timeout_seconds: float | None = None) -> h.Happening | None:
        """None after a silence; raises what ended the run."""
        try:
            item = await asyncio.wait_for(self._queue.get(), timeout_seconds)
        except asyncio.TimeoutError:
            return None
        if isinstance(item, Exception):
            raise self._form.error(item)
        self._note(item)
        return item

    def _note(self, item: h.Happening) -> None:
        if isinstance(item, h.Done):
            record, used = self._record, item.usage
            record.tokens_in, record.tokens_out = used["prompt_tokens"], used["completion_tokens"]
            record.cached = used["prompt_tokens_details"]["cached_tokens"]
            record.finish = f"{item.finish_reason} strategy={item.consensus['strategy']}"

    # ---- one object

    async def _collect(self) -> bytes:
        texts: list[str] = []
        while True:
            item = await self._take()
            if isinstance(item, h.Text):
                texts.append(item.text)
            elif isinstance(item, h.Done):
                whole = self._form.whole("".join(texts), item)
                whole |= await self._form.before_end()
                return msgspec.json.encode(whole)

    # ---- a stream

    async def _stream(self, send: Send) -> None:
        first, form = await self._first(), self._form
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        body = form.opening() + b"".join(form.encode(item) for item in first)
        try:
            while not form.is_finished:
                if body:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                item = await self._take(self.keep_alive_seconds)
                body = KEEP_ALIVE if item is None else form.encode(item)
            await form.before_end()
            body += form.closing()
        except ClientGone:
            raise
        except Exception as exc:
            problem = problem_for(exc)
            self._record.finish = f"error:{problem.code}"
            body = form.failing(problem)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _first(self) -> list[h.Happening]:
        """What comes until an expert has taken the request: a cold model must not hold the stream's opening back."""
        found: list[h.Happening] = []
        end = asyncio.get_running_loop().time() + OPENING_SECONDS
        while not any(isinstance(item, h.Started | h.Done) for item in found):
            item = await self._take(max(0.0, end - asyncio.get_running_loop().time()))
            if item is None:
                break
            found.append(item)
        return found
