"""A response as a stream of server-sent events, numbered, in the order that the SDK's helpers rely on.

response.created, response.in_progress
output_item.added, content_part.added, output_text.delta…, output_text.done, content_part.done, output_item.done
response.completed, or response.incomplete
"""

from __future__ import annotations

from collections.abc import Iterable

from axion_llm.api.collect import finish_reason
from axion_llm.api.errors import Problem
from axion_llm.api.responses.output import (
    Json,
    ResponseBuilder,
    ending,
    logprob_entries,
    message_item,
    new_id,
    text_part,
)
from axion_llm.api.sse import json_line
from axion_llm.worker.messages import Event, Finished, Piece, TokenLogprob


class ResponseEvents:
    """Use as Chunks: opening(), then encode(...) until is_finished, then closing()."""

    def __init__(self, builder: ResponseBuilder) -> None:
        self.builder = builder
        self._number = 0
        self._message_id = new_id("msg")
        self._is_open = False
        self._texts: list[str] = []
        self._logprobs: list[Json] = []
        self._finished: Finished | None = None
        self._before_text = b""
        self._after_text = b',"logprobs":[]}\n\n'

    @property
    def is_finished(self) -> bool:
        return self._finished is not None

    def opening(self) -> bytes:
        response = self.builder.snapshot("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def encode(self, events: Iterable[tuple[int, Event]]) -> bytes:
        out: list[bytes] = []
        for _, event in events:
            if isinstance(event, Piece | Finished) and (event.text or event.logprobs):
                self._add_text(out, event.text, event.logprobs)
            if isinstance(event, Finished):
                finish_reason(event)  # raises for an end that is none
                self._finished = event
                self._close_message(out)
        return b"".join(out)

    def closing(self) -> bytes:
        assert self._finished is not None
        response = self.response()
        return self._event(f"response.{response['status']}", response=response)

    def response(self) -> Json:
        assert self._finished is not None
        return self.builder.snapshot(ending(self._finished), self._finished)

    def failing(self, problem: Problem) -> bytes:
        """The end of a stream that cannot go on; `error` is what makes the SDK raise."""
        failed = self._event("response.failed", response=self.builder.snapshot("failed", problem=problem))
        error = problem.to_dict()["error"]
        return failed + self._event("error", **{k: error[k] for k in ("code", "message", "param")}, error=error)

    # ---- the message

    def _add_text(self, out: list[bytes], text: str, logprobs: list[TokenLogprob]) -> None:
        if not self._is_open:
            self._open_message(out)
        self._texts.append(text)
        if logprobs:
            entries = logprob_entries(logprobs)
            self._logprobs += entries
            out.append(self._event("response.output_text.delta", **self._place(), delta=text, logprobs=entries))
        else:  # as for nearly every token: three pieces of bytes
            out += (self._before_text, b"%d" % self._number, b',"delta":', json_line(text), self._after_text)
            self._number += 1

    def _open_message(self, out: list[bytes]) -> None:
        self._is_open = True
        item = message_item(self._message_id, [], "in_progress")
        out.append(self._event("response.output_item.added", output_index=0, item=item))
        out.append(self._event("response.content_part.added", **self._place(), part=text_part("", [])))
        fields = json_line({"type": "response.output_text.delta", **self._place()})
        self._before_text = b"event: response.output_text.delta\ndata: " + fields[:-1] + b',"sequence_number":'

    def _close_message(self, out: list[bytes]) -> None:
        assert self._finished is not None
        if not self._is_open:  # a message without a word is one, too
            self._open_message(out)
        text, place = "".join(self._texts), self._place()
        part = text_part(text, self._logprobs)
        item = message_item(self._message_id, [part], ending(self._finished))
        self.builder.output.append(item)
        out.append(self._event("response.output_text.done", **place, text=text, logprobs=self._logprobs))
        out.append(self._event("response.content_part.done", **place, part=part))
        out.append(self._event("response.output_item.done", output_index=0, item=item))

    def _place(self) -> Json:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _event(self, kind: str, **fields: object) -> bytes:
        line = json_line({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + line + b"\n\n"
