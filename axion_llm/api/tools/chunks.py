"""The chunks of a stream whose answer may call tools, and the message of an answer that is given as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from axion_llm.api.collect import Choice, Head, finish_reason
from axion_llm.api.logprobs import chat_logprobs
from axion_llm.api.sse import json_line
from axion_llm.api.stream import Chunks
from axion_llm.api.tools.parser import Called, Delta, Said, ToolParser
from axion_llm.worker.messages import Event, Finished, Piece


class ToolChunks(Chunks):
    def __init__(self, head: Head, parsers: Sequence[ToolParser], **options: Any) -> None:
        super().__init__(head, len(parsers), **options)
        self._parsers = parsers

    def opening(self) -> bytes:
        delta = b'"delta":{"role":"assistant","content":null,"refusal":null}'
        end = delta + b',"logprobs":null,"finish_reason":null}]' + self._end
        return b"".join(self._choice(i) + end for i in range(len(self._parsers)))

    def encode(self, events: Iterable[tuple[int, Event]]) -> bytes:
        out: list[bytes] = []
        for index, event in events:
            if not isinstance(event, Piece | Finished):
                continue
            parser = self._parsers[index]
            deltas = parser.feed(event.text)
            if isinstance(event, Piece):
                self._add_deltas(out, index, deltas, event)
            else:
                self._add_deltas(out, index, deltas + parser.finish(), event)
                self._add_reason(out, index, event, reason(event, parser))
        return b"".join(out)

    def _add_deltas(self, out: list[bytes], index: int, deltas: Sequence[Delta], event: Piece | Finished) -> None:
        """The tokens' log probabilities go with the first of what they gave, with nothing if they gave nothing."""
        logprobs = json_line(chat_logprobs(event.logprobs)) if self._with_logprobs and event.logprobs else b"null"
        found = [json_line(delta_object(delta)) for delta in deltas]
        if not found and logprobs != b"null":
            found = [b"{}"]
        for delta in found:
            end = b',"logprobs":' + logprobs + b',"finish_reason":null}]' + self._end
            out += (self._choice(index), b'"delta":', delta, end)
            logprobs = b"null"


def delta_object(delta: Delta) -> dict[str, Any]:
    if isinstance(delta, Said):
        return {"content": delta.text}
    first = {"id": delta.id, "type": "function"} if delta.id else {}
    name = {"name": delta.name} if delta.id else {}
    return {"tool_calls": [{"index": delta.index, **first, "function": {**name, "arguments": delta.arguments}}]}


def reason(finished: Finished, parser: ToolParser) -> str:
    is_call = finished.reason == "stop" and parser.num_calls
    return "tool_calls" if is_call else finish_reason(finished)


def read_message(choice: Choice, parser: ToolParser) -> tuple[dict[str, Any], str]:
    """The assistant's message and the finish reason."""
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    for delta in [*parser.feed(choice.text), *parser.finish()]:
        if isinstance(delta, Said):
            texts.append(delta.text)
        else:
            _add(calls, delta)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(texts) or (None if calls else ""),
        "refusal": None,
    }
    if calls:
        message["tool_calls"] = calls
    return message, reason(choice.ending, parser)


def _add(calls: list[dict[str, Any]], delta: Called) -> None:
    if delta.id:
        calls.append({"id": delta.id, "type": "function", "function": {"name": delta.name, "arguments": ""}})
    calls[delta.index]["function"]["arguments"] += delta.arguments
