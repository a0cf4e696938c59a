"""Events of all choices of a request -> the one object that a client without streaming gets."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from axion_llm import __version__
from axion_llm.api.logprobs import TextLogprobs, chat_logprobs
from axion_llm.errors import ServiceError
from axion_llm.worker.messages import Event, Finished, Piece, TokenLogprob

SYSTEM_FINGERPRINT = f"axion-{__version__}"


@dataclass(frozen=True)
class Head:
    """What stays the same in an object and in all chunks of a stream."""

    id: str
    model: str
    created: int

    @classmethod
    def new(cls, prefix: str, model: str) -> Head:
        return cls(f"{prefix}-{uuid.uuid4().hex}", model, int(time.time()))


@dataclass
class Choice:
    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def add(self, event: Event) -> None:
        if isinstance(event, Piece | Finished):
            self.texts.append(event.text)
            self.logprobs.extend(event.logprobs)
        if isinstance(event, Finished):
            self.finished = event

    @property
    def ending(self) -> Finished:
        assert self.finished is not None, "collected before its end"
        return self.finished


def finish_reason(finished: Finished) -> str:
    if finished.reason == "cancelled":  # by no client: that one would not be here any more
        raise ServiceError("the request was cancelled inside the server")
    return finished.reason


def usage(endings: Sequence[Finished], choices_per_prompt: int) -> dict[str, Any]:
    """All choices together; a prompt counts once however many choices continue it."""
    prompts = [endings[i : i + choices_per_prompt] for i in range(0, len(endings), choices_per_prompt)]
    prompt_tokens = sum(choices[0].prompt_tokens for choices in prompts)
    completion_tokens = sum(f.completion_tokens for f in endings)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        # The other choices find in the cache what the first one put there: that is not a saving to report.
        "prompt_tokens_details": {"cached_tokens": sum(min(f.cached_tokens for f in c) for c in prompts)},
    }


def plain_message(choice: Choice) -> tuple[dict[str, Any], str]:
    """The assistant's message and the finish reason."""
    return {"role": "assistant", "content": choice.text, "refusal": None}, finish_reason(choice.ending)


def chat_object(
    head: Head,
    choices: Sequence[Choice],
    *,
    n: int,
    with_logprobs: bool,
    read: Callable[[Choice], tuple[dict[str, Any], str]] = plain_message,
) -> dict[str, Any]:
    """`read`: how a choice's text becomes a message (see tools/chunks.py)."""
    found = [
        {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(choice.logprobs) if with_logprobs else None,
            "finish_reason": reason,
        }
        for index, choice in enumerate(choices)
        for message, reason in [read(choice)]
    ]
    return _object("chat.completion", head, found, usage([c.ending for c in choices], n))


def completion_object(
    head: Head, choices: Sequence[Choice], *, n: int, with_logprobs: bool, echoes: Sequence[str]
) -> dict[str, Any]:
    """`echoes`: what each choice's text begins with, the prompt if the client asked for it, else nothing."""
    found = [
        {
            "index": index,
            "text": echo + choice.text,
            "logprobs": TextLogprobs(len(echo))(choice.logprobs) if with_logprobs else None,
            "finish_reason": finish_reason(choice.ending),
        }
        for index, (choice, echo) in enumerate(zip(choices, echoes, strict=True))
    ]
    return _object("text_completion", head, found, usage([c.ending for c in choices], n))


def _object(kind: str, head: Head, choices: list[dict[str, Any]], used: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": head.id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "system_fingerprint": SYSTEM_FINGERPRINT,
        "choices": choices,
        "usage": used,
    }
