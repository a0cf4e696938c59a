"""A worker's log probabilities in the two forms OpenAI has for them: chat's, and the older of completions."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from axion_llm.worker.messages import TokenLogprob

LOWEST = -9999.0  # JSON has no -inf; OpenAI sends this


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
    content = [
        _entry(t.piece, t.logprob) | {"top_logprobs": [_entry(piece, logprob) for _, piece, logprob in t.top]}
        for t in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(piece: bytes, logprob: float | None) -> dict[str, Any]:
    return {
        "token": piece.decode("utf-8", "replace"),
        "logprob": LOWEST if logprob is None else _finite(logprob),
        "bytes": list(piece),
    }


def _finite(logprob: float) -> float:
    return logprob if logprob > LOWEST else LOWEST  # also for NaN


class TextLogprobs:
    """One choice of a text completion; keeps count of characters over the chunks, for text_offset."""

    def __init__(self, start: int = 0) -> None:
        self._offset = start
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def __call__(self, tokens: Iterable[TokenLogprob]) -> dict[str, Any]:
        tokens = list(tokens)
        return {
            "tokens": [_name(t.piece) for t in tokens],
            "token_logprobs": [None if t.logprob is None else _finite(t.logprob) for t in tokens],
            "top_logprobs": [_top(t) for t in tokens],
            "text_offset": [self._next_offset(t.piece) for t in tokens],
        }

    def _next_offset(self, piece: bytes) -> int:
        offset = self._offset
        self._offset += len(self._decode(piece))
        return offset


def _top(token: TokenLogprob) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    return {_name(piece): _finite(logprob) for _, piece, logprob in token.top}


def _name(piece: bytes) -> str:
    """A token that is a part of a character is named by its bytes, so that two of them stay different."""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
