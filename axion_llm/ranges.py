"""The numbers that say how tokens are drawn: what each may be. One table for requests and for models.toml.

Sampling computes in 32-bit floats. What is in a range here stays far from their ends whatever the logits are: a penalty
of 1e-300 would be a division by zero there, and the draw one among numbers that are none.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    low: float
    high: float
    zero_below: float = 0.0  # so near to zero that it means zero

    def settle(self, value: float) -> float:
        return 0.0 if 0 < value < self.zero_below else value


# Two different logits of a usual size (some tens) differ by a millionth at least: below a tenth of that a temperature
# leaves only the largest.
SAMPLING = {
    "temperature": Range(0, 2, zero_below=1e-7),
    "top_p": Range(0, 1),
    "min_p": Range(0, 1, zero_below=1e-30),  # below every probability that is not zero: off
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "repeat_penalty": Range(0.01, 10),
    "logit_bias": Range(-100, 100),
}
