"""Whatever is sent, the answer is a 200 or a 4xx of the one shape, and the server goes on."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.api.schemas import ChatRequest, CompletionRequest
from axion_llm.api.texts import DetokenizeRequest, EmbeddingRequest, TokenizeRequest
from axion_llm.config import Settings
from axion_llm.servers.app import create_app
from tests.fakes.fake_pool import FakePool
from tests.servers.conftest import LiveServer

REQUESTS: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
    "/v1/embeddings": EmbeddingRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
PATHS = st.sampled_from(sorted(REQUESTS))
FIELDS = sorted({name for request in REQUESTS.values() for name in request.model_fields})
JSON_HEADERS = {"content-type": "application/json"}

# Values that are nearly right are worth more than any: most of them get past the first check.
ATOMS: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    0.5,
    1e308,
    2**63,
    "",
    "x",
    "\x00",
    "\u2028",
    [],
    ["a"],
    [1],
    [[1]],
    {},
    {"1": 1},
]
LIKELY = st.sampled_from(ATOMS)
KEYS = ["type", "content", "role", "name", "function", "schema", "1"]
JSON = st.recursive(
    LIKELY | st.text(max_size=20) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
        "content": st.text(max_size=30),
    }
)
VALID = {
    "model": st.just("fake"),
    "messages": st.lists(MESSAGE, min_size=1, max_size=3),
    "prompt": st.text(max_size=9),
    "input": st.text(max_size=9),
    "content": st.text(max_size=9),
    "tokens": st.lists(st.integers(0, 255), max_size=3),
}
BODIES = st.fixed_dictionaries(VALID, optional={f: JSON for f in FIELDS if f not in VALID})


def fuzz(max_examples: int) -> Any:
    return settings(
        max_examples=max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def check(response: httpx.Response) -> None:
    assert response.status_code == 200 or 400 <= response.status_code < 500, response.text
    assert response.headers["x-request-id"]
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def dumps(body: Any) -> bytes:
    return json.dumps(body).encode()


@fuzz(150)
@given(path=PATHS, body=BODIES)
def test_bodies_that_are_nearly_right(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    check(http.post(path, content=dumps(body), headers=JSON_HEADERS))


@fuzz(150)
@given(path=PATHS, body=JSON)
def test_any_json(http: httpx.Client, path: str, body: Any) -> None:
    check(http.post(path, content=dumps(body), headers=JSON_HEADERS))


@fuzz(150)
@given(path=PATHS, body=st.binary(max_size=200))
def test_any_bytes(http: httpx.Client, path: str, body: bytes) -> None:
    check(http.post(path, content=body, headers=JSON_HEADERS))


@fuzz(150)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]),
    path=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_any_path(http: httpx.Client, method: str, path: str) -> None:
    response = http.request(method, "/v1/models/" + quote(path))
    assert response.status_code in (200, 404, 405)
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("depth", [100, 1000, 100_000])
def test_deep_json(http: httpx.Client, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    check(http.post("/v1/completions", content=b'{"model":"fake","prompt":' + nested + b"}", headers=JSON_HEADERS))
    body = b'{"model":"fake","prompt":"p","unheard_of":' + nested + b"}"
    check(http.post("/v1/completions", content=body, headers=JSON_HEADERS))


async def test_ten_thousand_bodies(tmp_path: Path) -> None:
    """Drawn plainly and sent without a socket: some milliseconds each, where hypothesis takes a hundred."""
    settings = Settings(responses_file=tmp_path / "responses.sqlite")
    app, draw, statuses = create_app(FakePool(), settings, kind="standard"), random.Random(7), Counter[int]()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=JSON_HEADERS) as client:
        for _ in range(10_000):
            path, body = draw.choice(sorted(REQUESTS)), _nearly_right(draw)
            response = await asyncio.wait_for(client.post(path, content=dumps(body)), 30)
            check(response)
            statuses[response.status_code] += 1
    assert statuses[200] > 2000 and statuses[400] > 2000  # both sides of the checks were reached


def _nearly_right(draw: random.Random) -> Any:
    body: dict[str, Any] = {"model": "fake", "prompt": "p", "input": "i", "content": "c", "tokens": [1]}
    body["messages"] = [{"role": draw.choice(["system", "user", "assistant", "tool"]), "content": "hi"}]
    body |= {field: _any_value(draw, 0) for field in draw.sample(FIELDS, draw.randrange(5))}
    return body if draw.random() < 0.9 else _any_value(draw, 0)


def _any_value(draw: random.Random, depth: int) -> Any:
    kind = draw.random()
    if kind < 0.6 or depth > 3:
        return draw.choice(ATOMS)
    if kind < 0.75:
        return "".join(draw.choices('ab{}[]"\\é,', k=draw.randrange(12)))
    values = [_any_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return values if kind < 0.88 else dict(zip(draw.sample(KEYS, len(values)), values, strict=True))


# ---- the file system

MARK = "axion-probe-of-a-path"
opened: list[str] = []
_is_watching = False


def _note_opened(event: str, args: tuple[Any, ...]) -> None:
    if _is_watching and event in ("open", "os.listdir", "os.scandir", "os.rename", "os.remove", "os.mkdir"):
        opened.append(str(args[0]))


PATH_LIKE = st.sampled_from(
    [f"/{MARK}", f"../../{MARK}", f"file:///{MARK}", f"~/{MARK}", f"/{MARK}\x00.gguf", f"{MARK}/../x", f"\\\\x\\{MARK}"]
)


def test_the_watch_sees_what_is_opened() -> None:
    """So that the next test can fail."""
    with watching(), pytest.raises(OSError):
        Path(f"/{MARK}").read_bytes()
    assert f"/{MARK}" in opened


@fuzz(150)
@given(path=PATHS, text=PATH_LIKE, field=st.sampled_from(FIELDS))
def test_no_text_of_a_request_is_opened_as_a_file(
    http: httpx.Client, server: LiveServer, path: str, text: str, field: str
) -> None:
    valid = {"model": "fake", "messages": [{"role": "user", "content": text}], "prompt": text, "input": text}
    body = {**valid, "content": text, "tokens": [1], field: text}
    with watching():
        check(http.post(path, content=dumps(body), headers={**JSON_HEADERS, "x-request-id": text.strip("\x00")[:9]}))
        for place in ("/v1/models/", "/v1/responses/", "/web/", "/admin/models/", "/"):
            http.get(place + quote(text))
    assert [name for name in opened if MARK in name] == []


@contextmanager
def watching() -> Iterator[None]:
    """Every file that this process (the server's too) opens is noted in `opened`."""
    global _is_watching
    if not hasattr(sys, "_axion_hook"):
        sys.addaudithook(_note_opened)
        sys._axion_hook = True  # type: ignore[attr-defined]  # a hook cannot be taken away
    opened.clear()
    _is_watching = True
    try:
        yield
    finally:
        _is_watching = False
