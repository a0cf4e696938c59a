"""/v1/responses: created (and stored), read again, deleted."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.api.schemas import ChatRequest
from axion_llm.consensus.options import ConsensusRequest, ConsensusResponsesRequest, takes
from axion_llm.consensus.orchestrator import Orchestrator
from axion_llm.errors import BadRequest, ResponseNotFound
from axion_llm.servers import consensus_response
from axion_llm.servers.access import Record
from axion_llm.servers.aside import aside
from axion_llm.servers.body import parse_body
from axion_llm.servers.middleware import record_of
from axion_llm.servers.response_answer import ResponseAnswer
from axion_llm.servers.response_draft import ResponseDraft
from axion_llm.servers.response_store import ResponseStore
from axion_llm.servers.service import Service

Json = dict[str, Any]

DEFAULT_PAGE, LARGEST_PAGE = 20, 100


class ResponseEndpoints:
    def __init__(self, service: Service, store: ResponseStore | None, own: Orchestrator | None = None) -> None:
        self._service = service
        self._store = store
        self._orchestrator = own

    async def create(self, request: Request) -> Response:
        schema = ConsensusResponsesRequest if self._orchestrator else ResponsesRequest
        body = await parse_body(request, schema, self._service.settings.max_body_bytes)
        default = self._service.profile.streams_by_default
        is_streamed = default if body.stream is None else body.stream
        if body.stream_options is not None and not is_streamed:
            raise BadRequest("stream_options: only allowed when stream is true", param="stream_options")
        record = record_of(request.scope)
        record.without_effect = body.without_effect
        record.is_large = record.is_large or body.previous_response_id is not None
        draft = await self._draft(body, record)
        await draft.check(self._service.settings, record, is_streamed=is_streamed)
        if self._orchestrator and takes(body.model):
            own = self._orchestrator
            return await consensus_response.answer(draft, own, self._service, record, is_streamed=is_streamed)
        return ResponseAnswer(draft, self._service, record, is_streamed=is_streamed)

    async def _draft(self, body: ResponsesRequest, record: Record) -> ResponseDraft:
        owner = record.owner
        history = await self._history(body.previous_response_id, owner)
        chat = ConsensusRequest if self._orchestrator and takes(body.model) else ChatRequest
        store = self._store_for(body)
        return await aside(record, ResponseDraft, body, history, chat, store=store, owner=owner)

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
        return await self._store.ask(self._store.conversation, owner, previous)

    async def retrieve(self, request: Request) -> Response:
        if request.query_params.get("stream", "false").lower() == "true":
            raise BadRequest("stream: a stored response is not streamed again", param="stream")
        store, owner, response_id = self._named(request)
        return JSONResponse((await store.ask(store.get, owner, response_id)).response)

    async def delete(self, request: Request) -> Response:
        store, owner, response_id = self._named(request)
        await store.ask(store.delete, owner, response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Response:
        store, owner, response_id = self._named(request)
        items = (await store.ask(store.get, owner, response_id)).items
        return JSONResponse(page(items, dict(request.query_params)))

    def _named(self, request: Request) -> tuple[ResponseStore, str, str]:
        response_id: str = request.path_params["response_id"]
        if self._store is None:
            raise ResponseNotFound("This server keeps no responses (store_responses is off).")
        return self._store, record_of(request.scope).owner, response_id


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
