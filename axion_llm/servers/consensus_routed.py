"""Tool calls and images through the consensus port: one expert's work, answered as a plain request to it would be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from axion_llm.api.collect import Choice
from axion_llm.api.errors import Problem
from axion_llm.api.sse import DONE, json_line
from axion_llm.consensus.options import ConsensusRequest
from axion_llm.consensus.plan import Plan
from axion_llm.servers.access import Record
from axion_llm.servers.answer import ChatAnswer, Stream
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Event


class RoutedAnswer(ChatAnswer):
    """The expert answers; the response has the name that was asked for, and says who it was."""

    def __init__(
        self, request: ConsensusRequest, plan: Plan, service: Service, record: Record, *, is_streamed: bool
    ) -> None:
        self._asked, self._plan = request.model, plan
        expert = request.model_copy(update={"model": plan.experts[0]})
        super().__init__(expert, service, record, is_streamed=is_streamed)

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        return {**super().whole(choices), "model": self._asked, "consensus": account(self._plan)}

    def chunks(self) -> Stream:
        expert, self.head = self.head, replace(self.head, model=self._asked)
        inner = super().chunks()
        self.head = expert
        fields = {"id": expert.id, "object": "chat.completion.chunk", "created": expert.created, "model": self._asked}
        last = {**fields, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]}
        return _WithAccount(inner, b"data: " + json_line({**last, "consensus": account(self._plan)}) + b"\n\n")


class _WithAccount:
    """A stream with one more chunk before its end."""

    def __init__(self, inner: Stream, account: bytes) -> None:
        self._inner, self._account = inner, account

    @property
    def is_finished(self) -> bool:
        return self._inner.is_finished

    def opening(self) -> bytes:
        return self._inner.opening()

    def encode(self, events: Iterable[tuple[int, Event]]) -> bytes:
        return self._inner.encode(events)

    def closing(self) -> bytes:
        return self._inner.closing().removesuffix(DONE) + self._account + DONE

    def failing(self, problem: Problem) -> bytes:
        return self._inner.failing(problem)


def account(plan: Plan) -> dict[str, Any]:
    """The field `consensus` of such a response."""
    return {
        "strategy": "route",
        "agreement": None,
        "decided_by": "route",
        "early_stopped": False,
        "chosen": 0,
        "experts": [{"index": 0, "model": plan.experts[0], "sample": 0, "status": "ok"}],
        "failed": [],
        "judge": None,
        "routing": {"reason": plan.reason, "signals": dict(plan.signals), "not_asked": plan.experts[1:]},
    }
