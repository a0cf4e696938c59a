"""Chunks: their shape, their order, and that the frames of server-sent events hold for any text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from axion_llm.api.collect import Head
from axion_llm.api.stream import Chunks, TextChunks
from axion_llm.errors import ServiceError
from axion_llm.worker.messages import Event, Finished, FinishReason, Piece, TokenLogprob

HEAD = Head("chatcmpl-1", 'a "model"', 123)


def chunks(n: int = 1, *, with_usage: bool = False, with_logprobs: bool = False) -> Chunks:
    return Chunks(HEAD, n, choices_per_prompt=n, with_usage=with_usage, with_logprobs=with_logprobs)


def text_chunks(*echoes: str, with_logprobs: bool = False) -> TextChunks:
    return TextChunks(
        HEAD, len(echoes), echoes=echoes, choices_per_prompt=1, with_usage=False, with_logprobs=with_logprobs
    )


def piece(text: str, logprobs: list[TokenLogprob] | None = None) -> Piece:
    return Piece("r", text, 1, logprobs or [])


def finished(reason: FinishReason = "stop", text: str = "") -> Finished:
    return Finished("r", reason, text, prompt_tokens=5, completion_tokens=2, cached_tokens=3)


def whole(stream: Chunks, *batches: list[tuple[int, Event]]) -> bytes:
    return b"".join([stream.opening(), *(stream.encode(batch) for batch in batches), stream.closing()])


def data(sent: bytes) -> list[Any]:
    """As a client reads it: lines, events between empty ones."""
    events = sent.decode().split("\n\n")
    assert events.pop() == ""
    assert all(e.startswith("data: ") and len(e.splitlines()) == 1 for e in events)
    assert events.pop() == "data: [DONE]"
    return [json.loads(e.removeprefix("data: ")) for e in events]


def test_a_chat() -> None:
    found = data(whole(chunks(), [(0, piece("Hel")), (0, piece("lo"))], [(0, finished("length"))]))
    assert [c["choices"][0]["delta"] for c in found] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in found] == [None, None, None, "length"]
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in found} == {
        ("chatcmpl-1", 123, 'a "model"', "chat.completion.chunk")
    }
    assert all("usage" not in c for c in found)
    for c in found:
        ChatCompletionChunk.model_validate(c, strict=True)


def test_usage_comes_last_and_only_when_asked_for() -> None:
    found = data(whole(chunks(2, with_usage=True), [(0, piece("a")), (1, finished()), (0, finished())]))
    assert all(c["usage"] is None for c in found[:-1])
    assert found[-1]["choices"] == []
    assert found[-1]["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 3},
    }


def test_each_choice_has_its_role_and_its_end() -> None:
    stream = chunks(3)
    found = data(whole(stream, [(2, piece("c")), (0, finished())], [(2, finished()), (1, finished(text="b"))]))
    choices = [c["choices"][0] for c in found]
    assert [c["index"] for c in choices if "role" in c["delta"]] == [0, 1, 2]
    assert [c["index"] for c in choices if c["finish_reason"]] == [0, 2, 1]
    assert [c["delta"]["content"] for c in choices if c["delta"].get("content")] == ["c", "b"]
    assert stream.is_finished


def test_empty_pieces_are_not_sent() -> None:
    assert chunks().encode([(0, piece(""))]) == b""


def test_logprobs_go_with_their_text() -> None:
    token = TokenLogprob(1, "é".encode()[:1], -0.5, [(1, b"\xc3", -0.5), (2, b"x", float("-inf"))])
    found = data(whole(chunks(with_logprobs=True), [(0, piece("", [token])), (0, piece("é"))], [(0, finished())]))
    content = found[1]["choices"][0]["logprobs"]["content"]
    assert content == [
        {
            "token": "\ufffd",
            "logprob": -0.5,
            "bytes": [195],
            "top_logprobs": [
                {"token": "\ufffd", "logprob": -0.5, "bytes": [195]},
                {"token": "x", "logprob": -9999.0, "bytes": [120]},
            ],
        }
    ]
    assert found[1]["choices"][0]["delta"] == {"content": ""}
    assert found[2]["choices"][0]["logprobs"] is None
    for c in found:
        ChatCompletionChunk.model_validate(c, strict=True)


def test_a_text_completion() -> None:
    stream = text_chunks("one", "", with_logprobs=True)
    token = TokenLogprob(1, b"a", -1.0)
    found = data(
        whole(stream, [(0, piece("a", [token])), (1, piece("a", [token]))], [(0, finished()), (1, finished())])
    )
    assert [(c["choices"][0]["index"], c["choices"][0]["text"]) for c in found] == [
        (0, "one"),
        (0, "a"),
        (1, "a"),
        (0, ""),
        (1, ""),
    ]
    assert [c["choices"][0]["logprobs"]["text_offset"] for c in found[1:3]] == [[3], [0]]
    assert {c["object"] for c in found} == {"text_completion"}
    for c in found[:-2]:  # the SDK's type wants a reason in each, which OpenAI's own stream does not have
        Completion.model_validate({**c, "choices": [{**c["choices"][0], "finish_reason": "stop"}]})


def test_a_cancel_that_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(ServiceError):
        chunks().encode([(0, finished("cancelled"))])


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=8)),
    st.text(st.characters(codec="utf-8"), max_size=3),
)
def test_any_text_arrives_unchanged(texts: list[str], last: str) -> None:
    found = data(whole(chunks(), [(0, piece(t)) for t in texts], [(0, finished(text=last))]))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in found) == "".join(texts) + last
