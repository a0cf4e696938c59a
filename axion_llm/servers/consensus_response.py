"""A consensus as /v1/responses says it: the ordinary response, with a field `consensus` once it is decided.

Its progress is not told on the way: the events of a response are a fixed set that clients walk through.
"""

from __future__ import annotations

from typing import Any

from axion_llm.api.errors import Problem
from axion_llm.api.params import named_as_sent
from axion_llm.consensus import happenings as h
from axion_llm.consensus import language
from axion_llm.consensus.options import ConsensusRequest
from axion_llm.consensus.orchestrator import Orchestrator, Task
from axion_llm.errors import RequestError
from axion_llm.servers.access import Record
from axion_llm.servers.answer import Answer
from axion_llm.servers.consensus_answer import ConsensusAnswer
from axion_llm.servers.consensus_chat import finished
from axion_llm.servers.consensus_routed import account
from axion_llm.servers.response_answer import ResponseAnswer
from axion_llm.servers.response_draft import ResponseDraft, our_names, renamed
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Piece


async def answer(
    draft: ResponseDraft, own: Orchestrator, service: Service, record: Record, *, is_streamed: bool
) -> ConsensusAnswer | Answer:
    """Planned before anything is sent, so that its errors are plain HTTP statuses."""
    assert isinstance(draft.chat, ConsensusRequest)
    task = Task(draft.builder.id, draft.chat, service.profile.is_interactive, record.is_large, record.tenant)
    await language.loaded()
    with our_names():
        plan = own.plan(task)
    if not plan.is_single_handed:
        return ConsensusAnswer(ResponseForm(draft), task, plan, own, service, record, is_streamed=is_streamed)
    draft.chat = draft.chat.model_copy(update={"model": plan.experts[0]})
    draft.builder.more = {"consensus": account(plan)}
    return ResponseAnswer(draft, service, record, is_streamed=is_streamed)


class ResponseForm:
    def __init__(self, draft: ResponseDraft) -> None:
        self._draft, self._events = draft, draft.events

    @property
    def is_finished(self) -> bool:
        return self._events.is_finished

    def opening(self) -> bytes:
        return self._events.opening()

    def encode(self, item: h.Happening) -> bytes:
        if isinstance(item, h.Text):
            return self._events.encode([(0, Piece("", item.text, 1))])
        if isinstance(item, h.Done):
            self._draft.builder.more = {"consensus": item.consensus}
            return self._events.encode([(0, finished(item))])
        return b""

    def closing(self) -> bytes:
        return self._events.closing()

    def failing(self, problem: Problem) -> bytes:
        return self._events.failing(problem)

    def whole(self, text: str, done: h.Done) -> dict[str, Any]:
        self.encode(h.Text(text))
        self.encode(done)
        return self._events.response()

    def error(self, error: Exception) -> Exception:
        return renamed(named_as_sent(error, self._draft.chat)) if isinstance(error, RequestError) else error

    async def before_end(self) -> dict[str, Any]:
        return await self._draft.keep()
