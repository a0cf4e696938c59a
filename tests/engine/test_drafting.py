"""Guesses: what followed last time, of a length that pays, and none while they do not."""

from axion_llm.engine.drafting import MOST_DRAFTED, NGRAMS, PAUSE, SHORTEST, TRIALS, Drafter


def drafter(*tokens: int) -> Drafter:
    made = Drafter()
    made.extend(list(tokens))
    return made


def test_guesses_what_followed_these_tokens_the_last_time() -> None:
    assert drafter(1, 2, 3, 4, 5, 6, 9, 1, 2, 3, 4).propose(3) == [5, 6, 9]
    assert drafter(1, 2, 3, 1, 2, 4, 1, 2).propose(1) == [4], "the newest of several"


def test_a_longer_agreement_is_believed_first() -> None:
    short, long = sorted(NGRAMS)
    assert (short, long) == (2, 4)
    assert drafter(1, 2, 3, 4, 7, 9, 3, 4, 8, 9, 1, 2, 3, 4).propose(1) == [7]


def test_says_nothing_about_what_it_has_not_seen() -> None:
    assert drafter(1, 2, 3, 4, 5).propose(5) == []
    assert drafter().propose(5) == []


def test_never_more_than_asked_for() -> None:
    assert drafter(*range(20), 0, 1).propose(2) == [2, 3]


def test_guesses_shrink_after_a_wrong_one_and_grow_after_right_ones() -> None:
    text = drafter(*range(50), 0, 1)
    assert len(text.propose(50)) == MOST_DRAFTED
    text.report(MOST_DRAFTED, 0)
    assert len(text.propose(50)) == SHORTEST
    text.report(SHORTEST, SHORTEST)
    assert SHORTEST < len(text.propose(50)) <= MOST_DRAFTED


def test_pauses_when_guessing_does_not_pay() -> None:
    text = drafter(*range(50), 0, 1)
    for _ in range(TRIALS):
        assert text.propose(50)
        text.report(SHORTEST, 0)
    assert text.propose(50) == []
    text.extend([*range(100, 100 + PAUSE), 0, 1])
    assert text.propose(50)
