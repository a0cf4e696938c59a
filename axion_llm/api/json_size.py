"""How many values a body of JSON has, before it is parsed: a small file can hold millions, each of which costs time.

Checked against a schema, 32 MB of tiny values keep the event loop, and with it every stream, for half a minute. They
are counted without parsing, in a few passes over the bytes: a comma parts two values, a bracket begins an array or an
object (which cost ten times as much); those inside of strings do not count.
"""

from __future__ import annotations


def has_more_values(body: bytes | bytearray, max_values: int, max_containers: int) -> bool:
    if _is_within(body, max_values, max_containers):
        return False
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # now every quote begins or ends a string
    if plain.count(b'"') > 4 * max_values:  # each value may have a key
        return True
    return not _is_within(b"".join(plain.split(b'"')[::2]), max_values, max_containers)


def _is_within(text: bytes | bytearray, max_values: int, max_containers: int) -> bool:
    return text.count(b",") < max_values and text.count(b"[") + text.count(b"{") <= max_containers
