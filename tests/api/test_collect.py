"""The object for a client without streaming, by the SDK's own types."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from axion_llm.api.collect import Choice, Head, chat_object, completion_object, finish_reason, usage
from axion_llm.api.logprobs import TextLogprobs
from axion_llm.errors import ServiceError
from axion_llm.worker.messages import Accepted, Finished, FinishReason, Piece, TokenLogprob

HEAD = Head.new("chatcmpl", "m")


def finished(
    reason: FinishReason = "stop", text: str = "", *, prompt_tokens: int = 5, cached_tokens: int = 0
) -> Finished:
    return Finished("r", reason, text, prompt_tokens, 2, cached_tokens)


def choice(*texts: str, end: Finished | None = None) -> Choice:
    made = Choice()
    made.add(Accepted("r", 5))
    for text in texts:
        made.add(Piece("r", text, 1, [TokenLogprob(1, text.encode(), -0.5, [(2, b"x", -1.0)])]))
    made.add(end or finished())
    return made


def test_chat() -> None:
    choices = [choice("Hel", "lo", end=finished("length", "!")), choice()]
    found = chat_object(HEAD, choices, n=2, with_logprobs=False)
    parsed = ChatCompletion.model_validate(found, strict=True)
    assert [c.message.content for c in parsed.choices] == ["Hello!", ""]
    assert [c.finish_reason for c in parsed.choices] == ["length", "stop"]
    assert [c.index for c in parsed.choices] == [0, 1]
    assert parsed.id.startswith("chatcmpl-")
    assert parsed.choices[0].logprobs is None


def test_logprobs_of_chat() -> None:
    found = chat_object(HEAD, [choice("Hé")], n=1, with_logprobs=True)
    content: Any = ChatCompletion.model_validate(found, strict=True).choices[0].logprobs
    assert content.content[0].bytes == [72, 195, 169]
    assert content.content[0].top_logprobs[0].token == "x"


def test_completion() -> None:
    found = completion_object(HEAD, [choice("a", "b")], n=1, with_logprobs=True, echoes=["echo "])
    parsed = Completion.model_validate(found, strict=True)
    assert parsed.choices[0].text == "echo ab"
    logprobs: Any = parsed.choices[0].logprobs
    assert logprobs.tokens == ["a", "b"]
    assert logprobs.text_offset == [5, 6]
    assert logprobs.top_logprobs == [{"x": -1.0}] * 2


def test_offsets_count_characters_also_of_those_in_parts() -> None:
    e, n = "é".encode(), b"n"
    tokens = [TokenLogprob(1, p, float("nan")) for p in (e[:1], e[1:], n)]
    assert TextLogprobs()(tokens) == {
        "tokens": ["bytes:\\xc3", "bytes:\\xa9", "n"],
        "token_logprobs": [-9999.0] * 3,
        "top_logprobs": [{}] * 3,
        "text_offset": [0, 0, 1],
    }


def test_a_prompt_counts_once_and_the_cache_only_what_was_there_before() -> None:
    endings = [
        finished(cached_tokens=1),
        finished(cached_tokens=4),
        finished(prompt_tokens=7),
        finished(prompt_tokens=7),
    ]
    assert usage(endings, 2) == {
        "prompt_tokens": 12,
        "completion_tokens": 8,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_finish_reasons() -> None:
    assert finish_reason(finished("stop")) == "stop"
    assert finish_reason(finished("length")) == "length"
    with pytest.raises(ServiceError):
        finish_reason(finished("cancelled"))
