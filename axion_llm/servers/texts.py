"""Endpoints that generate nothing: /v1/embeddings, /tokenize, /detokenize."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from axion_llm.api.texts import (
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
    check_dimensions,
    check_inputs,
    embedding_object,
    tokens_object,
)
from axion_llm.pool.interface import RunningModel
from axion_llm.servers.body import parse_body
from axion_llm.servers.middleware import record_of
from axion_llm.servers.question import Question
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Detokenize, Detokenized, Embed, Embedded, Tokenize, Tokenized

T = TypeVar("T")
Body = TypeVar("Body", bound=BaseModel)


class TextEndpoints:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def embed(self, request: Request) -> Response:
        body, record = await self._parse(request, EmbeddingRequest), record_of(request.scope)

        async def ask(model: RunningModel) -> Embedded:
            check_dimensions(body, model.info)
            check_inputs(body, model.info)
            return await model.embed(Embed(_new_id(), body.input))

        found = await self._ask(request, body.model, ask)
        record.count_prompt(found.prompt_tokens)
        record.finish = "stop"
        # Megabytes of numbers may be in it: not between the tokens of the streams.
        content = await asyncio.to_thread(lambda: msgspec.json.encode(embedding_object(body, found)))
        return Response(content, media_type="application/json")

    async def tokenize(self, request: Request) -> Response:
        body = await self._parse(request, TokenizeRequest)
        parse_special = body.parse_special is not False

        async def ask(model: RunningModel) -> Tokenized:
            return await model.tokenize(Tokenize(_new_id(), body.content, bool(body.add_special), parse_special))

        found = await self._ask(request, body.model, ask)
        return _json(tokens_object(found, with_pieces=bool(body.with_pieces)))

    async def detokenize(self, request: Request) -> Response:
        body = await self._parse(request, DetokenizeRequest)

        async def ask(model: RunningModel) -> Detokenized:
            return await model.detokenize(Detokenize(_new_id(), body.tokens))

        found = await self._ask(request, body.model, ask)
        return _json({"content": found.content})

    async def _parse(self, request: Request, schema: type[Body]) -> Body:
        return await parse_body(request, schema, self._service.settings.max_body_bytes)

    async def _ask(self, request: Request, model: str, ask: Callable[[RunningModel], Awaitable[T]]) -> T:
        record_of(request.scope).model = model
        self._service.expect_one_model(model)
        return await Question[T](self._service.pool, self._service.drain).ask(model, ask, request.receive)


def _new_id() -> str:
    return f"question-{uuid.uuid4().hex}"


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
