"""Several experts behind /v1/responses: the ordinary response and events, and a field that says where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from axion_llm import errors
from tests.behaviour.statements import MODEL
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer
from tests.servers.test_responses import ORDER

HOW: dict[str, Any] = {"model": "consensus/vote", "input": "Capital of France?"}
TOOL: dict[str, Any] = {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture
def url(server: LiveServer) -> str:
    return server.urls["consensus"]


@pytest.fixture
def sdk(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10) as client:
        yield client


@pytest.mark.behaviour("responses.text", columns=[MODEL])
def test_create(sdk: openai.OpenAI) -> None:
    found = sdk.responses.create(**HOW)
    assert (found.output_text, found.status, found.model) == ("Hello world", "completed", "consensus/vote")
    told = (found.model_extra or {})["consensus"]
    assert (told["strategy"], told["agreement"]) == ("vote", 1.0)
    assert found.usage is not None
    assert found.usage.output_tokens == 3 * len(told["experts"])


@pytest.mark.behaviour("responses.text", columns=[MODEL])
def test_stream(sdk: openai.OpenAI) -> None:
    events = list(sdk.responses.create(**HOW, stream=True))
    kinds = [event.type for event in events]
    assert list(dict.fromkeys(kinds)) == list(dict.fromkeys(ORDER))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello world"
    last = events[-1]
    assert last.type == "response.completed"
    assert (last.response.model_extra or {})["consensus"]["strategy"] == "vote"


def test_options(sdk: openai.OpenAI, pool: FakePool) -> None:
    options = {"experts": ["fake"], "n": 3, "early_stop": False}
    sdk.responses.create(model="consensus/self", input="Hi", extra_body={"consensus": options})
    assert len(pool.requests) == 3
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(**HOW, extra_body={"consensus": {"unheard_of": 1}})
    assert caught.value.param == "consensus.unheard_of"


@pytest.mark.behaviour("responses.previous", columns=[MODEL])
def test_a_conversation_goes_on(sdk: openai.OpenAI, pool: FakePool) -> None:
    first = sdk.responses.create(**HOW)
    assert sdk.responses.retrieve(first.id).to_dict() == first.to_dict()
    sdk.responses.create(model="fake", input="And of Spain?", previous_response_id=first.id)
    turns = ("Capital of France?", "Hello world", "And of Spain?")
    assert all(turn in pool.requests[-1].prompt for turn in turns)


def test_tools_are_one_experts_work(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=['<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'])
    found = sdk.responses.create(**HOW, tools=[TOOL], tool_choice="auto")
    assert [item.type for item in found.output] == ["function_call"]
    told = (found.model_extra or {})["consensus"]
    assert (found.model, told["strategy"], len(told["experts"])) == ("consensus/vote", "route", 1)
    assert len(pool.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_errors_name_what_was_sent(sdk: openai.OpenAI, pool: FakePool, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError):
        sdk.responses.create(model="consensus/guess", input="Hi", stream=stream)
    pool.script = Script(reject=errors.ContextLengthExceeded("messages: too long", param="messages"))
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(**HOW, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


def test_an_error_after_the_stream_has_begun(url: str, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("gone"), fail_after=1, delay=0.4)
    text = httpx.post(f"{url}/v1/responses", json=HOW | {"stream": True}, timeout=10).text
    assert "event: response.failed" in text and "event: response.completed" not in text


def test_the_other_ports_say_where_it_answers(server: LiveServer) -> None:
    response = httpx.post(f"{server.urls['standard']}/v1/responses", json=HOW | {"stream": False})
    assert response.status_code == 404
    assert '"consensus/vote" answers on the consensus port' in response.json()["error"]["message"]
