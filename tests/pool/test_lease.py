"""A request survives its worker: what comes again is left out, whatever the pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.errors import WorkerDied
from axion_llm.pool.lease import Sent
from axion_llm.worker.messages import Accepted, Event, Finished, Piece, TokenLogprob

TEXT = "The quick brown fox jumps over the lazy dog."


def told(text: str, cuts: list[int]) -> list[Event]:
    """The events of a whole answer in which each character is a token, in pieces that end at `cuts`."""
    ends = sorted({min(cut, len(text)) for cut in cuts} - {0, len(text)})
    pieces = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    logprobs = [[TokenLogprob(ord(c), c.encode(), -1.0) for c in piece] for piece in pieces]
    return [
        Accepted("r", 5),
        *(Piece("r", p, len(p), lp) for p, lp in zip(pieces[:-1], logprobs[:-1], strict=True)),
        Finished("r", "stop", pieces[-1], 5, len(text), 0, logprobs[-1]),
    ]


@given(
    st.lists(st.lists(st.integers(1, 50)), min_size=1, max_size=4),
    st.lists(st.integers(0, 50), min_size=3, max_size=3),
)
def test_a_request_that_is_computed_again_gives_the_text_once(lives: list[list[int]], deaths: list[int]) -> None:
    sent, got = Sent(), []
    for cuts, death in zip(lives[:-1], deaths, strict=False):
        got += [sent.unsent(event) for event in told(TEXT, cuts)[:-1][:death]]
        sent.start_again()
    got += [sent.unsent(event) for event in told(TEXT, lives[-1])]
    events = [event for event in got if event is not None]
    assert [type(e) for e in events].count(Accepted) == 1 and isinstance(events[-1], Finished)
    pieces = [e for e in events if isinstance(e, Piece | Finished)]
    assert "".join(e.text for e in pieces) == TEXT
    assert b"".join(lp.piece for e in pieces for lp in e.logprobs).decode() == TEXT
    assert all(e.text or e.num_tokens for e in events if isinstance(e, Piece))


def test_a_model_that_says_something_else_is_an_error() -> None:
    sent = Sent()
    sent.unsent(Piece("r", "The quick", 2))
    sent.start_again()
    assert sent.unsent(Piece("r", "The ", 1)) is None
    with pytest.raises(WorkerDied, match="something else"):
        sent.unsent(Piece("r", "lazy", 1))
