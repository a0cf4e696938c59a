"""/v1/responses: created (and stored), read again, deleted."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Any

from msgspec import structs
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from axion_llm.api import params
from axion_llm.api.collect import Choice, Head
from axion_llm.api.responses.events import ResponseEvents
from axion_llm.api.responses.items import chat_request, input_items, renamed_param
from axion_llm.api.responses.output import ResponseBuilder
from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.api.schemas import ChatRequest
from axion_llm.consensus.options import takes
from axion_llm.errors import BadRequest, RequestError, ResponseNotFound
from axion_llm.servers.access import Record
from axion_llm.servers.answer import Answer
from axion_llm.servers.body import parse_body
from axion_llm.servers.images import load_images
from axion_llm.servers.middleware import record_of
from axion_llm.servers.response_store import ResponseStore
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Generate, Loaded

log = logging.getLogger(__name__)

Json = dict[str, Any]

DEFAULT_PAGE, LARGEST_PAGE = 20, 100


class ResponseAnswer(Answer):
    num_prompts = 1

    def __init__(
        self,
        request: ResponsesRequest,
        history: list[Json],
        service: Service,
        record: Record,
        *,
        store: ResponseStore | None,
        is_streamed: bool,
    ) -> None:
        self._items = input_items(request)
        self._chat: ChatRequest = chat_request(request, [*history, *self._items])
        self._store, self._owner = store, record.key or ""
        self._events = ResponseEvents(ResponseBuilder(request, is_stored=store is not None))
        super().__init__(service, record, Head.new("resp", request.model), 1, is_streamed=is_streamed)

    async def check(self) -> None:
        try:
            params.check(self._chat, is_streamed=self._is_streamed)
            await load_images(self._chat, self._service.settings)
        except RequestError as error:
            raise _renamed(error) from None

    def prepare(self, info: Loaded) -> list[Generate]:
        try:
            plan = params.chat_tools(self._chat, self.origin(), info)
            self._events = ResponseEvents(self._events.builder, plan.parser() if plan else None)
            return params.chat_generates(self._chat, self.origin(), info)
        except RequestError as error:
            raise _renamed(error) from None

    def chunks(self) -> ResponseEvents:
        return self._events

    def whole(self, choices: list[Choice]) -> Json:
        (choice,) = choices
        last = structs.replace(choice.ending, text=choice.text, logprobs=choice.logprobs)
        self._events.encode([(0, last)])
        return self._events.response()

    async def before_end(self) -> None:
        """Stored before the client knows the id: it may use it at once."""
        if self._store is None:
            return
        try:
            await asyncio.to_thread(self._store.put, self._owner, self._events.response(), self._items)
        except sqlite3.Error:
            log.exception("id=%s: the response could not be stored", self._record.id)
            self._events.builder.is_stored = False


def _renamed(error: RequestError) -> RequestError:
    param = renamed_param(error.param)
    if param != error.param and error.param and param:
        error.message = error.message.replace(error.param, param, 1)
    error.param = param
    return error


class ResponseEndpoints:
    def __init__(self, service: Service, store: ResponseStore | None) -> None:
        self._service = service
        self._store = store

    async def create(self, request: Request) -> Response:
        body = await parse_body(request, ResponsesRequest, self._service.settings.max_body_bytes)
        default = self._service.profile.streams_by_default
        is_streamed = default if body.stream is None else body.stream
        if body.stream_options is not None and not is_streamed:
            raise BadRequest("stream_options: only allowed when stream is true", param="stream_options")
        if self._service.profile.kind == "consensus" and takes(body.model):
            raise BadRequest("model: the experts together answer on /v1/chat/completions only", param="model")
        record = record_of(request.scope)
        history = await self._history(body.previous_response_id, record.key or "")
        store = self._store_for(body)
        answer = ResponseAnswer(body, history, self._service, record, store=store, is_streamed=is_streamed)
        await answer.check()
        return answer

    def _store_for(self, body: ResponsesRequest) -> ResponseStore | None:
        if body.store and self._store is None:
            raise BadRequest("store: this server keeps no responses (store_responses is off)", param="store")
        return None if body.store is False else self._store

    async def _history(self, previous: str | None, owner: str) -> list[Json]:
        if previous is None:
            return []
        if self._store is None:
            message = "previous_response_id: this server keeps no responses; send the whole conversation as input"
            raise BadRequest(message, param="previous_response_id")
        return await asyncio.to_thread(self._store.conversation, owner, previous)

    async def retrieve(self, request: Request) -> Response:
        if request.query_params.get("stream", "false").lower() == "true":
            raise BadRequest("stream: a stored response is not streamed again", param="stream")
        store, owner, response_id = self._named(request)
        return JSONResponse((await asyncio.to_thread(store.get, owner, response_id)).response)

    async def delete(self, request: Request) -> Response:
        store, owner, response_id = self._named(request)
        await asyncio.to_thread(store.delete, owner, response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        store, owner, response_id = self._named(request)
        items = (await asyncio.to_thread(store.get, owner, response_id)).items
        return JSONResponse(page(items, dict(request.query_params)))

    def _named(self, request: Request) -> tuple[ResponseStore, str, str]:
        response_id: str = request.path_params["response_id"]
        if self._store is None:
            raise ResponseNotFound("This server keeps no responses (store_responses is off).")
        return self._store, record_of(request.scope).key or "", response_id


def page(items: list[Json], query: dict[str, str]) -> Json:
    """OpenAI's list of a part: `limit`, `order` (newest first by default), `after` an item's id."""
    order, limit = query.get("order", "desc"), query.get("limit", str(DEFAULT_PAGE))
    if order not in ("asc", "desc"):
        raise BadRequest("order: must be asc or desc", param="order")
    if not limit.isascii() or not limit.isdecimal() or not 1 <= int(limit[:9]) <= LARGEST_PAGE:
        raise BadRequest(f"limit: must be a number from 1 to {LARGEST_PAGE}", param="limit")
    ordered = items if order == "asc" else items[::-1]
    if (after := query.get("after")) is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise BadRequest("after: is no id of an item of this response", param="after")
        ordered = ordered[ids.index(after) + 1 :]
    shown = ordered[: int(limit)]
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "first_id": first, "last_id": last, "has_more": len(shown) < len(ordered)}
