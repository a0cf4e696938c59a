"""Images through the whole stack: a service with a tiny gemma3 and its projector, the official SDK, every port."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image as Pillow

from tests.e2e.conftest import GEMMA, MODEL, ServeProcess

NUM_TOKENS = 16  # of an image


@pytest.fixture(params=["standard", "streaming", "consensus"])
def sdk(seeing: ServeProcess, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    url = seeing.urls[request.param]
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def data_url(color: str, format: str = "png") -> str:
    file = io.BytesIO()
    Pillow.new("RGB", (50, 40), color).save(file, format)
    return f"data:image/{format};base64,{base64.b64encode(file.getvalue()).decode()}"


def messages(*colors: str, text: str = "What is this?", format: str = "png") -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": data_url(color, format)}} for color in colors]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def ask(sdk: openai.OpenAI, asked: list[Any], model: str = GEMMA) -> Any:
    return sdk.chat.completions.create(model=model, messages=asked, temperature=0, max_tokens=8, stream=False)


@pytest.mark.behaviour("images.data")
def test_what_is_said_depends_on_what_is_shown(sdk: openai.OpenAI) -> None:
    texts = [ask(sdk, messages(*c)).choices[0].message.content for c in ([], ["red"], ["blue"], ["red", "blue"])]
    assert len(set(texts)) == 4
    assert ask(sdk, messages("red")).choices[0].message.content == texts[1]
    stream = sdk.chat.completions.create(
        model=GEMMA, messages=messages("red"), temperature=0, max_tokens=8, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == texts[1]


@pytest.mark.behaviour("images.data", "usage.tokens")
def test_images_count_as_tokens_and_the_same_one_is_cached(sdk: openai.OpenAI) -> None:
    without, first = ask(sdk, messages()).usage, ask(sdk, messages("green")).usage
    assert first.prompt_tokens >= without.prompt_tokens + NUM_TOKENS
    again = ask(sdk, messages("green")).usage
    assert again.prompt_tokens_details.cached_tokens == first.prompt_tokens - 1
    follow_up = [*messages("green"), {"role": "assistant", "content": "Green."}, {"role": "user", "content": "Sure?"}]
    assert ask(sdk, follow_up).usage.prompt_tokens_details.cached_tokens >= first.prompt_tokens - 10


@pytest.mark.behaviour("images.data")
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "gif"])
def test_formats(sdk: openai.OpenAI, format: str) -> None:
    assert ask(sdk, messages("red", format=format)).usage.prompt_tokens > NUM_TOKENS


def test_the_responses_api(sdk: openai.OpenAI) -> None:
    content: Any = [
        {"type": "input_image", "image_url": data_url("red"), "detail": "auto"},
        {"type": "input_text", "text": "What is this?"},
    ]
    found = sdk.responses.create(
        model=GEMMA,
        input=[{"role": "user", "content": content}],
        temperature=0,
        max_output_tokens=8,
        stream=False,
    )
    assert found.output_text == ask(sdk, messages("red")).choices[0].message.content


@pytest.mark.behaviour("images.blind")
def test_what_cannot_be_seen(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="takes no images"):
        ask(sdk, messages("red"), model=MODEL)
    damaged = messages("red")
    damaged[0]["content"][0]["image_url"]["url"] = data_url("red")[:82]  # a whole number of bytes, cut
    with pytest.raises(openai.BadRequestError, match="cannot be decoded") as caught:
        ask(sdk, damaged)
    assert caught.value.param == "messages"
    damaged[0]["content"][0]["image_url"]["url"] = "https://example.com/cat.png"
    with pytest.raises(openai.BadRequestError, match="fetches no images"):
        ask(sdk, damaged)
