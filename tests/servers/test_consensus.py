"""The consensus port over HTTP: the models it lists, the object and the stream it answers with, its errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from axion_llm import errors
from axion_llm.servers.consensus_answer import ConsensusAnswer
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer, eventually
from tests.servers.test_streaming import CHAT, data, raw_post

BODY: dict[str, Any] = {"model": "consensus", "messages": [{"role": "user", "content": "Capital of France?"}]}
STRATEGIES = ["auto", "route", "cascade", "vote", "best_of", "synthesize", "self"]


@pytest.fixture
def url(server: LiveServer) -> str:
    return server.urls["consensus"]


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


def events(text: str) -> list[dict[str, Any]]:
    *chunks, done = data(text)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def test_models(sdk: openai.OpenAI) -> None:
    names = [model.id for model in sdk.models.list()]
    assert names == ["fake", "org/other", "consensus", *(f"consensus/{s}" for s in STRATEGIES)]
    assert sdk.models.retrieve("consensus/vote").id == "consensus/vote"


def test_an_expert_is_a_plain_model(sdk: openai.OpenAI, pool: FakePool) -> None:
    answer = sdk.chat.completions.create(model="fake", messages=BODY["messages"])
    assert answer.choices[0].message.content == "Hello world"
    assert "consensus" not in (answer.model_extra or {})
    assert len(pool.requests) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_answers(sdk: openai.OpenAI, strategy: str) -> None:
    answer = sdk.chat.completions.create(model=f"consensus/{strategy}", messages=BODY["messages"])
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == f"consensus/{strategy}"
    found = (answer.model_extra or {})["consensus"]
    assert found["strategy"] == strategy or strategy == "auto"
    assert found["routing"]["reason"]


def test_usage_sums_every_call(sdk: openai.OpenAI, pool: FakePool) -> None:
    options = {"experts": ["fake"], "n": 3, "early_stop": False}
    answer = sdk.chat.completions.create(
        model="consensus/self", messages=BODY["messages"], extra_body={"consensus": options}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3 * 3
    assert len(pool.requests) == 3
    assert pool.num_leases == 0


def test_the_stream(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(model="consensus/vote", messages=BODY["messages"], stream=True) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello world"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert sum(c.choices[0].finish_reason is not None for c in chunks) == 1
    told = [extra["event"] for c in chunks if "event" in (extra := (c.model_extra or {}).get("consensus", {}))]
    assert told[0] == "plan"
    assert told[-1] == "decided"
    assert {"expert_started", "expert_ended"} <= set(told)
    assert (chunks[-1].model_extra or {})["consensus"]["agreement"] == 1.0


def test_the_metadata_is_on_the_very_last_chunk(http: httpx.Client) -> None:
    body = BODY | {"stream": True, "stream_options": {"include_usage": True}}
    *others, last = events(http.post(CHAT, json=body).text)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0
    assert last["consensus"]["experts"]
    assert all(chunk["usage"] is None for chunk in others)
    assert all("event" in chunk["consensus"] for chunk in others if "consensus" in chunk)


@pytest.mark.parametrize("wanted", ["none", "steps", "text"])
def test_how_much_is_told(http: httpx.Client, wanted: str) -> None:
    body = BODY | {"model": "consensus/vote", "stream": True, "consensus": {"events": wanted}}
    told = {
        c["consensus"]["event"] for c in events(http.post(CHAT, json=body).text) if "event" in c.get("consensus", {})
    }
    assert bool(told) == (wanted != "none")
    assert ("expert_text" in told) == (wanted == "text")


def test_experts_texts_can_be_left_out(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=BODY | {"consensus": {"include_experts": False}}).json()
    assert answer["consensus"]["experts"]
    assert all("content" not in expert for expert in answer["consensus"]["experts"])


def test_heartbeats_while_the_experts_are_silent(
    http: httpx.Client, pool: FakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsensusAnswer, "keep_alive_seconds", 0.05)
    pool.script = Script(pieces=["a"], delay=0.4)
    assert http.post(CHAT, json=BODY | {"stream": True}).text.count(": keep-alive\n\n") >= 3


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "consensus/quorum"}, "model"),
        ({"model": "consensus/vote", "consensus": {"strategy": "self"}}, "consensus.strategy"),
        ({"consensus": {"experts": ["nobody"]}}, "consensus.experts"),
        ({"consensus": {"experts": ["fake", "fake"]}}, "consensus.experts"),
        ({"consensus": {"stratgy": "vote"}}, "consensus.stratgy"),
        ({"consensus": {"n": 0}}, "consensus.n"),
        ({"consensus": {"aggregator": "nobody"}}, "consensus.aggregator"),
        ({"model": "consensus/vote", "consensus": {"n": 1, "min_successful": 9}}, "consensus.min_successful"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_bad_requests_name_their_field(http: httpx.Client, change: dict[str, Any], param: str, stream: bool) -> None:
    response = http.post(CHAT, json=BODY | change | {"stream": stream})
    assert response.status_code in (400, 404)
    assert response.json()["error"]["param"] == param
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("stream", [True, False])
def test_what_no_expert_can_take_is_a_plain_status(http: httpx.Client, pool: FakePool, stream: bool) -> None:
    pool.script = Script(reject=errors.ContextLengthExceeded("too long", param="messages"))
    response = http.post(CHAT, json=BODY | {"stream": stream})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_no_expert_answers(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("gone"))
    response = http.post(CHAT, json=BODY)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "no_quorum"
    assert "gone" in response.json()["error"]["message"]


def test_the_deadline(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(hang_after=0)
    response = http.post(CHAT, json=BODY | {"consensus": {"deadline_ms": 300}})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert response.headers["x-should-retry"] == "false"
    assert pool.num_running == pool.num_leases == 0


def test_an_error_after_the_stream_has_begun(http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("gone"), fail_after=1, delay=0.4)
    *chunks, error, done = data(http.post(CHAT, json=BODY | {"model": "consensus/vote", "stream": True}).text)
    assert chunks
    assert json.loads(error)["error"]["code"] == "no_quorum"
    assert done == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_everything(url: str, pool: FakePool, stream: bool) -> None:
    pool.script = Script(hang_after=1)
    with raw_post(url, BODY | {"model": "consensus/vote", "stream": stream}):
        eventually(lambda: pool.num_running > 0)
    eventually(lambda: pool.num_running == pool.num_leases == 0)


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = f"data:image/png;base64,{PIXEL}"


def test_images_need_an_expert_that_sees(http: httpx.Client) -> None:
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    response = http.post(CHAT, json=BODY | {"messages": [{"role": "user", "content": content}]})
    assert response.status_code == 400
    assert "takes images" in response.json()["error"]["message"]


def samples(http: httpx.Client, name: str) -> dict[str, float]:
    rows = [line for line in http.get("/metrics").text.splitlines() if line.startswith(name + "{")]
    return {labels: float(value) for labels, _, value in (row.rpartition(" ") for row in rows)}


@pytest.mark.parametrize("stream", [True, False])
def test_every_request_is_counted(http: httpx.Client, pool: FakePool, stream: bool) -> None:
    def num_counted() -> float:
        return sum(samples(http, "axion_consensus_requests_total").values())

    before = num_counted()
    http.post(CHAT, json=BODY | {"model": "consensus/vote", "stream": stream})
    pool.script = Script(fail=errors.WorkerDied("gone"))
    http.post(CHAT, json=BODY | {"model": "consensus/vote", "stream": stream})
    eventually(lambda: num_counted() == before + 2)
    assert any("error:no_quorum" in labels for labels in samples(http, "axion_consensus_requests_total"))
    assert any('status="failed"' in labels for labels in samples(http, "axion_consensus_calls_total"))


@pytest.mark.parametrize("stream", [True, False])
def test_a_service_that_stops_ends_it_with_an_error(stream: bool) -> None:
    server = LiveServer(shutdown_grace_seconds=0.3).start()
    server.pool.script = Script(hang_after=1)
    with ThreadPoolExecutor() as threads:
        body = BODY | {"model": "consensus/vote", "stream": stream}
        answer = threads.submit(httpx.post, server.urls["consensus"] + CHAT, json=body, timeout=10)
        eventually(lambda: server.pool.num_running > 0)
        server.ask_to_stop()
        text = answer.result().text
    server.join()
    assert "shutting_down" in text
    assert server.pool.num_running == server.pool.num_leases == 0
    assert server.error is None
