"""A model's text, piece by piece -> what it says and the tools it calls. Any cut of the text gives the same.

Calls are read character by character, so that a name is known and arguments flow before the call has ended. What only
looks like a call (broken JSON, a tool that was not offered) stays text.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from axion_llm.api.tools.form import Form

NAME_KEYS = frozenset(["name", "tool_name"])
ARGUMENT_KEYS = frozenset(["arguments", "parameters", "args"])
_BARE = re.compile(r"\s*(?:```\w*\s*)?(?=[{\[])")  # a text that begins as JSON, fenced or not
_PERHAPS_BARE = re.compile(r"\s*(?:`{0,3}|```\w*\s*)")
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class Said:
    text: str


@dataclass(frozen=True)
class Called:
    """A part of a call: the first has `id` and `name`, all of one call have its index."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


Delta = Said | Called
_Reading = Generator[None, None, None]


class _NotACall(Exception):
    pass


class ToolParser:
    """Of one choice. `feed` every piece of text, `finish` once; each returns what is new.

    `names`: the tools that may be called. `max_calls`: others behind them are dropped.
    """

    def __init__(self, form: Form, names: frozenset[str], *, max_calls: int | None = None) -> None:
        self._form = form
        self._names = names
        self._max_calls = max_calls
        self.num_calls = 0
        self._text = ""  # not decided yet
        self._at = 0  # of it, that the reading below has seen
        self._reading: _Reading | None = None
        self._opener = ""
        self._is_bare = False  # it had no trigger
        self._num_before = 0  # calls before the block that is being read
        self._is_start = True  # nothing was said before
        self._space = ""  # at the end of what was said: only shown when more is said
        self._out: list[Delta] = []
        self._arguments = ""  # of the current call, not sent yet
        openers = sorted({form.trigger, *form.openers} - {""})
        self._openers = re.compile("|".join(map(re.escape, openers))) if openers else None
        self._beginnings = {opener[:size] for opener in openers for size in range(1, len(opener))}

    def feed(self, text: str) -> list[Delta]:
        self._text += text
        while self._advance():
            pass
        return self._take()

    def finish(self) -> list[Delta]:
        """The text has ended."""
        if self._reading and self._is_undecided:
            self._give_up(rescan=False)
        elif not self._reading:
            self._say(self._text)
        if not self.num_calls:
            self._out += [Said(self._space)] if self._space else []
        return self._take()

    def _take(self) -> list[Delta]:
        self._flush_arguments()
        out, self._out = self._out, []
        return out

    # ---- text

    def _advance(self) -> bool:
        """Go on as far as the text allows; False when it takes more text."""
        if self._reading is None:
            return self._look_for_calls()
        try:
            next(self._reading)
        except StopIteration:
            self._text, self._at, self._reading = self._text[self._at :], 0, None
            return bool(self._text)
        except _NotACall:
            self._give_up(rescan=True)
            return bool(self._text)
        return False

    def _look_for_calls(self) -> bool:
        bare = self._bare()
        found = bare or (self._openers.search(self._text) if self._openers else None)
        if found:
            self._is_bare = bare is not None
            self._say(self._text[: found.start()])
            self._opener = found.group()
            self._text, self._at, self._num_before = self._text[found.end() :], 0, self.num_calls
            self._reading = self._block()
            return True
        if self._form.allows_bare and self._is_start and _PERHAPS_BARE.fullmatch(self._text):
            return False
        keep = next((n for n in range(self._longest, 0, -1) if self._text[-n:] in self._beginnings), 0)
        cut = len(self._text) - keep
        self._say(self._text[:cut])
        self._text = self._text[cut:]
        return False

    @property
    def _longest(self) -> int:
        return min(len(self._text), max(map(len, self._beginnings), default=0))

    def _bare(self) -> re.Match[str] | None:
        return _BARE.match(self._text) if self._form.allows_bare and self._is_start else None

    def _say(self, text: str) -> None:
        text = self._space + text
        said = text.rstrip(_SPACE)
        self._space = text[len(said) :]
        if said:
            self._is_start = False
            self._out.append(Said(said))

    @property
    def _is_undecided(self) -> bool:
        return self.num_calls == self._num_before

    def _give_up(self, *, rescan: bool) -> None:
        """No call after all: what was read is text, and is looked through again behind its opener."""
        self._reading = None
        self._flush_arguments()
        if self._is_undecided:
            said = self._opener if rescan else self._opener + self._text
            self._text = self._text if rescan else ""
            self._is_start = False
            self._say(said)
        else:
            self._text = self._text[self._at :]
        self._at = 0

    # ---- calls: each of these reads on, and yields when it has come to the end of the text

    def _peek(self) -> Generator[None, None, str]:
        while self._at >= len(self._text):
            yield
        return self._text[self._at]

    def _skip_space(self) -> Generator[None, None, str]:
        while (char := (yield from self._peek())) in _SPACE:
            self._at += 1
        return char

    def _expect(self, chars: str) -> Generator[None, None, str]:
        char = yield from self._skip_space()
        if char not in chars:
            raise _NotACall
        self._at += 1
        return char

    def _block(self) -> _Reading:
        """What follows an opener: an array of calls, or calls one behind the other."""
        yield from self._skip_fence()
        char = yield from self._expect("[{")
        if char == "{":
            yield from self._call()
        else:
            while True:
                yield from self._expect("{")
                yield from self._call()
                if (yield from self._expect(",]")) == "]":
                    break
        self._space = ""
        yield from self._skip_closers()
        self._is_start = self._is_bare  # one bare call may follow another

    def _skip_fence(self) -> _Reading:
        """Perhaps ```json."""
        if (yield from self._skip_space()) != "`":
            return
        while (yield from self._peek()) == "`":
            self._at += 1
        while (yield from self._peek()).isalpha():
            self._at += 1

    def _skip_closers(self) -> _Reading:
        left = set(self._form.closers)
        while left:
            start = self._at
            yield from self._skip_space()
            closer = yield from self._match(left)
            if closer is None:
                self._at = start
                return
            left.discard(closer)

    def _match(self, words: set[str]) -> Generator[None, None, str | None]:
        read = ""
        while True:
            read += yield from self._peek()
            self._at += 1
            if read in words:
                return read
            if not any(word.startswith(read) for word in words):
                return None

    def _call(self) -> _Reading:
        """The inside of a call's object, behind its brace."""
        call = _OpenCall()
        yield from self._members(call)
        if call.name is None:
            raise _NotACall
        if not call.is_sent:
            self._begin(call)
            self._arguments += call.arguments or "{}"
        self._flush_arguments()

    def _members(self, call: _OpenCall) -> _Reading:
        if (yield from self._skip_space()) == "}":
            self._at += 1
            return
        while True:
            yield from self._expect('"')
            key = yield from self._string()
            yield from self._expect(":")
            yield from self._member(call, key)
            if (yield from self._expect(",}")) == "}":
                return

    def _member(self, call: _OpenCall, key: str) -> _Reading:
        first = yield from self._skip_space()
        if key in NAME_KEYS and call.name is None:
            yield from self._expect('"')
            call.name = yield from self._string()
            if call.name not in self._names:
                raise _NotACall
        elif key == "function" and first == "{":
            self._at += 1
            yield from self._members(call)
        elif key in ARGUMENT_KEYS and not call.is_sent and call.arguments is None:
            yield from self._read_arguments(call, first)
        else:
            yield from self._value(first, shows=False)

    def _read_arguments(self, call: _OpenCall, first: str) -> _Reading:
        start = self._at
        if first == '"':  # JSON in a string
            self._at += 1
            call.arguments = yield from self._string()
        elif first != "{":
            yield from self._value(first, shows=False)
            call.arguments = "{}" if self._text[start : self._at] == "null" else None
        elif call.name is None:
            yield from self._value(first, shows=False)
            call.arguments = self._text[start : self._at]
        else:
            self._begin(call)
            yield from self._value(first, shows=True)

    def _begin(self, call: _OpenCall) -> None:
        call.is_sent = True
        self._flush_arguments()
        self.num_calls += 1
        if self._is_wanted:
            self._out.append(Called(self.num_calls - 1, "", f"call_{uuid.uuid4().hex[:24]}", call.name))

    @property
    def _is_wanted(self) -> bool:
        return self._max_calls is None or self.num_calls <= self._max_calls

    def _flush_arguments(self) -> None:
        if self._arguments and self._is_wanted:
            self._out.append(Called(self.num_calls - 1, self._arguments))
        self._arguments = ""

    # ---- JSON

    def _string(self) -> Generator[None, None, str]:
        """The value of a string, behind its quotation mark."""
        start = self._at
        yield from self._skip_string(shows=False)
        try:
            value: str = json.loads('"' + self._text[start : self._at], strict=False)
        except ValueError:
            raise _NotACall from None
        return value

    def _skip_string(self, *, shows: bool) -> _Reading:
        while True:
            char = yield from self._peek()
            self._pass(char, shows)
            if char == '"':
                return
            if char == "\\":
                self._pass((yield from self._peek()), shows)

    def _pass(self, char: str, shows: bool) -> None:
        self._at += 1
        if shows:
            self._arguments += char

    def _value(self, first: str, *, shows: bool) -> _Reading:
        """Any value; braces and strings have to match, the rest is the client's to judge."""
        if first == '"':
            self._pass(first, shows)
            return (yield from self._skip_string(shows=shows))
        if first not in "{[":
            while (yield from self._peek()) not in ",}]" + _SPACE:
                self._pass(self._text[self._at], shows)
            return None
        depth = 0
        while True:
            char = yield from self._peek()
            self._pass(char, shows)
            if char == '"':
                yield from self._skip_string(shows=shows)
            depth += (char in "{[") - (char in "}]")
            if not depth:
                return None


@dataclass
class _OpenCall:
    name: str | None = None
    arguments: str | None = None  # that came before the name
    is_sent: bool = False


def parse(parser: ToolParser, text: str) -> Iterator[Delta]:
    """A text as a whole."""
    yield from parser.feed(text)
    yield from parser.finish()
