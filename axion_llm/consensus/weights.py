"""What a calibration has found: accuracy of each expert and strategy by domain, and the weights that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from axion_llm.consensus.vote import log_odds_weight

OPEN_CHOICES = 10.0  # how many wrong answers a question without given choices is reckoned to have, plus the right one


@dataclass(frozen=True)
class Score:
    """Of one expert or strategy in one domain."""

    num_correct: float
    num_items: int
    low: float = 0.0  # 95% interval of the accuracy
    high: float = 1.0

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_items if self.num_items else 0.0


@dataclass(frozen=True)
class Weights:
    """`experts` and `strategies`: name -> domain -> score; the domain "all" sums them."""

    experts: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    strategies: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    def accuracy(self, expert: str, domain: str = "all") -> float | None:
        found = self.experts.get(expert, {})
        score = found.get(domain) or found.get("all")
        return score.accuracy if score else None

    def weight(self, expert: str, domain: str, num_choices: float = OPEN_CHOICES, prior: float = 1.0) -> float:
        """Log-odds of the domain's accuracy, or of all domains' together; `prior` for one that nobody measured."""
        found = self.experts.get(expert, {})
        score = found.get(domain) or found.get("all")
        return log_odds_weight(score.num_correct, score.num_items, num_choices) if score else prior

    def score(self, strategy: str, domain: str) -> Score | None:
        return self.strategies.get(strategy, {}).get(domain)
