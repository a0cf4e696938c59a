"""From collected answers to scores: every expert's accuracy, and what each strategy would have made of them.

Strategies are compared on identical expert answers, item by item: a difference is the strategy's, not the draw's.
Strategies are compared on identical expert answers, item by item: a difference is the strategy's, not chance's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from axion_llm.consensus import vote
from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.extract import ballot
from axion_llm.consensus.items import Item
from axion_llm.consensus.plan import Limits, Method, Plan, Slot
from axion_llm.consensus.strategies import Choose, Wait, decide
from axion_llm.consensus.weights import OPEN_CHOICES, Score, Weights

Z = 1.96
_LIMITS = Limits(1.0, 1.0, None)


@dataclass(frozen=True)
class Collected:
    """All answers to one item: samples of each expert, the first of them the one that a single call would give."""

    item: Item
    answers: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Compared:
    """A strategy against the best single expert on the same items."""

    name: str
    score: Score
    num_gained: int  # right where the best expert was wrong
    num_lost: int
    p_value: float  # exact McNemar
    calls: float  # of experts, on average


def wilson(num_correct: float, num_items: int) -> Score:
    """With its 95% interval (Wilson 1927), which is honest also for few items and for accuracies near 0 and 1."""
    if num_items == 0:
        return Score(0, 0)
    p, n = num_correct / num_items, num_items
    centre, width = p + Z * Z / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    return Score(num_correct, num_items, max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale))


def expert_scores(collected: Sequence[Collected]) -> dict[str, dict[str, Score]]:
    """Accuracy of a single sample, by domain and for "all"; samples count as parts of their item."""
    sums: dict[str, dict[str, list[float]]] = {}
    for one in collected:
        for expert, texts in one.answers.items():
            share = sum(one.item.is_right(text) for text in texts) / len(texts) if texts else 0.0
            for domain in (one.item.domain, "all"):
                sums.setdefault(expert, {}).setdefault(domain, []).append(share)
    return {e: {d: wilson(sum(v), len(v)) for d, v in by_domain.items()} for e, by_domain in sums.items()}


def compare(collected: Sequence[Collected]) -> tuple[str, list[Compared]]:
    """The best single expert, and every strategy that needs no further call against it, and itself."""
    scores = expert_scores(collected)
    best = max(scores, key=lambda expert: scores[expert]["all"].accuracy)
    halves = collected[::2], collected[1::2]
    weights = [Weights(expert_scores(half)) for half in halves]
    base = [one.item.is_right(_first(one, best)) for one in collected]
    rows = [Compared(best, wilson(sum(base), len(base)), 0, 0, 1.0, 1.0)]
    for method in _methods(collected):
        found = [_answer(method, one, best, weights[1 - i % 2]) for i, one in enumerate(collected)]
        right = [one.item.is_right(text) for one, (text, _) in zip(collected, found, strict=True)]
        rows.append(_row(method, right, base, [calls for _, calls in found]))
    return best, rows


def _methods(collected: Sequence[Collected]) -> list[Method]:
    has_several = any(len(one.answers) > 1 for one in collected)
    has_samples = any(len(texts) > 1 for one in collected for texts in one.answers.values())
    methods: list[Method] = ["vote", "cascade"] if has_several else []
    return [*methods, "self"] if has_samples else methods


def _first(one: Collected, expert: str) -> str:
    return next(iter(one.answers.get(expert, ())), "")


def _row(name: str, right: list[bool], base: list[bool], calls: list[int]) -> Compared:
    gained = sum(r and not b for r, b in zip(right, base, strict=True))
    lost = sum(b and not r for r, b in zip(right, base, strict=True))
    mean_calls = sum(calls) / len(calls) if calls else 0.0
    return Compared(name, wilson(sum(right), len(right)), gained, lost, mcnemar(gained, lost), mean_calls)


def mcnemar(num_gained: int, num_lost: int) -> float:
    """Two-sided exact p of so uneven a split, if gains and losses were equally likely."""
    n, fewer = num_gained + num_lost, min(num_gained, num_lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n) if n else 1.0


# ---- self-consistency, foretold


@dataclass(frozen=True)
class Foretold:
    """What a plurality of samples makes of one expert: foretold from one half of its samples, seen on the other."""

    expert: str
    single: float  # accuracy of one sample, second half
    foretold: float
    seen: float
    num_gained: int  # items where the plurality is right and the half's first sample is not
    num_lost: int
    num_open: int  # items whose accuracy lies between 0.2 and 0.8: on the others a vote changes nothing


NUM_DRAWS = 200


def foretell(collected: Sequence[Collected], expert: str) -> Foretold:
    """Needs four samples or more of each item; half of them vote."""
    draw = random.Random(0)
    foretold, seen, single, gained, lost, num_open = 0.0, 0, 0.0, 0, 0, 0
    for one in collected:
        keys = [one.item.key_of(text) for text in one.answers[expert]]
        half = len(keys) // 2
        first, second = keys[:half], keys[half : 2 * half]
        share = first.count(one.item.key) / half
        num_open += 0.2 <= share <= 0.8
        foretold += sum(_plurality(draw.choices(first, k=half)) == one.item.key for _ in range(NUM_DRAWS)) / NUM_DRAWS
        is_right, alone = _plurality(second) == one.item.key, second[0] == one.item.key
        seen, gained, lost = seen + is_right, gained + (is_right and not alone), lost + (alone and not is_right)
        single += second.count(one.item.key) / half
    n = len(collected)
    return Foretold(expert, single / n, foretold / n, seen / n, gained, lost, num_open)


def _plurality(keys: Sequence[str | None]) -> str | None:
    return vote.leader(vote.tally((key, 1) for key in keys if key is not None))


# ---- a strategy over answers that are there already


def _answer(method: Method, one: Collected, best: str, weights: Weights) -> tuple[str, int]:
    """Its text, and how many calls it would have made."""
    texts, plan = _plan(method, one, best, weights)
    attempts = plan.attempts()
    num_calls = 0
    while True:
        decision = decide(plan, attempts)
        if not isinstance(decision, Wait):
            break
        live = [a for a in attempts if a.is_live and a.stage <= decision.stage]
        for attempt in live[:1]:
            _answered(plan, attempt, texts[attempt.index])
            num_calls += 1
    chosen = decision.index if isinstance(decision, Choose) else 0
    return (texts[chosen] if texts else ""), num_calls


def _answered(plan: Plan, attempt: Attempt, text: str) -> None:
    attempt.texts, attempt.status = [text], "ok" if text.strip() else "blank"
    attempt.ballot = ballot(plan.question, text)


def _plan(method: Method, one: Collected, best: str, weights: Weights) -> tuple[list[str], Plan]:
    texts: list[str] = []
    slots: list[Slot] = []
    answers = {best: one.answers.get(best, ())} if method == "self" else one.answers
    for stage, (expert, samples) in enumerate(answers.items()):
        used = samples if method == "self" else samples[:1]
        weight = weights.weight(expert, one.item.domain, len(one.item.question.choices) or OPEN_CHOICES)
        for i, text in enumerate(used):
            texts.append(text)
            slots.append(Slot(expert, i, vote.share(weight, len(used)), stage if method == "cascade" else 0))
    return texts, Plan(method, tuple(slots), _LIMITS, question=one.item.question)
