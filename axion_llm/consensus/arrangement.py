"""How many experts compute at the same time: one after another, in halves, all together. Measured, not believed.

Decoding is bound by memory on most machines, so what is fastest depends on cores, bandwidth and models. Every run that
went to its end is a measurement; each way is tried twice, then the fastest is taken, and now and then another one is
tried again.
"""

from __future__ import annotations

from collections import deque
from statistics import median

KEPT = 5  # measurements of each way
TRIES = 2
MARGIN = 1.03
RECHECK = 32  # runs between two looks at a way that was slower


class Arrangement:
    """Seconds per token of each number of experts at a time, by how many there are."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, int], deque[float]] = {}
        self._num_runs = 0

    def choose(self, num_experts: int) -> int:
        ways = candidates(num_experts)
        self._num_runs += 1
        untried = [way for way in ways if len(self._seconds.get((num_experts, way), ())) < TRIES]
        if untried:
            return untried[0]
        fastest = min(self.seconds_per_token(num_experts, way) for way in ways)
        # Fewer at a time where it makes no difference: a vote may then be decided before the last one has begun.
        best = next(way for way in ways if self.seconds_per_token(num_experts, way) <= MARGIN * fastest)
        if self._num_runs % RECHECK == 0:
            others = [way for way in ways if way != best]
            return others[self._num_runs // RECHECK % len(others)] if others else best
        return best

    def observe(self, num_experts: int, way: int, num_tokens: int, seconds: float) -> None:
        if num_experts > 1 and num_tokens > 0 and seconds > 0:
            self._seconds.setdefault((num_experts, way), deque(maxlen=KEPT)).append(seconds / num_tokens)

    def seconds_per_token(self, num_experts: int, way: int) -> float:
        found = self._seconds.get((num_experts, way))
        return median(found) if found else float("inf")


def candidates(num_experts: int) -> list[int]:
    """Serial, halves, all: the numbers of experts at a time that are worth a try."""
    return sorted({1, (num_experts + 1) // 2, num_experts} if num_experts > 1 else {1})
