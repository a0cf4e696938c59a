"""Steps through an untrusted GGUF header: typed reads that never pass the file's end nor take much memory."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

# Far above any real model, low enough that a header built to be slow is refused within a second or two.
MAX_NAME_BYTES = 1 << 12  # a key, a tensor's name, a text that is kept; longer texts are stepped over
MAX_KEPT_NUMBERS = 1 << 10  # longest array that is kept: one value for each layer
MAX_STRINGS = 1 << 23  # all string arrays of a file together; a vocabulary of 256k with merges has 2^19

_CHUNK_BYTES = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_LENGTH = struct.Struct("<Q")

_AGAIN = "Remove it and get it again: `axion-llm pull MODEL`."


@dataclass(frozen=True)
class Skipped:
    """Stands for a value that was too long to keep."""

    length: int  # bytes of a text, elements of an array


Value = int | float | bool | str | tuple[int | float | bool, ...] | Skipped


class BadFile(Exception):
    """What is wrong with the file, and what to do about it."""

    def __init__(self, reason: str, advice: str = _AGAIN) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


class Cursor:
    """A place in the file. It reads ahead in chunks; a skip costs nothing, however long."""

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self._file = file
        self._file_bytes = file_bytes
        self._buffer = b""
        self._start = 0  # of the buffer, in the file
        self._at = 0  # in the buffer; beyond its end after a skip
        self._strings_left = MAX_STRINGS

    @property
    def offset(self) -> int:
        return self._start + self._at

    def number(self, letter: str) -> int:
        return int(self.numbers(letter, 1)[0])

    def numbers(self, letter: str, count: int) -> tuple[int | float | bool, ...]:
        """`count` values of one struct type, little-endian."""
        layout = f"<{count}{letter}"
        return struct.unpack(layout, self._take(struct.calcsize(layout)))

    def text(self, what: str) -> str:
        length = self.count(MAX_NAME_BYTES, f"bytes in {what}")
        return self._take(length).decode(errors="replace")

    def count(self, limit: int, what: str, letter: str = "Q") -> int:
        """A number of things to come; above `limit` it is no model."""
        value = self.number(letter)
        if value > limit:
            raise BadFile(f"damaged header: {value:,} {what}, more than the {limit:,} that are possible")
        return value

    def value(self) -> Value:
        """A metadata value."""
        kind = self.number("I")
        if kind == _ARRAY:
            return self._array()
        if kind == _STRING:
            return self._short_text()
        return self.numbers(_scalar(kind), 1)[0]

    def skip(self, length: int) -> None:
        self._at += length
        if self.offset > self._file_bytes:
            raise BadFile(f"truncated: it ends within its header, after {self._file_bytes:,} bytes")

    def _array(self) -> Value:
        kind, length = self.number("I"), self.number("Q")
        if kind == _STRING:
            self._skip_strings(length)
            return Skipped(length)
        letter = _scalar(kind)
        if length <= MAX_KEPT_NUMBERS:
            return self.numbers(letter, length)
        self.skip(length * struct.calcsize(f"<{letter}"))
        return Skipped(length)

    def _short_text(self) -> Value:
        length = self.number("Q")
        if length <= MAX_NAME_BYTES:
            return self._take(length).decode(errors="replace")
        self.skip(length)
        return Skipped(length)

    def _skip_strings(self, count: int) -> None:
        """The hot loop: a vocabulary is 100,000 strings and more, each with its length in front."""
        self._strings_left -= count
        if self._strings_left < 0:
            raise BadFile(f"damaged header: more than {MAX_STRINGS:,} strings")
        length_at = _LENGTH.unpack_from
        buffer, at, last = self._buffer, self._at, len(self._buffer) - _LENGTH.size
        for _ in range(count):
            if at > last:
                self._at = at
                self._fill(_LENGTH.size)
                buffer, at, last = self._buffer, self._at, len(self._buffer) - _LENGTH.size
            at += _LENGTH.size + length_at(buffer, at)[0]
        self._at = at
        self.skip(0)

    def _take(self, length: int) -> bytes:
        if self._at + length > len(self._buffer):
            self._fill(length)
        taken = self._buffer[self._at : self._at + length]
        self._at += length
        return taken

    def _fill(self, length: int) -> None:
        """Make `length` bytes from the cursor on available."""
        here = self.offset
        self.skip(length)
        self._file.seek(here)
        self._buffer, self._start, self._at = self._file.read(max(length, _CHUNK_BYTES)), here, 0
        if len(self._buffer) < length:  # the file shrank while we read
            raise BadFile("truncated: it became shorter while it was read")


def _scalar(kind: int) -> str:
    if kind not in _SCALARS:
        raise BadFile(f"damaged header: metadata of the unknown type {kind}")
    return _SCALARS[kind]
