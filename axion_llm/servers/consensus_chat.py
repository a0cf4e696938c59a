"""A consensus as /v1/chat/completions says it: the ordinary object or chunks, and where the answer comes from."""

from __future__ import annotations

from typing import Any

from axion_llm.api.collect import Choice, Head, chat_object, plain_message
from axion_llm.api.errors import Problem
from axion_llm.api.params import named_as_sent
from axion_llm.api.sse import DONE, json_line
from axion_llm.api.stream import Chunks
from axion_llm.consensus import happenings as h
from axion_llm.consensus.options import ConsensusRequest, Options
from axion_llm.consensus.report import event_object
from axion_llm.errors import RequestError
from axion_llm.servers.answer import wants_usage
from axion_llm.worker.messages import Finished, Piece


class ChatForm:
    def __init__(self, head: Head, request: ConsensusRequest) -> None:
        self._head, self._request = head, request
        self._options = request.consensus or Options()
        self._chunks = _ConsensusChunks(head, with_usage=wants_usage(request))

    @property
    def is_finished(self) -> bool:
        return self._chunks.is_finished

    def opening(self) -> bytes:
        return self._chunks.opening()

    def encode(self, item: h.Happening) -> bytes:
        if isinstance(item, h.Text):
            return self._chunks.encode([(0, Piece("", item.text, 1))])
        if isinstance(item, h.Done):
            return self._chunks.finish(item)
        wanted = self._options.events
        if wanted == "none" or (isinstance(item, h.Wrote) and wanted != "text"):
            return b""
        event = event_object(item, self._options.include_experts)
        return self._chunks.progress(event) if event else b""

    def closing(self) -> bytes:
        return self._chunks.closing()

    def failing(self, problem: Problem) -> bytes:
        return problem.to_event()

    def whole(self, text: str, done: h.Done) -> dict[str, Any]:
        choice = Choice(texts=[text], finished=finished(done))
        whole = chat_object(self._head, [choice], n=1, with_logprobs=False, read=plain_message)
        return {**whole, "usage": done.usage, "consensus": done.consensus}

    def error(self, error: Exception) -> Exception:
        return named_as_sent(error, self._request) if isinstance(error, RequestError) else error

    async def before_end(self) -> dict[str, Any]:
        return {}


class _ConsensusChunks(Chunks):
    """The chunks of an ordinary stream; progress and provenance are further fields, which other clients ignore."""

    def __init__(self, head: Head, *, with_usage: bool) -> None:
        super().__init__(head, 1, choices_per_prompt=1, with_usage=with_usage, with_logprobs=False)
        self._done: h.Done | None = None

    def progress(self, event: dict[str, Any]) -> bytes:
        choice = self._choice(0) + b'"delta":{},"logprobs":null,"finish_reason":null}]'
        return choice + self._with_consensus(event)

    def finish(self, done: h.Done) -> bytes:
        self._done = done
        self._num_running = 0
        ending = b'"delta":{},"logprobs":null,"finish_reason":"%s"}]' % done.finish_reason.encode()
        end = self._end if self._with_usage else self._with_consensus(done.consensus)
        return self._choice(0) + ending + end

    def closing(self) -> bytes:
        if self._done is None or not self._with_usage:
            return DONE
        fields = b'],"usage":' + json_line(self._done.usage) + b',"consensus":' + json_line(self._done.consensus)
        return self._start + fields + b"}\n\n" + DONE

    def _with_consensus(self, value: dict[str, Any]) -> bytes:
        usage = b',"usage":null' if self._with_usage else b""
        return b',"consensus":' + json_line(value) + usage + b"}\n\n"


def finished(done: h.Done) -> Finished:
    how: Any = done.finish_reason
    used = done.usage
    cached = used["prompt_tokens_details"]["cached_tokens"]
    return Finished("", how, "", used["prompt_tokens"], used["completion_tokens"], cached)
