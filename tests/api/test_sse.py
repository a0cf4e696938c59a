"""Frames hold for any text, also for clients that know more line ends than the standard has."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from axion_llm.api.sse import event, json_line

TEXT = st.text(st.characters(codec="utf-8"))


@given(TEXT)
@example("a\u2028b\u2029c\x85d\r\ne\x0b\x0c\x1c\x1d\x1e")
def test_one_line_whatever_is_in_it(text: str) -> None:
    line = json_line({text: [text]})
    assert json.loads(line) == {text: [text]}
    assert len(f"x{line.decode()}x".splitlines()) == 1


@given(TEXT)
def test_an_event_is_a_line_and_an_empty_one(text: str) -> None:
    prefix, _, rest = event(text).partition(b": ")
    assert (prefix, rest[-2:]) == (b"data", b"\n\n")
    assert json.loads(rest) == text
