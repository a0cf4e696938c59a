"""The consensus port with the real model, through the real SDK: samples of one, several experts, one that is killed."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.behaviour.statements import MODEL as MODEL_COLUMN
from tests.e2e.conftest import ServeProcess, eventually
from tests.models_on_disk import smollm2_path

SUM: list[Any] = [{"role": "user", "content": "How much is 2 + 2? Give the number."}]
STORY: list[Any] = [{"role": "user", "content": "Write two sentences about the sea."}]
EXPERTS = ["ann", "bob", "cem"]


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """Three names for the real model, each a process of its own."""
    home = tmp_path_factory.mktemp("experts")
    models = home / "models.toml"
    models.write_text("\n".join(f'[models.{n}]\npath = "{smollm2_path()}"\ncontext = 4096\n' for n in EXPERTS))
    started = ServeProcess(home, "--models", str(models), "--warm", "0", "--only", "consensus")
    try:
        yield started.wait_until_ready()
        started.stop()
    finally:
        started.kill()


@pytest.fixture
def sdk(experts: ServeProcess) -> Iterator[openai.OpenAI]:
    url = experts.urls["consensus"]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def account(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.model_extra["consensus"]
    return found


def extra(**options: Any) -> dict[str, Any]:
    return {"consensus": options}


def test_the_default_model_alone_says_what_it_did(service: ServeProcess) -> None:
    url = service.urls["consensus"]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        answer = client.chat.completions.create(model="consensus", messages=SUM, max_tokens=24, seed=3)
    found = account(answer)
    assert found["strategy"] == "self"
    assert {e["model"] for e in found["experts"]} == {"smollm2"}
    assert "only expert" in found["routing"]["reason"]
    assert answer.choices[0].message.content == found["experts"][found["chosen"]]["content"]


def test_three_experts_vote(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="consensus/vote",
        messages=SUM,
        max_tokens=24,
        temperature=0,
        extra_body=extra(experts=EXPERTS, early_stop=False),
    )
    found = account(answer)
    assert [e["model"] for e in found["experts"]] == EXPERTS
    assert found["agreement"] == 1.0, "one model under three names, greedy"
    assert answer.usage and answer.usage.completion_tokens == sum(
        e["usage"]["completion_tokens"] for e in found["experts"]
    )


def test_the_same_seed_gives_the_same_answer(sdk: openai.OpenAI) -> None:
    options = extra(experts=["ann"], n=4, early_stop=False)
    texts = [
        sdk.chat.completions.create(
            model="consensus/self", messages=SUM, max_tokens=16, temperature=0.9, seed=7, extra_body=options
        )
        for _ in range(2)
    ]
    contents = [[e["content"] for e in account(t)["experts"]] for t in texts]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) > 1, "the samples differ"
    assert texts[0].choices[0].message.content == texts[1].choices[0].message.content


def test_a_synthesis_is_streamed_and_reads_what_was_read_ahead(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="consensus/synthesize",
        messages=STORY,
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extra(experts=EXPERTS, concurrency=1),
    )
    chunks = list(stream)
    found = account(chunks[-1])
    assert found["judge"] in EXPERTS
    assert found["decided_by"] == "synthesis"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).strip()
    assert chunks[-1].usage is not None
    cached = chunks[-1].usage.prompt_tokens_details
    assert cached is not None and cached.cached_tokens is not None and cached.cached_tokens > 100


def test_json_by_a_schema_is_voted_by_value(sdk: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    answer = sdk.chat.completions.create(
        model="consensus/vote",
        messages=SUM,
        max_tokens=24,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        extra_body=extra(experts=EXPERTS),
    )
    assert set(json.loads(answer.choices[0].message.content or "")) == {"n"}
    assert all(e["kind"] == "json" for e in account(answer)["experts"] if e["status"] == "ok")


@pytest.mark.behaviour("tools.required", columns=[MODEL_COLUMN])
@pytest.mark.parametrize("stream", [False, True])
def test_tools_go_to_one_expert(sdk: openai.OpenAI, stream: bool) -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    messages: list[Any] = [{"role": "user", "content": "Weather in Rome?"}]
    answer: Any = sdk.chat.completions.create(
        model="consensus", messages=messages, tools=tools, tool_choice="required", max_tokens=60, stream=stream
    )
    if stream:
        chunks = list(answer)
        calls = [call for c in chunks if c.choices for call in c.choices[0].delta.tool_calls or []]
        assert calls[0].function.name == "weather"
        assert account(chunks[-1])["strategy"] == "route"
        assert {c.model for c in chunks} == {"consensus"}
    else:
        assert answer.choices[0].message.tool_calls[0].function.name == "weather"
        assert account(answer)["strategy"] == "route"
        assert answer.model == "consensus"


def test_a_killed_expert_costs_nobody_the_answer(experts: ServeProcess, sdk: openai.OpenAI) -> None:
    answers: list[Any] = []

    def ask() -> None:
        options = extra(experts=EXPERTS, concurrency=3, deadline_ms=20_000, patience_ms=5000)
        answers.append(
            sdk.chat.completions.create(model="consensus/vote", messages=STORY, max_tokens=200, extra_body=options)
        )

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: num_running(experts) >= 2)
    workers = [c for c in experts.children() if "axion_llm.worker.process" in " ".join(c.cmdline())]
    busy = max(workers, key=lambda c: sum(c.cpu_times()[:2]))
    psutil.Process(busy.pid).send_signal(signal.SIGKILL)
    began = time.monotonic()
    thread.join(30)
    assert time.monotonic() - began < 22
    assert answers and answers[0].choices[0].message.content
    eventually(lambda: num_running(experts) == 0)


def num_running(experts: ServeProcess) -> int:
    text = httpx.get(f"{experts.urls['consensus']}/metrics").text
    rows = [line for line in text.splitlines() if line.startswith("axion_sequences_running{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in rows))


def test_counters_of_the_port(experts: ServeProcess) -> None:
    text = httpx.get(f"{experts.urls['consensus']}/metrics").text
    counters = [line.partition(" ")[0] for line in text.splitlines() if line.startswith("axion_consensus_")]
    assert any("requests_total" in c and 'strategy="vote"' in c and 'decided_by="vote"' in c for c in counters)
    assert any("calls_total" in c and 'model="ann"' in c and 'status="ok"' in c for c in counters)
