"""What a server on trial is asked, and whether it is right: greedy texts and an embedding, against a stored run.

The stored run (answers.json) was written by `--record`. Its texts hold for every kernel: the prompts are such that the
first token leads clearly, where instruction sets differ in the last digits of a logit.
"""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from server import ANSWER_SECONDS, Server, TrialError

STORED = Path(__file__).with_name("answers.json")
CHAT = "What is the capital of France?"
STORY = "Count from one to ten in words."
SENTENCE = "The cat sleeps on the warm stove."
CHAT_TOKENS = 8
STORY_TOKENS = 24
KILL_AFTER = 6  # pieces of the stream
LEAST_COSINE = 0.999


@dataclass
class Answers:
    chat: str = ""  # in one piece
    story: str = ""  # as a stream, longer
    embedding: list[float] = field(default_factory=list)

    @classmethod
    def stored(cls) -> Answers:
        return cls(**json.loads(STORED.read_text()))

    def store(self) -> None:
        self.embedding = [round(x, 4) for x in self.embedding]
        STORED.write_text(json.dumps(asdict(self), indent=1) + "\n")


def ask_chat(server: Server, model: str) -> str:
    body = _chat(model, CHAT, CHAT_TOKENS)
    reply = _post(f"{server.urls['standard']}/v1/chat/completions", body)
    return str(reply["choices"][0]["message"]["content"])


def ask_story(server: Server, model: str, after_piece: Callable[[int], None] = lambda _: None) -> str:
    """As a stream; `after_piece` is told how many pieces have come."""
    pieces: list[str] = []
    finish = None
    body = _chat(model, STORY, STORY_TOKENS) | {"stream": True, "ignore_eos": True}
    for chunk in _stream(f"{server.urls['streaming']}/v1/chat/completions", body):
        if "error" in chunk:
            raise TrialError(f"the stream ended with {chunk['error']}")
        for choice in chunk["choices"]:
            finish = choice["finish_reason"]
            if piece := choice["delta"].get("content"):
                pieces.append(piece)
                after_piece(len(pieces))
    if finish != "length":
        raise TrialError(f"the stream ended by {finish}, not at its length: {''.join(pieces)!r}")
    return "".join(pieces)


def ask_story_and_kill(server: Server, model: str) -> str:
    """The same stream, its worker killed in the middle."""
    killed: list[int] = []

    def kill_once(num_pieces: int) -> None:
        if num_pieces == KILL_AFTER:
            killed.append(server.worker_pid(model))
            os.kill(killed[0], signal.SIGKILL)

    text = ask_story(server, model, kill_once)
    if not killed:
        raise TrialError(f"the stream had fewer than {KILL_AFTER} pieces: {text!r}")
    if server.worker_pid(model) == killed[0]:
        raise TrialError("the killed worker still has the model")
    return text


def ask_embedding(server: Server, model: str) -> list[float]:
    reply = _post(f"{server.urls['standard']}/v1/embeddings", {"model": model, "input": SENTENCE})
    return [float(x) for x in reply["data"][0]["embedding"]]


def differences(got: Answers, wanted: Answers) -> list[str]:
    """What is wrong, in words; what was not asked for is left out."""
    wrong = [
        f"{name}: {mine!r}, not {theirs!r}"
        for name, mine, theirs in (("chat", got.chat, wanted.chat), ("story", got.story, wanted.story))
        if mine and mine != theirs
    ]
    if got.embedding and (near := cosine(got.embedding, wanted.embedding)) < LEAST_COSINE:
        wrong.append(f"embedding: its cosine with the stored one is {near:.5f}")
    return wrong


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def _chat(model: str, text: str, max_tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}


def _post(url: str, body: dict[str, Any]) -> Any:
    reply = httpx.post(url, json=body, timeout=ANSWER_SECONDS)
    if reply.status_code != 200:
        raise TrialError(f"{url.rpartition('/v1')[2]}: {reply.status_code} {reply.text[:300]}")
    return reply.json()


def _stream(url: str, body: dict[str, Any]) -> Iterator[Any]:
    with httpx.stream("POST", url, json=body, timeout=ANSWER_SECONDS) as reply:
        if reply.status_code != 200:
            raise TrialError(f"{reply.status_code} {reply.read().decode()[:300]}")
        for line in reply.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data: "))


@contextmanager
def named(what: str) -> Iterator[None]:
    """A client's error becomes one of the trial, which says what was being asked."""
    try:
        yield
    except httpx.HTTPError as error:
        raise TrialError(f"{what}: {type(error).__name__} {error}") from None
