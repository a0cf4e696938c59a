"""Models, health, readiness, and what an answer holds that the SDK does not show."""

from __future__ import annotations

import logging
import re
from typing import Any

import httpx
import pytest

from axion_llm.api.schemas import MAX_CHOICES
from axion_llm.servers.profile import Kind
from tests.fakes.fake_pool import FakePool, Script, spec
from tests.servers.conftest import LiveServer, eventually

BODY = {"model": "fake", "messages": [{"role": "user", "content": "Hi there you"}]}


@pytest.mark.behaviour("models.list", "models.at_once")
def test_models_are_listed_loaded_or_not(http: httpx.Client, pool: FakePool) -> None:
    found = http.get("/v1/models").json()
    assert found["object"] == "list"
    assert [m["id"] for m in found["data"]][:2] == ["fake", "org/other"]  # the consensus port has more
    for model in found["data"]:
        assert model["object"] == "model"
        assert isinstance(model["created"], int) and isinstance(model["owned_by"], str)
    assert [m["state"] for m in found["data"][:2]] == ["ready", "available"]
    assert pool.num_leases == 0


@pytest.mark.behaviour("models.one")
@pytest.mark.parametrize("path", ["/v1/models/org/other", "/v1/models/org%2Fother"])
def test_one_model_also_with_a_slash(http: httpx.Client, path: str) -> None:
    assert http.get(path).json()["id"] == "org/other"


def test_health(http: httpx.Client, pool: FakePool) -> None:
    pool.is_warm = False
    response = http.get("/health")
    assert response.status_code == 200
    assert response.json()["models"][0] == {"id": "fake", "state": "ready", "error": None}
    assert http.head("/health").status_code == 200


def test_health_asks_the_engines(http: httpx.Client, pool: FakePool) -> None:
    pool.seconds_silent = 7.5
    response = http.get("/health")
    assert response.status_code == 503
    assert response.json()["status"] == "degraded" and response.json()["hanging"] == ["fake"]
    pool.seconds_silent = 1.0
    assert http.get("/health").json()["status"] == "ok"


def test_ready_names_what_does_not_work(http: httpx.Client, pool: FakePool) -> None:
    pool.failed = {"fake": "fake has crashed 5 times\nand this is its output"}
    assert http.get("/ready").json() == {"status": "ready", "failed": {"fake": "fake has crashed 5 times"}}
    assert next(m for m in http.get("/v1/models").json()["data"] if m["id"] == "fake")["state"] == "failed"


def test_ready_only_when_the_pool_is(http: httpx.Client, pool: FakePool) -> None:
    assert http.get("/ready").json() == {"status": "ready"}
    pool.is_warm = False
    response = http.get("/ready")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "not_ready"
    assert response.headers["retry-after"]


def test_stream_defaults_by_port(server: LiveServer) -> None:
    with httpx.Client() as client:
        for kind, url in server.urls.items():
            for stream in (None, True, False):
                response = client.post(f"{url}/v1/chat/completions", json=BODY | {"stream": stream})
                is_streamed = response.headers["content-type"].startswith("text/event-stream")
                assert is_streamed == (kind == "streaming" if stream is None else stream)


def test_requests_of_the_streaming_port_are_interactive(server: LiveServer, pool: FakePool) -> None:
    for kind, url in server.urls.items():
        httpx.post(f"{url}/v1/chat/completions", json=BODY | {"stream": False})
        assert pool.requests[-1].interactive == (kind == "streaming")


@pytest.mark.behaviour("usage.tokens")
def test_usage(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(cached=2)
    found = http.post("/v1/chat/completions", json=BODY | {"stream": False, "n": 2}).json()
    assert found["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


@pytest.mark.behaviour("completions.echo")
def test_completions_of_prompts_of_each_kind(http: httpx.Client, pool: FakePool) -> None:
    for prompt, expected in [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ]:
        pool.requests.clear()
        body = {"model": "fake", "prompt": prompt, "stream": False}
        found = http.post("/v1/completions", json=body).json()
        assert [r.prompt for r in pool.requests] == expected
        assert [c["index"] for c in found["choices"]] == list(range(len(pool.requests)))
        assert found["object"] == "text_completion"


def test_the_most_choices(http: httpx.Client, pool: FakePool) -> None:
    found = http.post("/v1/chat/completions", json=BODY | {"stream": False, "n": MAX_CHOICES}).json()
    assert len(found["choices"]) == MAX_CHOICES
    assert len({r.request_id for r in pool.requests}) == MAX_CHOICES


def test_content_length_and_connections_are_kept(http: httpx.Client) -> None:
    for _ in range(3):
        response = http.post("/v1/chat/completions", json=BODY | {"stream": False})
        assert int(response.headers["content-length"]) == len(response.content)
        assert "connection" not in response.headers


def access_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "axion_llm.access"]

    eventually(lambda: bool(lines()))  # it is written once the answer is out
    return lines()


@pytest.mark.parametrize("stream", [True, False])
def test_one_line_in_the_log_without_any_text(
    http: httpx.Client, pool: FakePool, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    pool.script = Script(last_text="", cached=1)
    caplog.set_level(logging.INFO, logger="axion_llm.access")
    body: dict[str, Any] = BODY | {"stream": stream, "max_tokens": 2}
    http.post("/v1/chat/completions", json=body, headers={"x-request-id": "id-7"})
    [line] = access_lines(caplog)
    assert re.fullmatch(
        r"POST /v1/chat/completions 200 port=\w+ model=fake in=5 cached=1 out=2 ttft_ms=\d+ tps=[\d.]+ "
        r"finish=length ms=\d+ id=id-7",
        line,
    )
    assert "there" not in line


def test_a_model_name_cannot_forge_a_log_line(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="axion_llm.access")
    http.post("/v1/chat/completions", json=BODY | {"model": "x\nid=forged" + "y" * 400})
    [line] = access_lines(caplog)
    assert "\n" not in line and len(line) < 400
    assert "model=x?id=forged" in line and "finish=error:model_not_found" in line


def test_an_answer_that_is_there_all_at_once_is_collected_too(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(wait=False)
    response = http.post("/v1/chat/completions", json=BODY | {"stream": False, "n": 2})
    assert [c["message"]["content"] for c in response.json()["choices"]] == ["Hello world"] * 2


def test_metrics_name_each_loaded_model(http: httpx.Client) -> None:
    response = http.get("/metrics")
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/plain")
    assert 'axion_engine_steps_total{model="fake"}' in response.text


def test_a_client_can_see_who_takes_images(server: LiveServer, pool: FakePool) -> None:
    def modalities(kind: Kind) -> dict[str, list[str]]:
        models = httpx.get(f"{server.urls[kind]}/v1/models").json()["data"]
        return {m["id"]: m["input_modalities"] for m in models}

    assert modalities("consensus")["consensus"] == ["text"]
    pool.specs = [spec("fake"), spec("seeing", mmproj="projector.gguf")]
    assert modalities("standard") == {"fake": ["text"], "seeing": ["text", "image"]}
    assert modalities("consensus")["consensus/vote"] == ["text", "image"]
