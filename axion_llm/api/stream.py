"""Events of all choices of a request -> server-sent events, encoded once per token and nothing more.

This runs beside the compute threads, for each token of each stream. So a chunk is three pieces of bytes:
what comes before the text and what comes after it are encoded when the stream begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from axion_llm.api.collect import SYSTEM_FINGERPRINT, Head, finish_reason, usage
from axion_llm.api.errors import Problem
from axion_llm.api.logprobs import TextLogprobs, chat_logprobs
from axion_llm.api.sse import DONE, json_line
from axion_llm.worker.messages import Event, Finished, Piece, TokenLogprob


class Chunks:
    """The chunks of one stream. Use: opening(), then encode(...) until is_finished, then closing()."""

    object = "chat.completion.chunk"
    text_key = b'"delta":{"content":'
    text_end = b"}"
    last = b'"delta":{}'

    def __init__(
        self, head: Head, num_choices: int, *, choices_per_prompt: int, with_usage: bool, with_logprobs: bool
    ) -> None:
        self._choices_per_prompt = choices_per_prompt
        self._with_usage = with_usage
        self._with_logprobs = with_logprobs
        self._endings: list[Finished | None] = [None] * num_choices
        self._num_running = num_choices
        self._start = self._encode_head(head)
        # OpenAI: with include_usage every chunk has the field, null in all but the last one.
        self._end = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._before_text = [self._choice(i) + self.text_key for i in range(num_choices)]
        self._after_text = self.text_end + b',"logprobs":null,"finish_reason":null}]' + self._end

    def _encode_head(self, head: Head) -> bytes:
        fields: dict[str, Any] = {
            "id": head.id,
            "object": self.object,
            "created": head.created,
            "model": head.model,
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }
        return b"data: " + json_line(fields)[:-1] + b',"choices":['

    def _choice(self, index: int) -> bytes:
        return self._start + b'{"index":%d,' % index

    @property
    def is_finished(self) -> bool:
        return self._num_running == 0

    def opening(self) -> bytes:
        """The first chunk of each choice says whose words they are."""
        delta = b'"delta":{"role":"assistant","content":"","refusal":null}'
        end = delta + b',"logprobs":null,"finish_reason":null}]' + self._end
        return b"".join(self._choice(i) + end for i in range(len(self._endings)))

    def encode(self, events: Iterable[tuple[int, Event]]) -> bytes:
        """One chunk for each token, all that are at hand in one piece of bytes."""
        out: list[bytes] = []
        for index, event in events:
            if type(event) is Piece:
                if self._with_logprobs:
                    self._add_with_logprobs(out, index, event)
                elif event.text:
                    out += (self._before_text[index], json_line(event.text), self._after_text)
            elif type(event) is Finished:
                self._add_finish(out, index, event)
        return b"".join(out)

    def _add_with_logprobs(self, out: list[bytes], index: int, event: Piece | Finished) -> None:
        if event.text or event.logprobs:
            logprobs = json_line(self._logprobs(index, event.logprobs)) if event.logprobs else b"null"
            end = self.text_end + b',"logprobs":' + logprobs + b',"finish_reason":null}]' + self._end
            out += (self._before_text[index], json_line(event.text), end)

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        return chat_logprobs(tokens)

    def _add_finish(self, out: list[bytes], index: int, event: Finished) -> None:
        if self._with_logprobs:
            self._add_with_logprobs(out, index, event)
        elif event.text:
            out += (self._before_text[index], json_line(event.text), self._after_text)
        self._add_reason(out, index, event, finish_reason(event))

    def _add_reason(self, out: list[bytes], index: int, event: Finished, reason: str) -> None:
        end = b',"logprobs":null,"finish_reason":"%s"}]' % reason.encode()
        out += (self._choice(index), self.last, end, self._end)
        self._endings[index] = event
        self._num_running -= 1

    def closing(self) -> bytes:
        return (self._usage_chunk() if self._with_usage else b"") + DONE

    def failing(self, problem: Problem) -> bytes:
        return problem.to_event()

    def _usage_chunk(self) -> bytes:
        endings = [e for e in self._endings if e is not None]
        used = json_line(usage(endings, self._choices_per_prompt))
        return self._start + b'],"usage":' + used + b"}\n\n"


class TextChunks(Chunks):
    """The chunks of /v1/completions; `echoes` as in completion_object."""

    object = "text_completion"
    text_key = b'"text":'
    text_end = b""
    last = b'"text":""'

    def __init__(self, head: Head, num_choices: int, *, echoes: Sequence[str], **options: Any) -> None:
        super().__init__(head, num_choices, **options)
        self._echoes = echoes
        self._text_logprobs = [TextLogprobs(len(echo)) for echo in echoes]

    def opening(self) -> bytes:
        echoed = [(i, echo) for i, echo in enumerate(self._echoes) if echo]
        return b"".join(self._before_text[i] + json_line(echo) + self._after_text for i, echo in echoed)

    def _logprobs(self, index: int, tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
        return self._text_logprobs[index](tokens)
