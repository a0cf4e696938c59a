"""What voting gives by theory."""

from __future__ import annotations

import math


def majority_accuracy(p: float, num_voters: int) -> float:
    """Condorcet: how often the majority of an odd number of independent voters of accuracy p is right (2 answers)."""
    needed = num_voters // 2 + 1
    return sum(math.comb(num_voters, k) * p**k * (1 - p) ** (num_voters - k) for k in range(needed, num_voters + 1))
