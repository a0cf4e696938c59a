"""The arithmetic of a vote: weights from measured accuracy, the tally, and when it is decided.

Weights are whole numbers of micro-units, so that sums are exact and "decided" means the same before and after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

UNIT = 1_000_000
LOWEST_WEIGHT, HIGHEST_WEIGHT = 0.1, 3.0  # a dissenter is weighed, never deleted, and nobody is a dictator
PRIOR_ITEMS = 10.0  # how many items' worth of doubt a measured accuracy is mixed with


def log_odds_weight(num_correct: float, num_items: float, num_choices: float) -> float:
    """ln(p (K-1) / (1-p)) of a shrunk accuracy p, capped; 1 for an expert nobody has measured.

    It is the weight of the optimal vote when experts err independently and a wrong answer is one of K - 1 (Nitzan and
    Paroush 1982). Shrunk towards the accuracy whose weight is 1, so that three items do not make an oracle.
    """
    others = max(num_choices - 1, 1.0)
    prior = math.e / (math.e + others)
    p = (num_correct + PRIOR_ITEMS * prior) / (num_items + PRIOR_ITEMS)
    p = min(max(p, 1e-6), 1 - 1e-6)
    return min(max(math.log(p * others / (1 - p)), LOWEST_WEIGHT), HIGHEST_WEIGHT)


def share(weight: float, num_samples: int) -> int:
    """The weight of one of an expert's samples. Samples that agree add up: weight times confidence in the question."""
    return max(1, round(weight * UNIT / num_samples))


def tally(votes: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Weight of each answer, in the order of their first votes."""
    found: dict[str, int] = {}
    for key, weight in votes:
        found[key] = found.get(key, 0) + weight
    return found


def leader(found: Mapping[str, int]) -> str | None:
    """The heaviest; of equal ones the first."""
    return max(found, key=lambda key: found[key], default=None)


def decided(found: Mapping[str, int], outstanding: int) -> str | None:
    """The answer that wins whatever the outstanding votes say or do not say; None while that is open."""
    first = leader(found)
    if first is None:
        return None
    second = max((weight for key, weight in found.items() if key != first), default=0)
    return first if found[first] - second > outstanding else None


def agreement(found: Mapping[str, int], key: str) -> float:
    """The answer's share of all votes. Models agree more often than they are right: never call it confidence."""
    total = sum(found.values())
    return found[key] / total if total else 0.0
