"""/openapi.json: what the ports take and give, from the schemas that check the requests.

A body's schema is the one pydantic checks; what no schema can say (fields that exclude each other) is in the errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from axion_llm import __version__
from axion_llm.api import openapi_answers as answers
from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.api.schemas import ChatRequest, CompletionRequest
from axion_llm.api.texts import DetokenizeRequest, EmbeddingRequest, TokenizeRequest

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_JSON, _SSE, _TEXT = "application/json", "text/event-stream", "text/plain"


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    summary: str
    answer: str  # a name in `answers.SCHEMAS`, or "" for plain text
    body: type[BaseModel] | None = None
    is_streamed: bool = False
    queries: Mapping[str, Json] | None = None
    is_admin: bool = False


OPERATIONS = (
    Operation("post", "/v1/chat/completions", "Answer a conversation", "ChatCompletion", ChatRequest, True),
    Operation("post", "/v1/completions", "Continue a text", "TextCompletion", CompletionRequest, True),
    Operation("post", "/v1/responses", "Answer, and keep the answer", "Response", ResponsesRequest, True),
    Operation("get", "/v1/responses/{response_id}", "A stored response", "Response"),
    Operation("delete", "/v1/responses/{response_id}", "Delete a stored response", "Deleted"),
    Operation(
        "get",
        "/v1/responses/{response_id}/input_items",
        "What a stored response was asked",
        "ItemList",
        queries={
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
            "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
            "after": {"type": "string", "description": "the id of an item: those behind it"},
        },
    ),
    Operation("post", "/v1/embeddings", "Vectors of texts", "EmbeddingList", EmbeddingRequest),
    Operation("post", "/tokenize", "Text to tokens, as llama-server", "Tokens", TokenizeRequest),
    Operation("post", "/detokenize", "Tokens to text, as llama-server", "Content", DetokenizeRequest),
    Operation("get", "/v1/models", "All models, loaded or not", "ModelList"),
    Operation("get", "/v1/models/{name}", "One model; its name may have slashes", "Model"),
    Operation("get", "/health", "Whether the service answers", "Health"),
    Operation("get", "/ready", "Whether the models to be warm at start are loaded", "Ready"),
    Operation("get", "/metrics", "Prometheus' text format", ""),
    Operation("get", "/openapi.json", "This document", "Document"),
    Operation("get", "/admin/status", "Models, processes, memory", "AdminStatus", is_admin=True),
)
ORDERS = ("load", "unload", "pin", "unpin")


def document(bodies: Mapping[str, type[BaseModel]] | None = None) -> Json:
    """`bodies`: schemas that a port has in place of the usual ones, by path."""
    operations = [*_with(bodies or {}), *_orders()]
    models = {op.body for op in operations if op.body}
    schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)[1]["$defs"]
    paths: Json = {}
    for op in operations:
        paths.setdefault(op.path, {})[op.method] = _operation(op)
    return {
        "openapi": "3.1.0",
        "info": {"title": "axion-llm", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": {**schemas, **answers.SCHEMAS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],  # a key is asked for where the service has any
    }


def _with(bodies: Mapping[str, type[BaseModel]]) -> Iterator[Operation]:
    for op in OPERATIONS:
        body = bodies.get(op.path, op.body)
        yield Operation(**{**vars(op), "body": body})


def _orders() -> Iterator[Operation]:
    for order in ORDERS:
        summary = f"{order.capitalize()} a model"
        yield Operation("post", f"/admin/models/{{name}}/{order}", summary, "Order", _OrderBody, is_admin=True)


class _OrderBody(BaseModel):
    """As servers/admin.py checks it."""

    model_config = {"title": "OrderBody", "extra": "forbid"}
    force: bool = False


def _operation(op: Operation) -> Json:
    words = op.path.strip("/").replace("{", "").replace("}", "").split("/")
    described: Json = {
        "operationId": "_".join([op.method, *words]).replace(".", "_"),
        "summary": op.summary,
        "tags": [words[1] if words[0] in ("v1", "admin") else words[0]],
        "responses": {"200": _success(op), "4XX": _error("the request"), "5XX": _error("the service")},
    }
    if op.is_admin:
        described["security"] = [{"key": []}]
    if parameters := [*_in_path(op.path), *_in_query(op.queries or {})]:
        described["parameters"] = parameters
    if op.body:
        schema = {"$ref": _REF.format(model=_name(op.body))}
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    return described


def _name(body: type[BaseModel]) -> str:
    return str(body.model_config.get("title") or body.__name__) if body is not _OrderBody else "_OrderBody"


def _in_path(path: str) -> Iterator[Json]:
    for part in path.split("/"):
        if part.startswith("{"):
            yield {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(queries: Mapping[str, Json]) -> Iterator[Json]:
    for name, schema in queries.items():
        yield {"name": name, "in": "query", "required": False, "schema": schema}


def _success(op: Operation) -> Json:
    if not op.answer:
        return {"description": "Done", "content": {_TEXT: {"schema": {"type": "string"}}}}
    content: Json = {_JSON: {"schema": {"$ref": _REF.format(model=op.answer)}}}
    if op.is_streamed:
        about = "with `stream`: server-sent events, the data of each an object of JSON, of the last one [DONE]"
        content[_SSE] = {"schema": {"description": about}}
    return {"description": "Done", "content": content}


def _error(whose: str) -> Json:
    content = {_JSON: {"schema": {"$ref": _REF.format(model="Error")}}}
    return {"description": f"An error of {whose}", "content": content}
