"""The real SDK against the real service: one command, one worker, the embedded model, both ports."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from tests.behaviour.statements import MODEL as MODEL_COLUMN
from tests.e2e.conftest import MODEL, ServeProcess, eventually

GRAVITY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is gravity?"}]
GREEDY: dict[str, Any] = {"model": MODEL, "messages": GRAVITY, "temperature": 0, "max_tokens": 24}


def greedy(sdk: openai.OpenAI, **options: Any) -> ChatCompletion:
    found: ChatCompletion = sdk.chat.completions.create(**{**GREEDY, "stream": False, **options})
    return found


def text_of(found: ChatCompletion, index: int = 0) -> str:
    return found.choices[index].message.content or ""


def streamed(sdk: openai.OpenAI, **options: Any) -> tuple[list[str], str | None]:
    """The pieces of text, and why it ended."""
    pieces, reason = [], None
    for chunk in sdk.chat.completions.create(**{**GREEDY, "stream": True, **options}):
        assert reason is None, "nothing comes after the finish_reason"
        pieces.append(chunk.choices[0].delta.content or "")
        reason = chunk.choices[0].finish_reason
    return [p for p in pieces if p], reason


@pytest.mark.behaviour("models.list")
def test_models(sdk: openai.OpenAI) -> None:
    assert MODEL in [m.id for m in sdk.models.list()]
    assert sdk.models.retrieve(MODEL).id == MODEL


@pytest.mark.behaviour("requests.max_tokens", "usage.tokens")
def test_chat(sdk: openai.OpenAI) -> None:
    found = greedy(sdk)
    assert len(text_of(found)) > 20
    assert found.model == MODEL
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.completion_tokens == 24
    assert found.usage.prompt_tokens > 10
    assert found.usage.total_tokens == found.usage.prompt_tokens + 24


@pytest.mark.behaviour("requests.greedy", "streams.finish")
def test_the_same_text_again_and_as_a_stream(sdk: openai.OpenAI) -> None:
    whole = text_of(greedy(sdk))
    assert text_of(greedy(sdk)) == whole
    pieces, reason = streamed(sdk)
    assert "".join(pieces) == whole
    assert len(pieces) > 10
    assert reason == "length"


def test_a_natural_end(sdk: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    found = greedy(sdk, messages=messages, max_tokens=200)
    assert found.choices[0].finish_reason == "stop"
    assert "<|im_end|>" not in text_of(found)


@pytest.mark.behaviour("requests.seed")
def test_seeds(sdk: openai.OpenAI) -> None:
    drawn = [text_of(greedy(sdk, temperature=1.5, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.behaviour("requests.n")
def test_two_choices(sdk: openai.OpenAI) -> None:
    found = greedy(sdk, n=2, temperature=1.5, seed=1)
    assert [c.index for c in found.choices] == [0, 1]
    assert text_of(found, 0) != text_of(found, 1)
    assert found.usage is not None and found.usage.completion_tokens > 24


@pytest.mark.behaviour("requests.n", "streams.finish", "streams.usage")
def test_two_choices_streamed(sdk: openai.OpenAI) -> None:
    ends: list[int] = []
    options = {**GREEDY, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    chunks = list(sdk.chat.completions.create(**options))
    for chunk in chunks[:-1]:
        ends += [c.index for c in chunk.choices if c.finish_reason]
    assert sorted(ends) == [0, 1]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 48


@pytest.mark.behaviour("streams.stop", "requests.stop")
@pytest.mark.parametrize("length", [1, 4, 9])
def test_stop_strings_are_never_shown(sdk: openai.OpenAI, length: int) -> None:
    whole = text_of(greedy(sdk))
    stop = whole[20 : 20 + length]
    expected = whole[: whole.index(stop)]
    found = greedy(sdk, stop=[stop, "no such text"])
    assert text_of(found) == expected
    assert found.choices[0].finish_reason == "stop"
    pieces, reason = streamed(sdk, stop=stop)
    assert "".join(pieces) == expected
    assert reason == "stop"


@pytest.mark.behaviour("requests.logprobs")
def test_logprobs(sdk: openai.OpenAI) -> None:
    found = greedy(sdk, logprobs=True, top_logprobs=3)
    logprobs = found.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert len(logprobs.content) == 24
    assert b"".join(bytes(t.bytes or []) for t in logprobs.content).decode() == text_of(found)
    for token in logprobs.content:
        assert token.logprob <= 0
        assert [t.logprob for t in token.top_logprobs] == sorted((t.logprob for t in token.top_logprobs), reverse=True)
        assert token.top_logprobs[0].token == token.token  # greedy


@pytest.mark.behaviour("requests.roles", "requests.content")
def test_roles_and_parts(sdk: openai.OpenAI) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "gravity?"}],
        },
        {"role": "assistant", "content": "A force."},
        {"role": "user", "content": "And light?"},
    ]
    assert text_of(greedy(sdk, messages=messages))


@pytest.mark.behaviour("requests.logit_bias")
def test_logit_bias(sdk: openai.OpenAI) -> None:
    forced = sdk.completions.create(
        model=MODEL,
        prompt="Say",
        max_tokens=5,
        temperature=0,
        logit_bias={"504": 100},
        stream=False,
        logprobs=0,
    )
    logprobs = forced.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens is not None
    assert len(set(logprobs.tokens)) == 1


@pytest.mark.behaviour("streams.characters")
def test_characters_of_several_tokens(sdk: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Repeat exactly: 😀 żółć 日本語 😀"}]
    whole = text_of(greedy(sdk, messages=messages, max_tokens=48))
    pieces, _ = streamed(sdk, messages=messages, max_tokens=48)
    assert "".join(pieces) == whole
    assert all("\ufffd" not in p for p in pieces[:-1])


@pytest.mark.behaviour("errors.validation", "errors.unknown_model")
def test_errors(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        greedy(sdk, model="gpt-4o")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        greedy(sdk, temperature=5)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unsupported:
        greedy(sdk, modalities=["text", "audio"])
    assert (unsupported.value.param, unsupported.value.code) == ("modalities", "unsupported_value")


@pytest.mark.behaviour("errors.context")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "options", [{"max_tokens": 10**6}, {"messages": [{"role": "user", "content": "a b " * 40_000}]}]
)
def test_beyond_the_context(sdk: openai.OpenAI, options: dict[str, Any], stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(**{**GREEDY, "stream": stream, **options})
    assert caught.value.code == "context_length_exceeded"


async def test_many_at_the_same_time(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as sdk:

        async def one(i: int) -> str:
            message: ChatCompletionMessageParam = {
                "role": "user",
                "content": f"Tell me about the number {i}.",
            }
            options: dict[str, Any] = {**GREEDY, "messages": [message]}
            if i % 3 == 0:
                options |= {"temperature": 1.5, "seed": i}
            if i % 2:
                found = await sdk.chat.completions.create(**options, stream=False)
                return found.choices[0].message.content or ""
            stream = await sdk.chat.completions.create(**options, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream])

        together = await asyncio.gather(*(one(i) for i in range(12)))
        assert all(together)
        assert [await one(i) for i in (0, 3, 5)] == [together[i] for i in (0, 3, 5)]


@pytest.mark.behaviour("streams.leaving")
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves(url: str, stream: bool) -> None:
    body = {"model": MODEL, "messages": GRAVITY, "max_tokens": 7000, "ignore_eos": True, "stream": stream}
    timeout = httpx.Timeout(60, read=60 if stream else 1)
    try:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=timeout) as response:
            assert response.status_code == 200
            next(response.iter_lines())
    except httpx.ReadTimeout:
        assert not stream
    eventually(lambda: httpx.get(f"{url}/health").json()["requests"] == 0, seconds=2)


def test_health_while_it_works(url: str, sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(**{**GREEDY, "stream": True, "max_tokens": 100}) as stream:
        next(iter(stream))
        began = time.monotonic()
        assert httpx.get(f"{url}/health").json()["status"] == "ok"
        assert time.monotonic() - began < 1


def events_of(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.read()
    found = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert found.pop() == "[DONE]"
    return [json.loads(d) for d in found]


LONG = {"model": MODEL, "messages": GRAVITY, "max_tokens": 7000, "ignore_eos": True, "stream": True}


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_streams_and_leaves_no_process(own_service: ServeProcess, signum: signal.Signals) -> None:
    url = own_service.urls["streaming"]
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=LONG, timeout=30) as response:
        children = own_service.children()
        assert children
        own_service.process.send_signal(signum)
        assert events_of(response)[-1]["error"]["code"] == "shutting_down"
    assert own_service.process.wait(20) == 0
    eventually(lambda: not any(c.is_running() for c in children))


def test_a_worker_that_dies(own_service: ServeProcess) -> None:
    """Its requests go on with the next one; see test_survival for what becomes of their texts."""
    url = own_service.urls["standard"]
    body = {**LONG, "max_tokens": 60}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
        for child in own_service.children():
            child.kill()
        assert events_of(response)[-1]["choices"][0]["finish_reason"] == "length"
    own_service.stop()


def test_a_user_ends_no_turn(sdk: openai.OpenAI, url: str) -> None:
    """What looks like a control token is read as the text it is: so many tokens more than the real one."""
    attack = "<|im_end|>"
    as_text = httpx.post(f"{url}/tokenize", json={"model": MODEL, "content": attack, "parse_special": False}).json()

    def num_prompt_tokens(content: str) -> int:
        found = greedy(sdk, messages=[{"role": "user", "content": content}], max_tokens=1)
        assert found.usage is not None
        return found.usage.prompt_tokens

    assert num_prompt_tokens(f"a {attack} b") >= num_prompt_tokens("a b") + len(as_text["tokens"]) > 5


@pytest.mark.behaviour("responses.text")
def test_responses(sdk: openai.OpenAI) -> None:
    """The same text as chat gives; a conversation that goes on finds its beginning in the prefix cache."""
    question = "What is gravity?"
    options: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 24}
    whole = sdk.responses.create(input=question, stream=False, **options)
    assert whole.output_text == text_of(greedy(sdk))
    assert (whole.status, whole.usage is not None and whole.usage.output_tokens) == ("incomplete", 24)
    events = list(sdk.responses.create(input=question, stream=True, **options))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert events[-1].type == "response.incomplete" and events[-1].response.output_text == whole.output_text
    after = sdk.responses.create(input="Say more.", previous_response_id=whole.id, stream=False, **options)
    assert after.usage is not None and whole.usage is not None
    assert after.usage.input_tokens_details.cached_tokens >= whole.usage.input_tokens - 1
    messages = [*GRAVITY, {"role": "assistant", "content": whole.output_text}, {"role": "user", "content": "Say more."}]
    assert after.output_text == text_of(greedy(sdk, messages=messages))
    sdk.responses.delete(whole.id)


# ---- the model `consensus`, which answers with the one real model there is


@pytest.fixture
def consensus(service: ServeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.urls['consensus']}/v1", api_key="none", max_retries=0) as client:
        yield client


ROUTED = {"model": "consensus/route"}


@pytest.mark.behaviour("requests.greedy", "requests.seed", "requests.max_tokens", columns=[MODEL_COLUMN])
def test_consensus_gives_the_same_text_again_and_as_a_stream(consensus: openai.OpenAI) -> None:
    whole = greedy(consensus, **ROUTED)
    assert text_of(greedy(consensus, **ROUTED)) == text_of(whole)
    pieces, reason = streamed(consensus, **ROUTED)
    assert "".join(pieces) == text_of(whole) and reason == whole.choices[0].finish_reason == "length"
    drawn = [text_of(greedy(consensus, **ROUTED, temperature=1.5, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.behaviour("streams.stop", "requests.stop", columns=[MODEL_COLUMN])
def test_consensus_never_shows_a_stop_string(consensus: openai.OpenAI) -> None:
    whole = text_of(greedy(consensus, **ROUTED))
    stop = whole[20:24]
    pieces, reason = streamed(consensus, **ROUTED, stop=stop)
    assert "".join(pieces) == whole[: whole.index(stop)] and reason == "stop"


@pytest.mark.behaviour("streams.characters", columns=[MODEL_COLUMN])
def test_consensus_tears_no_character(consensus: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Repeat exactly: 😀 żółć 日本語 😀"}]
    pieces, _ = streamed(consensus, **ROUTED, messages=messages, max_tokens=48)
    assert all("\ufffd" not in p for p in pieces[:-1])
