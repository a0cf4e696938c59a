"""A large request is worked on beside the event loop: others are answered meanwhile, and it gets the same answer."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from msgspec import structs

from axion_llm.servers import body as body_module
from tests.fakes.fake_pool import FakePool, spec
from tests.servers.conftest import LiveServer
from tests.servers.test_guard import running

# Some tenths of a second of Python's work, and a text that comes out again.
SLOW = "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}{{ messages[0].content }}"


@pytest.fixture
def slow(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> LiveServer:
    monkeypatch.setattr(body_module, "LARGE_BYTES", 1000)
    server.pool.specs = [spec("fake", chat_template=SLOW)]
    server.pool.info = structs.replace(server.pool.info, control_tokens=["<|im_end|>"])
    return server


@contextmanager
def waits(url: str) -> Iterator[list[float]]:
    """How long each of many small requests has waited for its answer, in seconds."""
    found: list[float] = []
    has_ended = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not has_ended.is_set():
                began = time.perf_counter()
                client.get(f"{url}/health")
                found.append(time.perf_counter() - began)

    gc.collect()
    gc.freeze()  # as the service does: all that a run of tests has left behind takes half a second to walk
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield found
    finally:
        has_ended.set()
        thread.join()
        gc.unfreeze()


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": text}], "stream": False, **fields}


@pytest.mark.parametrize("kind", ["standard", "consensus"])
@pytest.mark.parametrize("model", ["fake", "consensus"])
def test_others_do_not_wait_for_it(slow: LiveServer, kind: str, model: str) -> None:
    if kind == "standard" and model == "consensus":
        pytest.skip("is a model of the consensus port")
    url = {str(k): v for k, v in slow.urls.items()}[kind]
    httpx.post(f"{url}/v1/chat/completions", json=chat("<|im_end|>", model=model))  # the languages are loaded
    slow.pool.requests.clear()
    with waits(url) as seconds:
        began = time.perf_counter()
        response = httpx.post(f"{url}/v1/chat/completions", json=chat("<|im_end|>" * 2000, model=model), timeout=30)
        taken = time.perf_counter() - began
    assert response.status_code == 200, response.text
    assert all(len(request.literals) == 2000 for request in slow.pool.requests)
    assert max(seconds) < taken / 2, "the event loop was somebody's alone"


@pytest.mark.parametrize(
    ("path", "asked"),
    [("chat/completions", chat("hi")), ("completions", {"prompt": "hi"}), ("responses", {"input": "hi"})],
)
def test_others_do_not_wait_for_its_checks(path: str, asked: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {f"p{i}": {} for i in range(90_000)}}
    with running(max_body_bytes=8_000_000) as server, waits(server.urls["standard"]) as seconds:
        url, body = f"{server.urls['standard']}/v1/{path}", {"model": "fake", **asked, "json_schema": schema}
        began = time.perf_counter()
        response = httpx.post(url, json=body, timeout=30)
        taken = time.perf_counter() - began
    assert response.status_code == 400 and "more than the 131,072" in response.text
    assert max(seconds) < taken / 2, "the event loop was somebody's alone"


def test_a_small_one_is_prepared_at_once(slow: LiveServer) -> None:
    """So that the test above can fail: in the event loop everybody waits for it."""
    url = slow.urls["standard"]
    with waits(url) as seconds:
        began = time.perf_counter()
        assert httpx.post(f"{url}/v1/chat/completions", json=chat("hi"), timeout=30).status_code == 200
        taken = time.perf_counter() - began
    assert max(seconds) > taken / 2


def test_its_errors_are_those_of_a_small_one(slow: LiveServer) -> None:
    url = slow.urls["standard"] + "/v1/chat/completions"
    for fields in ({"temperature": 9}, {"messages": [{"role": "robot"}]}, {"model": "nope"}):
        small, large = (httpx.post(url, json=chat("hi", user="u" * size, **fields)) for size in (1, 2000))
        assert large.status_code == small.status_code >= 400
        assert large.json()["error"] == small.json()["error"]


def test_a_text_that_no_context_can_hold(http: httpx.Client, pool: FakePool) -> None:
    pool.info = structs.replace(pool.info, n_ctx=64, n_embedding_tokens=64)
    text = "a" * 20_000
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": chat(text),
        "/v1/completions": {"model": "fake", "prompt": text},
        "/v1/embeddings": {"model": "fake", "input": [text]},
        "/v1/responses": {"model": "fake", "input": text},
    }
    for path, body in bodies.items():
        response = http.post(path, json=body)
        assert response.status_code == 400, path
        assert response.json()["error"]["code"] == "context_length_exceeded"
