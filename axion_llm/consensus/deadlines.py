"""Which attempts are too late, and when to look again. Pure: the clock is handed in.

A cold model's load counts against the request's deadline, not against the expert's own. Once a quorum has answered the
others have a window of patience, from then or from their own start: long enough for one that is slower, not for one
that hangs.
"""

from __future__ import annotations

from collections.abc import Sequence

from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.plan import Plan

SHORTEST_PATIENCE = 2.0  # seconds, where it is derived from how long the others took
PATIENCE_FACTOR = 1.5


def overdue(plan: Plan, attempts: Sequence[Attempt], now: float) -> list[Attempt]:
    quorum = _quorum(plan, attempts)
    return [a for a in attempts if a.is_live and _due(plan, a, quorum) <= now]


def next_check(plan: Plan, attempts: Sequence[Attempt]) -> float:
    """When the next live attempt becomes overdue if nothing happens; the request's own deadline at the latest."""
    quorum = _quorum(plan, attempts)
    return min([_due(plan, a, quorum) for a in attempts if a.is_live], default=plan.limits.deadline)


def _due(plan: Plan, attempt: Attempt, quorum: tuple[float, float] | None) -> float:
    limits = plan.limits
    due = limits.experts_deadline
    if attempt.started is not None:
        due = min(due, attempt.started + limits.total.get(attempt.expert, due))
        if attempt.first_token is None:
            due = min(due, attempt.started + limits.first_token.get(attempt.expert, due))
    if quorum is not None and attempt.asked is not None:
        reached, slowest = quorum
        patience = limits.patience
        if patience is None:
            patience = max(SHORTEST_PATIENCE, PATIENCE_FACTOR * slowest)
        # From its own start where it starts later: in a wave, or after a load.
        due = min(due, max(reached, attempt.started or attempt.asked) + patience)
    return due


def _quorum(plan: Plan, attempts: Sequence[Attempt]) -> tuple[float, float] | None:
    """When it was reached, and how long the slowest of it took; None while it is not, or where there is no rest."""
    if plan.method == "route":
        return None
    done = sorted((a for a in attempts if a.is_ok), key=lambda a: a.ended or 0.0)
    if len(done) < plan.min_successful:
        return None
    quorum = done[: plan.min_successful]
    spans = [(a.ended or 0.0) - (a.started or 0.0) for a in quorum]
    return max(a.ended or 0.0 for a in quorum), max(spans)
