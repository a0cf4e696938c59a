"""Whatever is sent, the answer is a 200 or a 4xx of the one shape, and the server goes on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axion_llm.api.schemas import ChatRequest, CompletionRequest

PATHS = st.sampled_from(["/v1/chat/completions", "/v1/completions"])
FIELDS = sorted({*ChatRequest.model_fields, *CompletionRequest.model_fields})
JSON_HEADERS = {"content-type": "application/json"}

# Values that are nearly right are worth more than any: most of them get past the first check.
LIKELY = st.sampled_from(
    [
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
)
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
}
BODIES = st.fixed_dictionaries(VALID, optional={f: JSON for f in FIELDS if f not in VALID})

fuzz = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(response: httpx.Response) -> None:
    assert response.status_code == 200 or 400 <= response.status_code < 500, response.text
    assert response.headers["x-request-id"]
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def dumps(body: Any) -> bytes:
    return json.dumps(body).encode()


@fuzz
@given(path=PATHS, body=BODIES)
def test_bodies_that_are_nearly_right(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    check(http.post(path, content=dumps(body), headers=JSON_HEADERS))


@fuzz
@given(path=PATHS, body=JSON)
def test_any_json(http: httpx.Client, path: str, body: Any) -> None:
    check(http.post(path, content=dumps(body), headers=JSON_HEADERS))


@fuzz
@given(path=PATHS, body=st.binary(max_size=200))
def test_any_bytes(http: httpx.Client, path: str, body: bytes) -> None:
    check(http.post(path, content=body, headers=JSON_HEADERS))


@fuzz
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"]),
    path=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_any_path(http: httpx.Client, method: str, path: str) -> None:
    from urllib.parse import quote

    response = http.request(method, "/v1/models/" + quote(path))
    assert response.status_code in (200, 404, 405)
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("depth", [100, 1000, 100_000])
def test_deep_json(http: httpx.Client, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    check(http.post("/v1/completions", content=b'{"model":"fake","prompt":' + nested + b"}", headers=JSON_HEADERS))
    body = b'{"model":"fake","prompt":"p","unheard_of":' + nested + b"}"
    check(http.post("/v1/completions", content=body, headers=JSON_HEADERS))
