"""The answer of the consensus port, as an ASGI response: the ordinary object or stream, and where it comes from."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from axion_llm.api.collect import Choice, Head, chat_object, plain_message
from axion_llm.api.errors import problem_for
from axion_llm.api.sse import DONE, KEEP_ALIVE, json_line
from axion_llm.api.stream import Chunks
from axion_llm.api.tools.chunks import delta_object, read_message, reason
from axion_llm.api.tools.parser import Delta, ToolParser
from axion_llm.consensus import happenings as h
from axion_llm.consensus.orchestrator import Orchestrator, Task
from axion_llm.consensus.plan import Plan
from axion_llm.consensus.report import event_object
from axion_llm.errors import ServiceError
from axion_llm.servers.access import Record
from axion_llm.servers.answer import STREAM_HEADERS, wants_usage
from axion_llm.servers.exchange import ClientGone
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Finished, Piece

KEEP_ALIVE_SECONDS = 5.0  # shorter than of a plain stream: a vote is silent until it is decided
OPENING_SECONDS = 0.25  # in which an error of all experts can still become a plain HTTP status


class ConsensusAnswer(Response):
    keep_alive_seconds = KEEP_ALIVE_SECONDS

    def __init__(
        self,
        head: Head,
        task: Task,
        plan: Plan,
        orchestrator: Orchestrator,
        service: Service,
        record: Record,
        *,
        is_streamed: bool,
    ) -> None:
        super().__init__()
        self._head, self._task, self._plan = head, task, plan
        self._orchestrator, self._service, self._record = orchestrator, service, record
        self._is_streamed = is_streamed
        self._parser: ToolParser | None = None  # of the expert that may call tools
        self._queue: asyncio.Queue[h.Happening | Exception] = asyncio.Queue()
        record.model = head.model

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
            raise item
        self._note(item)
        return item

    def _note(self, item: h.Happening) -> None:
        if isinstance(item, h.Started) and item.attempt.tools:
            self._parser = self._parser or item.attempt.tools.parser()  # there is one expert only: see route.py
        if isinstance(item, h.Done):
            record, used = self._record, item.usage
            record.tokens_in, record.tokens_out = used["prompt_tokens"], used["completion_tokens"]
            record.cached = used["prompt_tokens_details"]["cached_tokens"]
            record.finish = f"{item.finish_reason} strategy={item.consensus['strategy']}"

    # ---- one object

    async def _collect(self) -> bytes:
        choice = Choice()
        while True:
            item = await self._take()
            if isinstance(item, h.Text):
                choice.texts.append(item.text)
            elif isinstance(item, h.Done):
                choice.finished = _finished(item)
                read = partial(read_message, parser=self._parser) if self._parser else plain_message
                whole = chat_object(self._head, [choice], n=1, with_logprobs=False, read=read)
                return msgspec.json.encode({**whole, "usage": item.usage, "consensus": item.consensus})

    # ---- a stream

    async def _stream(self, send: Send) -> None:
        first = await self._first()
        chunks = ConsensusChunks(self._head, with_usage=wants_usage(self._task.request))
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        body = chunks.opening() + b"".join(self._encode(chunks, item) for item in first)
        try:
            while not chunks.is_finished:
                if body:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                item = await self._take(self.keep_alive_seconds)
                body = KEEP_ALIVE if item is None else self._encode(chunks, item)
            body += chunks.closing()
        except ClientGone:
            raise
        except Exception as exc:
            problem = problem_for(exc)
            self._record.finish = f"error:{problem.code}"
            body = problem.to_event()
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

    def _encode(self, chunks: ConsensusChunks, item: h.Happening) -> bytes:
        parser = self._parser
        if isinstance(item, h.Text):
            return chunks.said(parser.feed(item.text)) if parser else chunks.encode([(0, Piece("", item.text, 1))])
        if isinstance(item, h.Done) and parser:
            rest = chunks.said(parser.finish())
            return rest + chunks.finish(replace(item, finish_reason=reason(_finished(item), parser)))
        if isinstance(item, h.Done):
            return chunks.finish(item)
        wanted = self._task.options.events
        if wanted == "none" or (isinstance(item, h.Wrote) and wanted != "text"):
            return b""
        event = event_object(item, self._task.options.include_experts)
        return chunks.progress(event) if event else b""


class ConsensusChunks(Chunks):
    """The chunks of an ordinary stream; progress and provenance are further fields, which other clients ignore."""

    def __init__(self, head: Head, *, with_usage: bool) -> None:
        super().__init__(head, 1, choices_per_prompt=1, with_usage=with_usage, with_logprobs=False)
        self._done: h.Done | None = None

    def said(self, deltas: Iterable[Delta]) -> bytes:
        """Words and calls of an answer that may call tools."""
        end = b',"logprobs":null,"finish_reason":null}]' + self._end
        return b"".join(self._choice(0) + b'"delta":' + json_line(delta_object(d)) + end for d in deltas)

    def progress(self, event: dict[str, Any]) -> bytes:
        choice = self._choice(0) + b'"delta":{},"logprobs":null,"finish_reason":null}]'
        return choice + self._with_consensus(event)

    def finish(self, done: h.Done) -> bytes:
        self._done = done
        self._num_running = 0
        ending = b'"delta":{},"logprobs":null,"finish_reason":"%s"}]' % done.finish_reason.encode()
        end = self._end if self._with_usage else self._with_consensus(done.consensus)
        return self._choice(0) + ending + end

    def closing(self) -> bytes:
        if self._done is None or not self._with_usage:
            return DONE
        fields = b'],"usage":' + json_line(self._done.usage) + b',"consensus":' + json_line(self._done.consensus)
        return self._start + fields + b"}\n\n" + DONE

    def _with_consensus(self, value: dict[str, Any]) -> bytes:
        usage = b',"usage":null' if self._with_usage else b""
        return b',"consensus":' + json_line(value) + usage + b"}\n\n"


def _finished(done: h.Done) -> Finished:
    used = done.usage
    how: Any = done.finish_reason
    return Finished("", how, "", used["prompt_tokens"], used["completion_tokens"], 0)
