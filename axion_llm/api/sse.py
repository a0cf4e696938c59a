"""The frames of server-sent events: one line of JSON each, whatever is in it."""

from __future__ import annotations

from typing import Any

import msgspec

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

_encode = msgspec.json.Encoder().encode

# A client that splits lines as str.splitlines does would cut an event at these; JSON may have them escaped.
_LINE_ENDS = {c.encode(): f"\\u{ord(c):04x}".encode() for c in "\x85\u2028\u2029"}


def json_line(value: Any) -> bytes:
    encoded = _encode(value)
    if not encoded.isascii():
        for raw, escaped in _LINE_ENDS.items():
            encoded = encoded.replace(raw, escaped)
    return encoded


def event(value: Any) -> bytes:
    return b"data: " + json_line(value) + b"\n\n"
