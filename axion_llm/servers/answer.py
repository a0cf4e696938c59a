"""The answer to one completion request, as an ASGI response: one object, or a stream of chunks."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from axion_llm.api.collect import Choice, Head, chat_object, completion_object, plain_message
from axion_llm.api.errors import Problem, problem_for
from axion_llm.api.params import Origin, chat_generates, chat_tools, completion_generates, named_as_sent
from axion_llm.api.schemas import ChatRequest, CompletionRequest, Generation
from axion_llm.api.sse import KEEP_ALIVE
from axion_llm.api.stream import Chunks, TextChunks
from axion_llm.api.tools.chunks import ToolChunks, read_message
from axion_llm.api.tools.plan import ToolPlan
from axion_llm.errors import RequestError
from axion_llm.servers.access import Record
from axion_llm.servers.exchange import KEEP_ALIVE_SECONDS, ClientGone, Exchange
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Event, Generate, Loaded

log = logging.getLogger(__name__)

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold tokens back
]


class Stream(Protocol):
    """The events of an answer as bytes: opening(), then encode(...) until is_finished, then closing() or failing()."""

    @property
    def is_finished(self) -> bool: ...

    def opening(self) -> bytes: ...

    def encode(self, events: Iterable[tuple[int, Event]]) -> bytes: ...

    def closing(self) -> bytes: ...

    def failing(self, problem: Problem) -> bytes: ...


class Answer(Response, ABC):
    """Works while it is being sent, so that an error before the first byte is a plain HTTP status."""

    keep_alive_seconds = KEEP_ALIVE_SECONDS

    def __init__(self, service: Service, record: Record, head: Head, n: int, *, is_streamed: bool) -> None:
        super().__init__()
        service.expect_one_model(head.model)
        self.head = head
        self.n = n  # choices of each prompt
        self._service = service
        self._record = record
        self._is_streamed = is_streamed
        record.model = head.model

    @property
    def num_choices(self) -> int:
        return self.num_prompts * self.n

    @property
    @abstractmethod
    def num_prompts(self) -> int: ...

    @abstractmethod
    def prepare(self, info: Loaded) -> list[Generate]: ...

    @abstractmethod
    def whole(self, choices: list[Choice]) -> dict[str, Any]: ...

    @abstractmethod
    def chunks(self) -> Stream: ...

    @abstractmethod
    def named(self, error: RequestError) -> RequestError:
        """With the names of the fields that the client has sent."""

    async def before_end(self) -> dict[str, Any]:
        """What is to be done before a client hears that its answer is complete; fields of it that this decides."""
        return {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, record = self._service, self._record
        exchange = Exchange(service.pool, service.drain, record, self.num_prompts, self.n)
        try:
            async with exchange:
                exchange.start(self.head.model, self.prepare, receive)
                await exchange.accepted()
                if self._is_streamed:
                    return await self._stream(exchange, send)
                response = Response(await self._collect(exchange), media_type="application/json")
            await response(scope, receive, send)
        except RequestError as error:
            raise self.named(error) from None
        except ClientGone:
            record.finish = "disconnected"
        except asyncio.CancelledError:
            if not exchange.is_stalled:
                raise
            record.finish = "stalled"
            log.warning("id=%s: the client has stopped reading its stream, the request is cancelled", record.id)

    def origin(self) -> Origin:
        spec, is_interactive = self._service.spec(self.head.model), self._service.profile.is_interactive
        return Origin(self.head.id, spec, is_interactive, self._record.tenant)

    async def _collect(self, exchange: Exchange) -> bytes:
        choices = [Choice() for _ in range(self.num_choices)]
        while any(choice.finished is None for choice in choices):  # all may have come before the first look
            for index, event in await exchange.take():
                choices[index].add(event)
        whole = self.whole(choices)
        whole |= await self.before_end()
        return msgspec.json.encode(whole)

    async def _stream(self, exchange: Exchange, send: Send) -> None:
        chunks = self.chunks()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
        if opening := chunks.opening():
            await send({"type": "http.response.body", "body": opening, "more_body": True})
        exchange.keep_alive(self.keep_alive_seconds)
        try:
            while True:
                events = await exchange.take()
                body = chunks.encode(events) if events else KEEP_ALIVE
                if chunks.is_finished:
                    await self.before_end()
                    body += chunks.closing()
                    break
                if body:
                    await send({"type": "http.response.body", "body": body, "more_body": True})
        except ClientGone:
            raise
        except Exception as exc:
            body = chunks.failing(self._problem(exc))
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _problem(self, exc: Exception) -> Problem:
        problem = problem_for(self.named(exc) if isinstance(exc, RequestError) else exc)
        self._record.finish = f"error:{problem.code}"
        if not problem.is_expected:
            log.error("error in the middle of a stream, id=%s", self._record.id, exc_info=exc)
        return problem


class ChatAnswer(Answer):
    num_prompts = 1

    def __init__(self, request: ChatRequest, service: Service, record: Record, *, is_streamed: bool) -> None:
        head = Head.new("chatcmpl", request.model)
        super().__init__(service, record, head, request.n or 1, is_streamed=is_streamed)
        self._request = request
        self._with_logprobs = bool(request.logprobs)
        self._tools: ToolPlan | None = None

    def prepare(self, info: Loaded) -> list[Generate]:
        self._tools = chat_tools(self._request, self.origin(), info)
        return chat_generates(self._request, self.origin(), info)

    def named(self, error: RequestError) -> RequestError:
        return named_as_sent(error, self._request)

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        plan = self._tools
        read = (lambda choice: read_message(choice, plan.parser())) if plan else plain_message
        return chat_object(self.head, choices, n=self.n, with_logprobs=self._with_logprobs, read=read)

    def chunks(self) -> Stream:
        options: dict[str, Any] = {
            "choices_per_prompt": self.n,
            "with_usage": wants_usage(self._request),
            "with_logprobs": self._with_logprobs,
        }
        if self._tools:
            return ToolChunks(self.head, [self._tools.parser() for _ in range(self.n)], **options)
        return Chunks(self.head, self.num_choices, **options)


class CompletionAnswer(Answer):
    def __init__(self, request: CompletionRequest, service: Service, record: Record, *, is_streamed: bool) -> None:
        head = Head.new("cmpl", request.model)
        super().__init__(service, record, head, request.n or 1, is_streamed=is_streamed)
        self._request = request
        self._with_logprobs = request.logprobs is not None

    @property
    def num_prompts(self) -> int:
        return len(self._request.prompt)

    @property
    def echoes(self) -> list[str]:
        request = self._request
        texts = [str(p) if request.echo and not request.is_echoed_by_worker(p) else "" for p in request.prompt]
        return [text for text in texts for _ in range(self.n)]

    def prepare(self, info: Loaded) -> list[Generate]:
        return completion_generates(self._request, self.origin(), info)

    def named(self, error: RequestError) -> RequestError:
        return named_as_sent(error, self._request)

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        with_logprobs = self._with_logprobs
        return completion_object(self.head, choices, n=self.n, with_logprobs=with_logprobs, echoes=self.echoes)

    def chunks(self) -> Chunks:
        return TextChunks(
            self.head,
            self.num_choices,
            echoes=self.echoes,
            choices_per_prompt=self.n,
            with_usage=wants_usage(self._request),
            with_logprobs=self._with_logprobs,
        )


def wants_usage(request: Generation) -> bool:
    return bool(request.stream_options and request.stream_options.include_usage)
