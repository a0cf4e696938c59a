"""/openapi.json is true: it has every route, and what a running server says fits it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from axion_llm.api.openapi import document
from axion_llm.config import Settings
from axion_llm.servers.app import create_app
from axion_llm.servers.profile import Kind
from tests.fakes.fake_pool import FakePool
from tests.servers.conftest import LiveServer

Json = dict[str, Any]
KINDS: list[Kind] = ["standard", "streaming", "consensus"]
CHAT: Json = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "stream": False}


@pytest.fixture(params=KINDS)
def client(server: LiveServer, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.urls[request.param], timeout=10) as client:
        yield client


@pytest.fixture
def described(client: httpx.Client) -> Json:
    found: Json = client.get("/openapi.json").json()
    return found


def schema(described: Json, part: Json) -> Json:
    return {**part, "components": described["components"]}


def test_every_route_is_in_it() -> None:
    for kind in KINDS:
        app = create_app(FakePool(), Settings(store_responses=False), kind=kind)
        routes = {
            (method.lower(), route.path.replace(":path", ""))  # type: ignore[attr-defined]
            for route in app.routes
            for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
        }
        described = {(method, path) for path, methods in document()["paths"].items() for method in methods}
        assert described == {route for route in routes if route[1] != "/" and not route[1].startswith("/web/")}


def test_it_is_well_formed(described: Json) -> None:
    assert described["openapi"].startswith("3.1")
    for part in described["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(part)
    ids = [op["operationId"] for methods in described["paths"].values() for op in methods.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 1, "n": 2}),
        ("post", "/v1/completions", {"model": "fake", "prompt": "p", "stream": False}),
        ("post", "/v1/responses", {"model": "fake", "input": "Hi", "stream": False}),
        ("post", "/v1/embeddings", {"model": "fake", "input": ["a", "b"]}),
        ("post", "/v1/embeddings", {"model": "fake", "input": "a", "encoding_format": "base64"}),
        ("post", "/tokenize", {"model": "fake", "content": "né", "with_pieces": True}),
        ("post", "/detokenize", {"model": "fake", "tokens": [97]}),
        ("get", "/v1/models", None),
        ("get", "/health", None),
        ("get", "/ready", None),
        ("get", "/openapi.json", None),
        ("get", "/admin/status", None),
    ],
)
def test_what_the_server_takes_and_says_fits(
    client: httpx.Client, described: Json, method: str, path: str, body: Json | None
) -> None:
    operation = described["paths"][path][method]
    if body is not None:
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.validate(body, schema(described, asked), jsonschema.Draft202012Validator)
    answer = client.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    given = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), schema(described, given), jsonschema.Draft202012Validator)
    error = client.request(method, path, json={"model": 1} if body else None, params=None)
    if body is not None:
        wrong = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
        assert error.status_code == 400
        jsonschema.validate(error.json(), schema(described, wrong), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT | {"temperature": 3}),
        ("/v1/chat/completions", CHAT | {"audio": {"voice": "alloy"}}),
        ("/v1/chat/completions", CHAT | {"messages": []}),
        ("/v1/completions", {"model": "fake"}),
        ("/v1/responses", {"model": "fake", "input": "Hi", "background": True}),
        ("/v1/responses", {"model": "fake", "input": [{"role": "narrator", "content": "x"}]}),
        ("/v1/embeddings", {"model": "fake", "input": "a", "encoding_format": "int8"}),
    ],
)
def test_what_the_server_refuses_does_not_fit(client: httpx.Client, described: Json, path: str, body: Json) -> None:
    asked = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert client.post(path, json=body).status_code == 400
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, schema(described, asked), jsonschema.Draft202012Validator)
