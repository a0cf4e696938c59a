"""The vote against closed forms: Condorcet, Poisson binomial, beta-binomial; and weights from measured accuracy."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.consensus import vote
from tests.consensus.closed_forms import majority_accuracy

NUM_ITEMS = 20_000


def accuracy_of_votes(weights: list[float], draw: random.Random, right: list[list[bool]]) -> float:
    """Share of items whose vote is right; each voter says "right", or one wrong answer that all wrong voters share."""
    shares = [vote.share(w, 1) for w in weights]
    num_right = 0
    for item in right:
        found = vote.tally((("right" if r else "wrong"), s) for r, s in zip(item, shares, strict=True))
        num_right += vote.leader(found) == "right"
    return num_right / len(right)


def independent(p: list[float], draw: random.Random) -> list[list[bool]]:
    return [[draw.random() < q for q in p] for _ in range(NUM_ITEMS)]


def within_three_errors(found: float, expected: float) -> bool:
    return abs(found - expected) <= 3 * math.sqrt(expected * (1 - expected) / NUM_ITEMS)


@pytest.mark.parametrize(
    ("p", "n", "expected"),
    [(0.6, 3, 0.6480), (0.6, 5, 0.6826), (0.6, 9, 0.7334), (0.4, 3, 0.3520), (0.4, 5, 0.3174), (0.4, 9, 0.2666)],
)
def test_majority_of_independent_voters(p: float, n: int, expected: float) -> None:
    assert majority_accuracy(p, n) == pytest.approx(expected, abs=5e-5)
    draw = random.Random(n)
    assert within_three_errors(accuracy_of_votes([1.0] * n, draw, independent([p] * n, draw)), expected)


@pytest.mark.parametrize(("n", "expected"), [(3, 0.6181), (5, 0.6255)])
def test_majority_of_correlated_voters(n: int, expected: float) -> None:
    """Accuracy 0.6 and correlation 0.3, by the beta-binomial: voting helps much less."""
    a, b = (x * (1 - 0.3) / 0.3 for x in (0.6, 0.4))

    def beta(x: float, y: float) -> float:
        return math.exp(math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y))

    exact = sum(math.comb(n, k) * beta(k + a, n - k + b) / beta(a, b) for k in range(n // 2 + 1, n + 1))
    assert exact == pytest.approx(expected, abs=6e-4)
    draw = random.Random(n)
    items = []
    for _ in range(NUM_ITEMS):
        q = draw.betavariate(a, b)
        items.append([draw.random() < q for _ in range(n)])
    assert within_three_errors(accuracy_of_votes([1.0] * n, draw, items), exact)


def test_weighted_votes_against_the_poisson_binomial() -> None:
    accuracies = [0.75, 0.7, 0.65, 0.6, 0.55]
    weights = [math.log(p / (1 - p)) for p in accuracies]
    shares = [vote.share(w, 1) for w in weights]
    exact = 0.0
    for outcome in itertools.product([True, False], repeat=len(accuracies)):
        probability = math.prod(p if r else 1 - p for p, r in zip(accuracies, outcome, strict=True))
        lead = sum(s if r else -s for s, r in zip(shares, outcome, strict=True))
        exact += probability * (lead > 0)
    draw = random.Random(3)
    assert within_three_errors(accuracy_of_votes(weights, draw, independent(accuracies, draw)), exact)
    assert exact > max(accuracies), "weighted by log-odds, the vote beats its best member"
    unweighted = accuracy_of_votes([1.0] * 5, draw, independent(accuracies, draw))
    assert exact > unweighted


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5)), min_size=1, max_size=6))
def test_decided_means_the_same_as_waiting(ballots: list[tuple[str, int]]) -> None:
    """However the outstanding voters vote, or stay silent, what is called decided wins. Exhaustive for each draw."""
    for num_in in range(len(ballots)):
        inside, outside = ballots[:num_in], ballots[num_in:]
        early = vote.decided(vote.tally(inside), sum(w for _, w in outside))
        if early is None:
            continue
        for answers in itertools.product("abcd", repeat=len(outside)):
            late = [(key, w) for key, (_, w) in zip(answers, outside, strict=True) if key != "d"]
            assert vote.leader(vote.tally([*inside, *late])) == early


def test_a_tie_is_never_decided_early() -> None:
    assert vote.decided({"a": 2}, 2) is None
    assert vote.decided({"a": 3, "b": 1}, 2) is None
    assert vote.decided({"a": 3}, 2) == "a"
    assert vote.decided({}, 0) is None


def test_weights() -> None:
    assert vote.log_odds_weight(0, 0, 4) == pytest.approx(1.0), "nobody measured: neutral"
    assert vote.log_odds_weight(900, 1000, 2) == pytest.approx(math.log(9), rel=0.05)
    assert vote.log_odds_weight(1000, 1000, 10) == vote.HIGHEST_WEIGHT
    assert vote.log_odds_weight(0, 1000, 2) == vote.LOWEST_WEIGHT, "weighed, not deleted"
    assert 1 < vote.log_odds_weight(3, 3, 4) < 1.6, "three items make no oracle"


@given(st.integers(0, 50), st.integers(1, 50), st.integers(2, 20))
def test_more_right_answers_never_weigh_less(correct: int, more: int, choices: int) -> None:
    items = correct + more
    assert vote.log_odds_weight(correct, items, choices) <= vote.log_odds_weight(correct + 1, items, choices)


@given(st.floats(0.1, 3), st.integers(1, 16))
def test_samples_of_an_expert_share_its_weight(weight: float, n: int) -> None:
    assert abs(n * vote.share(weight, n) - weight * vote.UNIT) <= n
