"""What the official SDK sees, sync and async, with and without a stream, on both ports."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from axion_llm import errors
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import eventually

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


@pytest.mark.behaviour("models.list", "models.one")
def test_models(sdk: openai.OpenAI) -> None:
    assert [m.id for m in sdk.models.list()][:2] == ["fake", "org/other"]
    assert sdk.models.retrieve("org/other").id == "org/other"
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("nope")
    assert caught.value.code == "model_not_found"


def test_chat(sdk: openai.OpenAI, pool: FakePool) -> None:
    found = sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=False)
    assert found.object == "chat.completion"
    assert found.choices[0].message.content == "Hello world"
    assert found.choices[0].message.role == "assistant"
    assert found.choices[0].finish_reason == "stop"
    assert found.usage is not None and found.usage.total_tokens == 6
    assert found._request_id is not None
    assert pool.requests[0].prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.behaviour(
    "requests.sampling",
    "requests.roles",
    "requests.content",
    "requests.unknown_fields",
    "requests.seed",
    "requests.stop",
    "requests.max_tokens",
)
def test_every_option_reaches_the_worker(sdk: openai.OpenAI, pool: FakePool) -> None:
    sdk.chat.completions.create(
        model="fake",
        messages=[{"role": "developer", "content": [{"type": "text", "text": "Short."}]}, *MESSAGES],
        stream=False,
        temperature=0,
        top_p=0.5,
        presence_penalty=0.1,
        frequency_penalty=-0.1,
        seed=42,
        stop=["a", "b"],
        logit_bias={"5": -100},
        max_completion_tokens=2,
        logprobs=True,
        top_logprobs=3,
        n=2,
        extra_body={"top_k": 4, "min_p": 0.25, "repeat_penalty": 1.5, "ignore_eos": True, "unheard_of": 1},
    )
    first, second = pool.requests
    assert str(first.prompt).startswith("<|im_start|>system\nShort.<|im_end|>")
    assert first.stop == ["a", "b"]
    assert (first.max_tokens, first.top_logprobs, first.ignore_eos) == (2, 3, True)
    assert (first.sampling.temperature, first.sampling.top_p, first.sampling.top_k) == (0, 0.5, 4)
    assert (first.sampling.min_p, first.sampling.repeat_penalty) == (0.25, 1.5)
    assert (first.sampling.presence_penalty, first.sampling.frequency_penalty) == (0.1, -0.1)
    assert first.sampling.logit_bias == {5: -100}
    assert (first.sampling.seed, second.sampling.seed) == (42, 43)


@pytest.mark.behaviour("requests.n", "requests.logprobs")
def test_choices_and_logprobs(sdk: openai.OpenAI) -> None:
    found = sdk.chat.completions.create(
        model="fake", messages=MESSAGES, stream=False, n=3, logprobs=True, top_logprobs=2
    )
    assert [c.index for c in found.choices] == [0, 1, 2]
    logprobs = found.choices[2].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert "".join(t.token for t in logprobs.content) == "Hello world"
    assert [len(t.top_logprobs) for t in logprobs.content] == [2, 2, 2]
    assert bytes(logprobs.content[0].bytes or []) == b"Hel"


@pytest.mark.behaviour("streams.role", "streams.finish", "streams.identity", "streams.usage")
def test_stream(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=True) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello world"
    assert [c.choices[0].finish_reason for c in chunks] == [None, None, None, None, "stop"]
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert all(c.usage is None for c in chunks)


@pytest.mark.behaviour("streams.usage", "usage.tokens")
def test_stream_with_usage(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(cached=1)
    options: Any = {"include_usage": True}
    chunks = list(
        sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=True, stream_options=options, n=2)
    )
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 6, 9)
    assert usage.prompt_tokens_details.cached_tokens == 1
    assert all(c.usage is None for c in chunks[:-1])
    assert sorted(c.choices[0].index for c in chunks[:-1] if c.choices[0].finish_reason) == [0, 1]


@pytest.mark.behaviour("streams.finish")
def test_the_streaming_helper(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="fake", messages=MESSAGES, logprobs=True) as stream:
        text = "".join(e.delta for e in stream if e.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content == "Hello world"


@pytest.mark.behaviour("completions.echo")
def test_completions(sdk: openai.OpenAI) -> None:
    found = sdk.completions.create(model="fake", prompt=["one ", "two "], echo=True, n=2, stream=False, max_tokens=2)
    assert [c.text for c in found.choices] == ["one Hello", "one Hello", "two Hello", "two Hello"]
    assert {c.finish_reason for c in found.choices} == {"length"}
    assert found.usage is not None and found.usage.completion_tokens == 8


@pytest.mark.behaviour("requests.logprobs")
def test_logprobs_of_completions(sdk: openai.OpenAI) -> None:
    found = sdk.completions.create(model="fake", prompt="p", logprobs=2, stream=False)
    logprobs = found.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["Hel", "lo", " world"]
    assert logprobs.text_offset == [0, 3, 5]
    assert logprobs.top_logprobs is not None and len(logprobs.top_logprobs[0]) == 2


def test_stream_of_completions(sdk: openai.OpenAI) -> None:
    chunks = list(sdk.completions.create(model="fake", prompt="p", echo=True, stream=True))
    assert "".join(c.choices[0].text for c in chunks) == "pHello world"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"


@pytest.mark.behaviour("errors.shape", "errors.validation", "errors.unknown_model", "errors.context", "errors.capacity")
def test_errors_are_the_sdks(sdk: openai.OpenAI, pool: FakePool) -> None:
    def create(**options: Any) -> None:
        sdk.chat.completions.create(**{"model": "fake", "messages": MESSAGES, **options})

    with pytest.raises(openai.NotFoundError, match="no model") as unknown:
        create(model="nope")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        create(temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unsupported:
        create(service_tier="flex")
    assert (unsupported.value.param, unsupported.value.code) == ("service_tier", "unsupported_value")
    pool.script = Script(reject=errors.ContextLengthExceeded("too long"))
    with pytest.raises(openai.BadRequestError) as too_long:
        create(stream=True)
    assert too_long.value.code == "context_length_exceeded"
    pool.script = Script(reject=errors.Overloaded("full"))
    with pytest.raises(openai.RateLimitError):
        create()
    pool.script = Script(reject=errors.EngineError("decode"))
    with pytest.raises(openai.InternalServerError):
        create()


@pytest.mark.behaviour("streams.failure")
def test_a_failure_in_mid_stream_is_raised(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("the worker is gone"), fail_after=2)
    received = []
    with pytest.raises(openai.APIError, match="the worker is gone") as caught:
        for chunk in sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=True):
            received.append(chunk.choices[0].delta.content)
    assert received == ["", "Hel", "lo"]
    assert caught.value.code == "worker_died"


@pytest.mark.behaviour("errors.capacity")
def test_retries_follow_our_headers(sdk: openai.OpenAI, pool: FakePool) -> None:
    patient = sdk.with_options(max_retries=1)
    pool.script = Script(reject=errors.ModelLoadError("truncated"))  # says: do not retry
    with pytest.raises(openai.InternalServerError):
        patient.chat.completions.create(model="fake", messages=MESSAGES)
    assert len(pool.requests) == 1
    pool.script = Script(reject=errors.WorkerDied("gone"))
    with pytest.raises(openai.InternalServerError):
        patient.chat.completions.create(model="fake", messages=MESSAGES)
    assert len(pool.requests) == 3


async def test_async(async_sdk: openai.AsyncOpenAI) -> None:
    async def one() -> str | None:
        found = await async_sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=False)
        return found.choices[0].message.content

    async def streamed() -> str:
        stream = await async_sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    assert await asyncio.gather(*(one() for _ in range(8)), *(streamed() for _ in range(8))) == ["Hello world"] * 16


@pytest.mark.behaviour("streams.leaving")
async def test_leaving_a_stream_cancels_it(async_sdk: openai.AsyncOpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=["x"] * 1000, delay=0.01)
    async with await async_sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=True, n=2) as stream:
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    await asyncio.to_thread(eventually, lambda: pool.num_cancelled == 2 and pool.num_running == 0)


@pytest.mark.behaviour("streams.leaving")
async def test_a_cancelled_task_cancels_its_request(async_sdk: openai.AsyncOpenAI, pool: FakePool) -> None:
    pool.script = Script(hang_after=1)
    task = asyncio.create_task(async_sdk.chat.completions.create(model="fake", messages=MESSAGES, stream=False))
    await asyncio.to_thread(eventually, lambda: pool.num_running == 1)
    task.cancel()
    await asyncio.to_thread(eventually, lambda: pool.num_cancelled == 1 and pool.num_running == 0)
