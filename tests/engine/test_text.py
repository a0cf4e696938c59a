"""Text leaves in whole characters, and no part of a stop string ever does."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from axion_llm.engine.text import TextStream


def stream(pieces: list[bytes], stop: list[str]) -> tuple[list[str], str | None]:
    text = TextStream(stop)
    shown = []
    for piece in pieces:
        shown.append(text.feed(piece))
        if text.stopped is not None:
            return shown, text.stopped
    return [*shown, text.finish()], None


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def test_a_character_split_over_tokens_is_held_until_it_is_whole() -> None:
    euro = "€".encode()
    text = TextStream([])
    assert [text.feed(euro[:1]), text.feed(euro[1:2]), text.feed(euro[2:])] == ["", "", "€"]


def test_a_character_that_never_ends_becomes_one_replacement() -> None:
    text = TextStream([])
    assert text.feed("€".encode()[:2]) == ""
    assert text.finish() == "\ufffd"


def test_a_stop_string_that_straddles_tokens_is_not_shown() -> None:
    assert stream([b"one ST", b"O", b"P two"], ["STOP"]) == (["one ", "", ""], "STOP")


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    assert stream([b"ST", b"ART"], ["STOP"]) == (["", "START", ""], None)


def test_the_earliest_stop_string_wins_and_of_two_at_one_place_the_longer() -> None:
    assert stream([b"abcdef"], ["e", "cd", "c"]) == (["ab"], "cd")


def test_a_held_beginning_is_shown_when_the_sequence_ends() -> None:
    assert stream([b"tail ST"], ["STOP"]) == (["tail ", "ST"], None)


@given(st.text(max_size=60), st.lists(st.integers(0, 200), max_size=12))
def test_without_stops_any_cutting_gives_the_same_text(text: str, cuts: list[int]) -> None:
    shown, stopped = stream(cut(text.encode(), cuts), [])
    assert ("".join(shown), stopped) == (text, None)


@given(
    st.text("abé€", max_size=40),
    st.lists(st.text("abé€", min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.integers(0, 200), max_size=12),
)
def test_with_stops_the_text_ends_before_the_first_one_however_it_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    shown, stopped = stream(cut(text.encode(), cuts), stops)
    joined = "".join(shown)
    assert not any(s in joined for s in stops)
    assert text.startswith(joined)
    if stopped is None:
        assert joined == text
    else:
        assert text.startswith(joined + stopped)
