"""A response as a stream of server-sent events, numbered, in the order that the SDK's helpers rely on.

response.created, response.in_progress
for each message     output_item.added, content_part.added, output_text.delta…, output_text.done,
                     content_part.done, output_item.done
for each call        output_item.added, function_call_arguments.delta…, function_call_arguments.done,
                     output_item.done
response.completed, or response.incomplete
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from axion_llm.api.collect import finish_reason
from axion_llm.api.errors import Problem
from axion_llm.api.responses.output import (
    Json,
    ResponseBuilder,
    Status,
    call_item,
    ending,
    logprob_entries,
    message_item,
    new_id,
    text_part,
)
from axion_llm.api.sse import json_line
from axion_llm.api.tools.parser import Called, Delta, Said, ToolParser
from axion_llm.worker.messages import Event, Finished, Piece


@dataclass
class _Message:
    index: int  # among the output's items
    id: str = field(default_factory=lambda: new_id("msg"))
    texts: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    before_text: bytes = b""  # of a delta's event, up to its number

    @property
    def place(self) -> Json:
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


@dataclass
class _Call:
    index: int
    call_id: str
    name: str
    id: str = field(default_factory=lambda: new_id("fc"))
    arguments: list[str] = field(default_factory=list)

    @property
    def place(self) -> Json:
        return {"item_id": self.id, "output_index": self.index}

    def item(self, status: Status, arguments: str = "") -> Json:
        return call_item(self.id, self.call_id, self.name, arguments, status)


class ResponseEvents:
    """Use as Chunks: opening(), then encode(...) until is_finished, then closing()."""

    def __init__(self, builder: ResponseBuilder) -> None:
        self.builder = builder
        self.parser: ToolParser | None = None  # of an answer that may call tools
        self._number = 0
        self._open: _Message | _Call | None = None
        self._finished: Finished | None = None

    @property
    def is_finished(self) -> bool:
        return self._finished is not None

    def opening(self) -> bytes:
        response = self.builder.snapshot("in_progress")
        kinds = ("response.created", "response.in_progress")
        return b"".join(self._event(kind, response=response) for kind in kinds)

    def encode(self, events: Iterable[tuple[int, Event]]) -> bytes:
        out: list[bytes] = []
        for _, event in events:
            if isinstance(event, Piece | Finished) and (event.text or event.logprobs):
                self._add(out, event)
            if isinstance(event, Finished):
                self._finish(out, event)
        return b"".join(out)

    def closing(self) -> bytes:
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

    # ---- what comes

    def _add(self, out: list[bytes], event: Piece | Finished) -> None:
        logprobs = logprob_entries(event.logprobs) if event.logprobs else []
        if self.parser is None:
            return self._say(out, event.text, logprobs)
        for delta in self.parser.feed(event.text):
            self._add_delta(out, delta, logprobs)
            logprobs = []

    def _add_delta(self, out: list[bytes], delta: Delta, logprobs: list[Json]) -> None:
        if isinstance(delta, Said):
            self._say(out, delta.text, logprobs)
        else:
            self._call(out, delta)

    def _finish(self, out: list[bytes], event: Finished) -> None:
        finish_reason(event)  # raises for an end that is none
        for delta in self.parser.finish() if self.parser else ():
            self._add_delta(out, delta, [])
        if not self.builder.output and self._open is None:  # a message without a word is one, too
            self._open_message(out)
        self._close(out, ending(event))
        self._finished = event

    def _close(self, out: list[bytes], status: Status = "completed") -> None:
        if isinstance(self._open, _Message):
            self._close_message(out, self._open, status)
        elif self._open:
            self._close_call(out, self._open, status)
        self._open = None

    # ---- a message

    def _say(self, out: list[bytes], text: str, logprobs: list[Json]) -> None:
        message = self._open if isinstance(self._open, _Message) else self._open_message(out)
        message.texts.append(text)
        if logprobs:
            message.logprobs += logprobs
            out.append(self._event("response.output_text.delta", **message.place, delta=text, logprobs=logprobs))
        else:  # as for nearly every token: some pieces of bytes
            out += (message.before_text, b"%d" % self._number, b',"delta":', json_line(text), b',"logprobs":[]}\n\n')
            self._number += 1

    def _open_message(self, out: list[bytes]) -> _Message:
        self._close(out)
        self._open = message = _Message(len(self.builder.output))
        item = message_item(message.id, [], "in_progress")
        out.append(self._event("response.output_item.added", output_index=message.index, item=item))
        out.append(self._event("response.content_part.added", **message.place, part=text_part("", [])))
        fields = json_line({"type": "response.output_text.delta", **message.place})
        message.before_text = b"event: response.output_text.delta\ndata: " + fields[:-1] + b',"sequence_number":'
        return message

    def _close_message(self, out: list[bytes], message: _Message, status: Status) -> None:
        text, place = "".join(message.texts), message.place
        part = text_part(text, message.logprobs)
        item = message_item(message.id, [part], status)
        self.builder.output.append(item)
        out.append(self._event("response.output_text.done", **place, text=text, logprobs=message.logprobs))
        out.append(self._event("response.content_part.done", **place, part=part))
        out.append(self._event("response.output_item.done", output_index=message.index, item=item))

    # ---- a call

    def _call(self, out: list[bytes], delta: Called) -> None:
        if delta.id:
            self._close(out)
            self._open = _Call(len(self.builder.output), delta.id, delta.name or "")
            place = {"output_index": self._open.index, "item": self._open.item("in_progress")}
            out.append(self._event("response.output_item.added", **place))
        call = self._open
        assert isinstance(call, _Call), "arguments without a call"
        if delta.arguments:
            call.arguments.append(delta.arguments)
            out.append(self._event("response.function_call_arguments.delta", **call.place, delta=delta.arguments))

    def _close_call(self, out: list[bytes], call: _Call, status: Status) -> None:
        arguments = "".join(call.arguments)
        item = call.item(status, arguments)
        self.builder.output.append(item)
        done = {**call.place, "name": call.name, "arguments": arguments}
        out.append(self._event("response.function_call_arguments.done", **done))
        out.append(self._event("response.output_item.done", output_index=call.index, item=item))

    def _event(self, kind: str, **fields: object) -> bytes:
        line = json_line({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + line + b"\n\n"
