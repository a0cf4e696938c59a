"""What clients rely on, in one place for every port and for the model `consensus`; see tests/behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from msgspec import structs

from axion_llm import errors
from axion_llm.servers.answer import Answer
from axion_llm.servers.consensus_answer import ConsensusAnswer
from tests.behaviour.statements import COLUMNS, MODEL
from tests.fakes.fake_pool import FakePool, Script, spec
from tests.servers.conftest import MAX_BODY_BYTES, LiveServer, eventually
from tests.servers.test_errors import error_of
from tests.servers.test_images import data_url, png
from tests.servers.test_streaming import CHAT, data, raw_post

HELLO: list[Any] = [{"role": "user", "content": "Hi"}]
only_model = pytest.mark.parametrize("target", [MODEL], indirect=True)
only_ports = pytest.mark.parametrize("target", [c for c in COLUMNS if c != MODEL], indirect=True)


@dataclass(frozen=True)
class Target:
    url: str
    model: str

    def body(self, **fields: Any) -> dict[str, Any]:
        return {"model": self.model, "messages": HELLO, **fields}

    def post(self, path: str = CHAT, **fields: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=self.body(**fields), timeout=20)


@pytest.fixture(params=list(COLUMNS))
def target(server: LiveServer, request: pytest.FixtureRequest) -> Target:
    if request.param == MODEL:
        return Target(server.urls["consensus"], "consensus/vote")
    return Target(server.urls[request.param], "fake")


@pytest.fixture
def client(target: Target) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{target.url}/v1", api_key="none", max_retries=0, timeout=20) as found:
        yield found


def ask(client: openai.OpenAI, target: Target, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": target.model, "messages": HELLO, "stream": False, **options})


# ---- errors


@pytest.mark.behaviour("errors.validation", "errors.shape")
@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 9), ("max_tokens", "many"), ("stop", [""] * 5), ("messages", "Hi")]
)
def test_a_field_that_does_not_fit_is_named(target: Target, field: str, value: Any) -> None:
    error = error_of(target.post(**{field: value}), 400)
    assert str(error["param"]).startswith(field) and field in error["message"]


@pytest.mark.behaviour("errors.unknown_model", "errors.shape")
def test_a_model_that_does_not_exist(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, target, model=target.model + "/nope")
    assert caught.value.code == "model_not_found"


@pytest.mark.behaviour("errors.context", "errors.shape")
@pytest.mark.parametrize("stream", [False, True])
def test_too_long_for_the_context(client: openai.OpenAI, target: Target, pool: FakePool, stream: bool) -> None:
    pool.script = Script(reject=errors.ContextLengthExceeded("too long", param="messages"))
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, target, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.behaviour("errors.body_size", "errors.shape")
def test_a_body_that_is_too_large(target: Target) -> None:
    error_of(target.post(messages=[{"role": "user", "content": "x" * MAX_BODY_BYTES}]), 413)


@pytest.mark.behaviour("errors.capacity", "errors.shape")
@pytest.mark.parametrize("stream", [False, True])
def test_over_capacity(client: openai.OpenAI, target: Target, pool: FakePool, stream: bool) -> None:
    pool.script = Script(reject=errors.Overloaded("full", retry_after_seconds=2.5))
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, target, stream=stream)
    assert caught.value.response.headers["retry-after"] == "3"


@pytest.mark.behaviour("errors.cold_model")
@pytest.mark.parametrize("stream", [False, True])
def test_a_cold_model(client: openai.OpenAI, target: Target, pool: FakePool, stream: bool) -> None:
    pool.load_seconds = 0.5
    found = ask(client, target, stream=stream)
    text = "".join(c.choices[0].delta.content or "" for c in found) if stream else found.choices[0].message.content
    assert text == "Hello world"


@pytest.mark.behaviour("errors.request_id")
@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"temperature": 9}, {"model": "nope"}])
def test_the_request_id(target: Target, fields: dict[str, Any]) -> None:
    given = httpx.post(target.url + CHAT, json=target.body(**fields), headers={"x-request-id": "mine-7"})
    assert given.headers["x-request-id"] == "mine-7"
    assert target.post(**fields).headers["x-request-id"].startswith("req-")


@pytest.mark.behaviour("errors.key", "errors.shape", columns=[MODEL])
def test_the_model_consensus_needs_a_key_too() -> None:
    server = LiveServer(api_keys="sk-0123456789abcdef0123456789abcdef").start()
    try:
        target = Target(server.urls["consensus"], "consensus")
        assert error_of(target.post(), 401)["code"] == "invalid_api_key"
    finally:
        server.ask_to_stop()
        server.join()


# ---- streams


@pytest.mark.behaviour("streams.role", "streams.finish", "streams.identity", "streams.usage")
def test_a_stream(client: openai.OpenAI, target: Target) -> None:
    chunks = list(ask(client, target, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello world"
    reasons = [c.choices[0].finish_reason for c in chunks]
    assert reasons[-1] == "stop" and set(reasons[:-1]) == {None}
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1 and chunks[0].model == target.model
    assert all(c.usage is None for c in chunks)
    assert data(target.post(stream=True).text)[-1] == "[DONE]"


@pytest.mark.behaviour("streams.usage", "usage.tokens")
def test_a_stream_with_usage(client: openai.OpenAI, target: Target, pool: FakePool) -> None:
    pool.script = Script(cached=1)
    *chunks, last = ask(client, target, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and all(c.choices and c.usage is None for c in chunks)
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0
    assert last.usage.prompt_tokens_details.cached_tokens >= 1


@pytest.mark.behaviour("streams.options")
@pytest.mark.parametrize("value", [{}, {"include_usage": True}])
def test_stream_options_without_a_stream(target: Target, value: dict[str, Any]) -> None:
    assert error_of(target.post(stream=False, stream_options=value), 400)["param"] == "stream_options"


@pytest.mark.behaviour("streams.failure")
def test_a_failure_in_the_middle(client: openai.OpenAI, target: Target, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("gone"), fail_after=2, delay=0.3)
    with pytest.raises(openai.APIError):
        list(ask(client, target, stream=True))
    *_, error, done = data(target.post(stream=True).text)
    assert '"error"' in error and done == "[DONE]"


@pytest.mark.behaviour("streams.keep_alive")
def test_comments_in_a_silence(client: openai.OpenAI, target: Target, pool: FakePool, monkeypatch: Any) -> None:
    for answer in (Answer, ConsensusAnswer):
        monkeypatch.setattr(answer, "keep_alive_seconds", 0.05)
    pool.script = Script(pieces=["a"], delay=0.5)
    assert ": keep-alive\n\n" in target.post(stream=True).text
    assert "".join(c.choices[0].delta.content or "" for c in ask(client, target, stream=True)) == "a"


@pytest.mark.behaviour("streams.leaving")
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves(target: Target, pool: FakePool, stream: bool) -> None:
    pool.script = Script(hang_after=1)
    with raw_post(target.url, target.body(stream=stream)):
        eventually(lambda: pool.num_running > 0)
    eventually(lambda: pool.num_running == pool.num_leases == 0)


# ---- requests


@pytest.mark.behaviour("requests.content", "requests.roles", "requests.unknown_fields", "tools.conversation")
def test_what_a_conversation_is_made_of(client: openai.OpenAI, target: Target, pool: FakePool) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "assistant", "content": "It is 42."},
        {"role": "user", "content": "Why?", "name": "me"},
    ]
    assert ask(client, target, messages=messages, extra_body={"unheard_of": {"a": 1}}).choices[0].message.content
    assert str(pool.requests[0].prompt).startswith("<|im_start|>system\nBe brief.")


@pytest.mark.behaviour("requests.max_tokens")
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_limit(client: openai.OpenAI, target: Target, pool: FakePool, name: str) -> None:
    choice = ask(client, target, **{name: 2}).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello", "length")
    assert {r.max_tokens for r in pool.requests} == {2}


@pytest.mark.behaviour("requests.stop")
@pytest.mark.parametrize("stop", ["x", ["a", "b", "c", "d"]])
def test_stop_reaches_every_model(client: openai.OpenAI, target: Target, pool: FakePool, stop: Any) -> None:
    ask(client, target, stop=stop)
    assert all(r.stop == ([stop] if isinstance(stop, str) else stop) for r in pool.requests)


@pytest.mark.behaviour("requests.sampling", "requests.seed", "requests.greedy")
def test_sampling_reaches_every_model(client: openai.OpenAI, target: Target, pool: FakePool) -> None:
    options = {"temperature": 0, "top_p": 0.5, "presence_penalty": 0.1, "frequency_penalty": 0.2, "seed": 7}
    ask(client, target, **options)
    seeds = range(7, 7 + len(pool.requests))  # samples of one expert differ by their seeds
    for sampling in (r.sampling for r in pool.requests):
        assert (sampling.temperature, sampling.top_p) == (0, 0.5) and sampling.seed in seeds
        assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, 0.2)


@pytest.mark.behaviour("requests.unsupported")
@pytest.mark.parametrize(
    ("field", "value"), [("modalities", ["text", "audio"]), ("audio", {"voice": "alloy"}), ("web_search_options", {})]
)
def test_what_is_not_supported_is_never_dropped(target: Target, field: str, value: Any) -> None:
    error = error_of(target.post(**{field: value}), 400)
    assert (error["param"], error["code"]) == (field, "unsupported_value")


@pytest.mark.behaviour("extensions.refused")
@pytest.mark.parametrize(
    ("field", "value"), [("mirostat", 2), ("typical_p", 0.5), ("guided_json", {}), ("samplers", ["top_k"])]
)
def test_other_servers_fields_that_would_change_the_answer_are_never_dropped(
    target: Target, field: str, value: Any
) -> None:
    error = error_of(target.post(**{field: value}), 400)
    assert (error["param"], error["code"]) == (field, "unsupported_value")


@pytest.mark.behaviour("requests.n", "requests.logprobs", "requests.logit_bias")
@only_model
@pytest.mark.parametrize(("field", "value"), [("n", 2), ("logprobs", True), ("logit_bias", {"5": 1})])
def test_what_several_models_cannot_do(target: Target, field: str, value: Any) -> None:
    error = error_of(target.post(**{field: value}), 400)
    assert error["param"] == field and ("expert" in error["message"] or "consensus.n" in error["message"])


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.behaviour("tools.refused")
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)
def test_tools_that_cannot_be_served(target: Target, fields: dict[str, Any], param: str) -> None:
    assert error_of(target.post(**fields), 400)["param"] == param


@pytest.mark.behaviour("images.blind")
def test_an_image_for_models_that_do_not_see(target: Target, pool: FakePool) -> None:
    image = {"type": "image_url", "image_url": {"url": data_url(png())}}
    error = error_of(target.post(messages=[{"role": "user", "content": [image]}]), 400)
    assert "image" in error["message"] and pool.requests == []


@pytest.mark.behaviour("images.data")
@only_model
@pytest.mark.parametrize("stream", [False, True])
def test_images_go_to_an_expert_that_sees(client: openai.OpenAI, target: Target, pool: FakePool, stream: bool) -> None:
    pool.specs = [spec("fake"), spec("seeing", mmproj="projector.gguf", roles=("vision",))]
    pool.info = structs.replace(pool.info, has_vision=True)
    parts = [{"type": "image_url", "image_url": {"url": data_url(png(color))}} for color in ("red", "blue")]
    found = ask(client, target, model="consensus", messages=[{"role": "user", "content": parts}], stream=stream)
    text = "".join(c.choices[0].delta.content or "" for c in found) if stream else found.choices[0].message.content
    assert text == "Hello world"
    assert [len(r.images) for r in pool.requests] == [2]


# ---- other endpoints

ALONE = {
    "/v1/completions": {"prompt": "p"},
    "/v1/embeddings": {"input": "a"},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1]},
}


@pytest.mark.behaviour("completions.echo", "completions.suffix")
@pytest.mark.behaviour("embeddings.forms", "embeddings.dimensions", "extensions.tokens")
@only_model
@pytest.mark.parametrize("path", ALONE)
def test_what_is_asked_of_one_model(target: Target, path: str) -> None:
    response = httpx.post(target.url + path, json={"model": "consensus", **ALONE[path]})
    error = error_of(response, 404)
    assert error["code"] == "model_not_found"
    assert error["message"].startswith('"consensus" answers chats and responses only')
    assert error["message"].endswith("Known: fake, org/other.")


@pytest.mark.behaviour("completions.suffix")
@only_ports
def test_infill(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="fake", prompt="p", suffix="x")
    assert caught.value.param == "suffix"


@pytest.mark.behaviour("responses.previous")
def test_a_response_that_was_never_stored(client: openai.OpenAI, target: Target) -> None:
    with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as caught:
        client.responses.create(model=target.model, input="Hi", previous_response_id="resp_nothing", stream=False)
    assert caught.value.param == "previous_response_id"


@pytest.mark.behaviour("models.at_once")
@only_ports
async def test_the_list_answers_while_a_model_loads(target: Target, pool: FakePool) -> None:
    pool.load_seconds = 5
    async with openai.AsyncOpenAI(base_url=f"{target.url}/v1", api_key="none", max_retries=0) as sdk:
        cold = asyncio.create_task(sdk.chat.completions.create(model="org/other", messages=HELLO, stream=False))
        await asyncio.to_thread(eventually, lambda: pool.num_leases == 1)
        found = await asyncio.wait_for(sdk.models.list(), 2)
        assert "org/other" in [m.id for m in found.data]
        cold.cancel()
        await asyncio.gather(cold, return_exceptions=True)
    assert pool.requests == []
