"""The admin end-points: the status, and orders to load, unload, pin and unpin a model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from axion_llm.api import status as doc
from axion_llm.api.fields import null_is
from axion_llm.servers import status
from axion_llm.servers.body import parse_body
from axion_llm.servers.guard import require
from axion_llm.servers.service import Service

MAX_ORDER_BYTES = 1024


class OrderBody(BaseModel):
    """JSON, also when it says nothing: no page from elsewhere can make a browser send that unasked."""

    model_config = ConfigDict(extra="forbid", strict=True)
    force: Annotated[bool, null_is(False)] = False  # unload: end the requests that are in flight


def add_routes(app: FastAPI, service: Service) -> None:
    admin = Admin(service)
    options: dict[str, Any] = {"response_model": None, "dependencies": [require("admin")]}
    app.add_api_route("/admin/status", admin.status, methods=["GET"], **options)
    for order in (admin.load, admin.unload, admin.pin, admin.unpin):
        path = f"/admin/models/{{name:path}}/{order.__name__}"
        app.add_api_route(path, order, methods=["POST"], **options)


class Admin:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = service.pool

    async def status(self, request: Request) -> Response:
        """`?memory=0` leaves out what takes some milliseconds to measure."""
        with_memory = request.query_params.get("memory", "1") != "0"
        return _json(doc.encode(await status.build(self._service, with_memory=with_memory)))

    async def load(self, request: Request) -> Response:
        name, _ = await self._read(request)
        await self._pool.load(name)
        return self._answer(name)

    async def unload(self, request: Request) -> Response:
        name, body = await self._read(request)
        await self._pool.unload(name, force=body.force)
        return self._answer(name)

    async def pin(self, request: Request) -> Response:
        name, _ = await self._read(request)
        self._pool.pin(name, True)
        return self._answer(name)

    async def unpin(self, request: Request) -> Response:
        name, _ = await self._read(request)
        self._pool.pin(name, False)
        return self._answer(name)

    async def _read(self, request: Request) -> tuple[str, OrderBody]:
        body = await parse_body(request, OrderBody, MAX_ORDER_BYTES)
        return self._service.spec(request.path_params["name"]).name, body

    def _answer(self, name: str) -> Response:
        now = self._service.status(name)
        return _json(doc.encode(doc.Order(name, now.state, now.is_pinned)))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
