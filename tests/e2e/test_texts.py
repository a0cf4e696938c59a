"""Text completions, embeddings and tokens: the real SDK against the real service."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import MODEL


@pytest.mark.behaviour("completions.echo")
def test_completions(sdk: openai.OpenAI) -> None:
    prompts = ["Once upon a time", "The capital of"]
    found = sdk.completions.create(
        model=MODEL, prompt=prompts, max_tokens=8, temperature=0, echo=True, stream=False, logprobs=None
    )
    assert [c.text.startswith(p) and len(c.text) > len(p) for c, p in zip(found.choices, prompts, strict=True)]
    assert found.usage is not None and found.usage.completion_tokens == 16
    chunks = sdk.completions.create(model=MODEL, prompt=prompts[0], max_tokens=8, temperature=0, stream=True)
    assert prompts[0] + "".join(c.choices[0].text for c in chunks) == found.choices[0].text


@pytest.mark.behaviour("completions.echo")
def test_completions_of_tokens(sdk: openai.OpenAI) -> None:
    found = sdk.completions.create(model=MODEL, prompt=[[504, 3575], [504]], max_tokens=4, stream=False)
    assert len(found.choices) == 2
    assert found.usage is not None and found.usage.prompt_tokens == 3
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.completions.create(model=MODEL, prompt=[10**6], max_tokens=4)
    assert caught.value.param == "prompt"


@pytest.mark.behaviour("embeddings.forms", "embeddings.dimensions")
def test_embeddings(sdk: openai.OpenAI) -> None:
    texts = ["The cat sat on the mat.", "A cat is sitting on a rug.", "Stock markets fell sharply on Monday."]
    first, second, other = (d.embedding for d in sdk.embeddings.create(model=MODEL, input=texts).data)
    assert len(first) == 576
    assert abs(sum(x * x for x in first) - 1) < 1e-5
    assert sum(a * b for a, b in zip(first, second, strict=True)) > sum(
        a * b for a, b in zip(first, other, strict=True)
    )
    assert sdk.embeddings.create(model=MODEL, input=texts[0]).data[0].embedding == first
    short = sdk.embeddings.create(model=MODEL, input=texts[0], dimensions=64, encoding_format="float").data[0]
    assert len(short.embedding) == 64 and abs(sum(x * x for x in short.embedding) - 1) < 1e-5
    with pytest.raises(openai.BadRequestError) as too_long:
        sdk.embeddings.create(model=MODEL, input=["fine", "word " * 5000])
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")


@pytest.mark.behaviour("extensions.tokens")
def test_tokens_and_back(url: str) -> None:
    body = {"model": MODEL, "content": "Hello <|im_end|> wörld"}
    tokens = httpx.post(f"{url}/tokenize", json=body).json()["tokens"]
    assert 2 in tokens
    assert httpx.post(f"{url}/detokenize", json={"model": MODEL, "tokens": tokens}).json() == {
        "content": body["content"]
    }
    assert 2 not in httpx.post(f"{url}/tokenize", json={**body, "parse_special": False}).json()["tokens"]
    wrong = httpx.post(f"{url}/detokenize", json={"model": MODEL, "tokens": [10**6]})
    assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "tokens"


@pytest.mark.behaviour("completions.echo")
def test_a_text_is_scored_as_benchmarks_do(sdk: openai.OpenAI) -> None:
    """echo with logprobs and no output at all; and with output the echoed tokens come first."""
    text = "Paris is the capital of France."
    scored = sdk.completions.create(model=MODEL, prompt=text, echo=True, logprobs=2, max_tokens=0, stream=False)
    logprobs = scored.choices[0].logprobs
    assert scored.choices[0].text == text
    assert scored.choices[0].finish_reason == "length"
    assert logprobs is not None and logprobs.tokens is not None and logprobs.token_logprobs is not None
    assert "".join(logprobs.tokens) == text
    assert logprobs.token_logprobs[0] is None and all(p is not None and p <= 0 for p in logprobs.token_logprobs[1:])
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(len(logprobs.tokens))]
    assert scored.usage is not None and scored.usage.completion_tokens == 0
    longer = {"model": MODEL, "prompt": text, "echo": True, "logprobs": 0, "max_tokens": 4, "temperature": 0}
    whole = sdk.completions.create(**longer, stream=False).choices[0]
    assert whole.logprobs is not None and whole.logprobs.tokens is not None
    assert len(whole.logprobs.tokens) == len(logprobs.tokens) + 4
    streamed = "".join(c.choices[0].text for c in sdk.completions.create(**longer, stream=True))
    assert streamed == whole.text


def test_tokens_are_echoed_as_text(sdk: openai.OpenAI, url: str) -> None:
    text = "Paris is the capital"
    tokens = httpx.post(f"{url}/tokenize", json={"model": MODEL, "content": text}).json()["tokens"]
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 4, "temperature": 0, "echo": True, "stream": False}
    by_tokens = sdk.completions.create(**options, prompt=tokens).choices[0].text
    assert by_tokens == sdk.completions.create(**options, prompt=text).choices[0].text
