"""The application of one port: its endpoints, and the handlers that give every error the same shape."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from axion_llm import __version__
from axion_llm.api import params
from axion_llm.api.openapi import document
from axion_llm.api.schemas import ChatRequest, CompletionRequest
from axion_llm.config import Settings
from axion_llm.consensus.options import ConsensusRequest, model_names, takes
from axion_llm.consensus.orchestrator import Orchestrator
from axion_llm.errors import AxionError
from axion_llm.pool.interface import ModelPool, ModelStatus
from axion_llm.servers import admin, consensus, health, metrics, standard, streaming
from axion_llm.servers.answer import ChatAnswer, CompletionAnswer
from axion_llm.servers.aside import aside
from axion_llm.servers.body import parse_body
from axion_llm.servers.cors import Cors
from axion_llm.servers.drain import Drain
from axion_llm.servers.guard import Gate, Guard, cors_options, is_known, require
from axion_llm.servers.images import load_images
from axion_llm.servers.middleware import RequestScope, answer_with_problem, record_of
from axion_llm.servers.page import add_page
from axion_llm.servers.profile import Kind, Profile
from axion_llm.servers.response_store import ResponseStore
from axion_llm.servers.responses import ResponseEndpoints
from axion_llm.servers.service import Service
from axion_llm.servers.telemetry import Telemetry
from axion_llm.servers.texts import TextEndpoints
from axion_llm.servers.tracing import Tracer

PROFILES: dict[Kind, Profile] = {p.kind: p for p in (standard.PROFILE, streaming.PROFILE, consensus.PROFILE)}


def create_app(
    pool: ModelPool,
    settings: Settings,
    *,
    kind: Kind,
    drain: Drain | None = None,
    gate: Gate | None = None,
    telemetry: Telemetry | None = None,
    tracer: Tracer | None = None,
    responses: ResponseStore | None = None,
) -> FastAPI:
    """What has a default here is one for all ports of a process; without it the port has its own, or none."""
    profile = PROFILES[kind]
    service = Service(pool, settings, profile, drain or Drain(), telemetry or Telemetry())
    app = FastAPI(title="axion-llm", version=__version__, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Guard, gate=gate or Gate(settings))
    if settings.cors_origins:
        app.add_middleware(Cors, **cors_options(settings.cors_origins))
    app.add_middleware(  # the last is the outermost
        RequestScope, port=kind, telemetry=service.telemetry, log_prompts=settings.log_prompts, tracer=tracer
    )
    for error in (AxionError, HTTPException, ValidationError, RequestValidationError):
        app.add_exception_handler(error, answer_with_problem)
    own = consensus.orchestrator(service) if kind == "consensus" else None
    _add_routes(app, Endpoints(service, own), TextEndpoints(service))
    _add_responses(app, ResponseEndpoints(service, responses, own))
    admin.add_routes(app, service)
    add_page(app)
    _answer_head(app)
    return app


def _answer_head(app: FastAPI) -> None:
    """Whatever can be got, without its body."""
    for route in app.routes:
        if isinstance(route, Route) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")


def _add_routes(app: FastAPI, endpoints: Endpoints, texts: TextEndpoints) -> None:
    options: dict[str, Any] = {"response_model": None}
    app.add_api_route("/v1/chat/completions", endpoints.chat, methods=["POST"], **options)
    app.add_api_route("/v1/completions", endpoints.complete, methods=["POST"], **options)
    app.add_api_route("/v1/embeddings", texts.embed, methods=["POST"], **options)
    app.add_api_route("/tokenize", texts.tokenize, methods=["POST"], **options)
    app.add_api_route("/detokenize", texts.detokenize, methods=["POST"], **options)
    app.add_api_route("/v1/models", endpoints.models, methods=["GET"], **options)
    app.add_api_route("/v1/models/{name:path}", endpoints.model, methods=["GET"], **options)
    app.add_api_route("/openapi.json", endpoints.openapi, methods=["GET"], **options)
    app.add_api_route("/metrics", endpoints.metrics, methods=["GET"], dependencies=[require("metrics")], **options)
    app.add_api_route("/health", endpoints.health, methods=["GET"], **options)
    app.add_api_route("/ready", endpoints.ready, methods=["GET"], **options)


def _add_responses(app: FastAPI, responses: ResponseEndpoints) -> None:
    options: dict[str, Any] = {"response_model": None}
    app.add_api_route("/v1/responses", responses.create, methods=["POST"], **options)
    app.add_api_route("/v1/responses/{response_id}", responses.retrieve, methods=["GET"], **options)
    app.add_api_route("/v1/responses/{response_id}", responses.delete, methods=["DELETE"], **options)
    app.add_api_route("/v1/responses/{response_id}/input_items", responses.input_items, methods=["GET"], **options)


class Endpoints:
    def __init__(self, service: Service, own: Orchestrator | None) -> None:
        self._service = service
        self._orchestrator = own
        self._document = msgspec.json.encode(document(consensus.BODIES if own else None))

    async def chat(self, request: Request) -> Response:
        schema = ConsensusRequest if self._orchestrator else ChatRequest
        body = await parse_body(request, schema, self._service.settings.max_body_bytes)
        is_streamed, record = self._is_streamed(body.stream), record_of(request.scope)
        record.without_effect = body.without_effect
        await aside(record, params.check, body, is_streamed=is_streamed)
        await load_images(body, self._service.settings)
        if self._orchestrator and isinstance(body, ConsensusRequest) and takes(body.model):
            return await consensus.answer(body, self._orchestrator, self._service, record, is_streamed=is_streamed)
        return ChatAnswer(body, self._service, record, is_streamed=is_streamed)

    async def complete(self, request: Request) -> Response:
        body = await parse_body(request, CompletionRequest, self._service.settings.max_body_bytes)
        is_streamed, record = self._is_streamed(body.stream), record_of(request.scope)
        await aside(record, params.check, body, is_streamed=is_streamed)
        return CompletionAnswer(body, self._service, record, is_streamed=is_streamed)

    def _is_streamed(self, asked: bool | None) -> bool:
        return self._service.profile.streams_by_default if asked is None else asked

    async def models(self, request: Request) -> Response:
        found = [self._model(status) for status in self._service.pool.models()]
        if self._orchestrator:
            found += [self._consensus_model(name) for name in model_names()]
        return JSONResponse({"object": "list", "data": found})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self._orchestrator and name in model_names():
            return JSONResponse(self._consensus_model(name))
        return JSONResponse(self._model(self._service.status(name)))

    def _consensus_model(self, name: str) -> dict[str, Any]:
        common = {"object": "model", "created": self._service.began, "owned_by": "axion-llm"}
        experts = [s for s in self._service.pool.models() if s.state != "missing"]
        about = {"description": consensus.DESCRIPTIONS[name], "input_modalities": _modalities(experts)}
        return {"id": name, **common, **about}

    def _model(self, status: ModelStatus) -> dict[str, Any]:
        return {
            "id": status.spec.name,
            "object": "model",
            "created": self._service.began,
            "owned_by": "axion-llm",
            "description": status.spec.description,
            "context_length": status.info.n_ctx if status.info else status.spec.n_ctx,
            "input_modalities": _modalities([status]),
            "state": status.state,
        }

    async def openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def metrics(self, request: Request) -> Response:
        return Response(await metrics.render(self._service), media_type=metrics.CONTENT_TYPE)

    async def health(self, request: Request) -> Response:
        return health.health(self._service, is_known=is_known(request.scope))

    async def ready(self, request: Request) -> Response:
        return health.ready(self._service, is_known=is_known(request.scope))


def _modalities(statuses: list[ModelStatus]) -> list[str]:
    """What one of them at least takes; of a model that is not loaded, what its registry entry says."""
    sees = any(s.info.has_vision if s.info else s.spec.mmproj for s in statuses)
    return ["text", "image"] if sees else ["text"]
