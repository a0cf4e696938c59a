"""What to do next, from how far every attempt is: pure functions, one for each way of deciding.

Each gets the plan and the attempts in order, and returns a decision; the orchestrator carries it out and asks again
when something has changed. Timing is not their business: deadlines.py turns what is late into an ended attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from axion_llm.consensus import vote
from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.plan import Method, Plan

CASCADE_AGREEMENT = 0.75  # of the votes so far, for which no further expert is asked
TYPED_SHARE = 0.5  # of the answers, at least, that must come down to something, else they are prose


@dataclass(frozen=True)
class Wait:
    """For what runs; attempts up to this stage may start."""

    stage: int = 0


@dataclass(frozen=True)
class Choose:
    """This attempt's answer is the answer."""

    index: int
    by: str
    agreement: float | None = None
    is_early: bool = False


@dataclass(frozen=True)
class Compare:
    """These are prose: find the one in their middle (needs embeddings, so it is not done here)."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class Combine:
    """Let an aggregator write the answer from these."""

    indices: tuple[int, ...]


@dataclass(frozen=True)
class GiveUp:
    """Fewer answers than were asked for, and no leave to take the best of them."""

    num_successful: int


Decision = Wait | Choose | Compare | Combine | GiveUp


def decide(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    return _DECIDERS[plan.method](plan, attempts)


def succeeded(attempts: Sequence[Attempt]) -> list[Attempt]:
    return [a for a in attempts if a.is_ok]


def votes(attempts: Sequence[Attempt]) -> dict[str, int]:
    """In the order of the plan, so that a tie does not depend on who was faster."""
    return vote.tally((a.ballot.key, a.weight) for a in attempts if a.is_ok and a.ballot)


def representative(attempts: Sequence[Attempt], key: str) -> Attempt:
    """Of those that gave the winning answer the heaviest, of equal ones the first planned: its words are shown."""
    supporters = [a for a in attempts if a.is_ok and a.ballot and a.ballot.key == key]
    return max(supporters, key=lambda a: (a.weight, -a.index))


# ---- the ways


def _route(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    for attempt in attempts:
        if attempt.is_ok:
            return Choose(attempt.index, "route")
        if attempt.is_live:
            return Wait(attempt.stage)
    return _without_quorum(plan, attempts)


def _vote(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    if early := _decided_early(plan, attempts):
        return early
    if live := [a.stage for a in attempts if a.is_live]:
        return Wait(min(live))  # samples come in windows: no further one before the last one has ended
    return _conclude(plan, attempts)


def _cascade(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    """Stage by stage; the next one only while the ones before do not agree enough."""
    if not plan.early_stop:
        return _vote(plan, attempts)
    if early := _decided_early(plan, attempts):
        return early
    stages = sorted({a.stage for a in attempts})
    for stage in stages:
        so_far = [a for a in attempts if a.stage <= stage]
        if any(a.is_live for a in so_far):
            return Wait(stage)
        if len(succeeded(so_far)) >= plan.min_successful and (settled := _settled(so_far)):
            index, share = settled
            return Choose(index, "cascade", share, is_early=stage != stages[-1])
    return _conclude(plan, attempts)


def _settled(attempts: Sequence[Attempt]) -> tuple[int, float] | None:
    """Enough of the votes are for one answer. One voice alone agrees with nobody."""
    found = votes(attempts)
    key = vote.leader(found)
    if key is None or len(succeeded(attempts)) < 2 or not _is_typed(attempts):
        return None
    share = vote.agreement(found, key)
    return (representative(attempts, key).index, share) if share >= CASCADE_AGREEMENT else None


def _synthesize(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    if any(a.is_live for a in attempts):
        return Wait()
    done = succeeded(attempts)
    if len(done) < max(2, plan.min_successful):
        return _conclude(plan, attempts)
    return Combine(tuple(a.index for a in done))


_DECIDERS: dict[Method, Callable[[Plan, Sequence[Attempt]], Decision]] = {
    "route": _route,
    "cascade": _cascade,
    "vote": _vote,
    "self": _vote,
    "best_of": _vote,
    "synthesize": _synthesize,
}


# ---- what they share


def _decided_early(plan: Plan, attempts: Sequence[Attempt]) -> Choose | None:
    """The result of the full vote, known before its end: the lead exceeds all weight that is still out."""
    done = succeeded(attempts)
    outstanding = sum(a.weight for a in attempts if a.is_live)
    if not plan.early_stop or not outstanding or len(done) < plan.min_successful or plan.question.kind == "prose":
        return None
    found = votes(attempts)
    key = vote.decided(found, outstanding)
    if key is None or not _stays_typed(attempts):
        return None
    return Choose(representative(attempts, key).index, plan.method, vote.agreement(found, key), is_early=True)


def _stays_typed(attempts: Sequence[Attempt]) -> bool:
    """Even if everything that is out should come down to nothing."""
    typed = sum(a.ballot is not None for a in succeeded(attempts))
    return typed >= TYPED_SHARE * (len(succeeded(attempts)) + sum(a.is_live for a in attempts))


def _is_typed(attempts: Sequence[Attempt]) -> bool:
    done = succeeded(attempts)
    return sum(a.ballot is not None for a in done) >= TYPED_SHARE * len(done)


def _conclude(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    """Nothing is out any more."""
    done = succeeded(attempts)
    if len(done) < plan.min_successful:
        return _without_quorum(plan, attempts)
    if not _is_typed(attempts) or not (found := votes(attempts)):
        return Compare(tuple(a.index for a in done)) if len(done) > 1 else Choose(done[0].index, "only answer")
    key = vote.leader(found)
    assert key is not None
    return Choose(representative(attempts, key).index, plan.method, vote.agreement(found, key))


def _without_quorum(plan: Plan, attempts: Sequence[Attempt]) -> Decision:
    done = succeeded(attempts) or [a for a in attempts if a.is_partial]  # half an answer is better than none
    if not done or not plan.falls_back:
        return GiveUp(len(succeeded(attempts)))
    found = votes(done)
    best = max(done, key=lambda a: (found.get(a.ballot.key, 0) if a.ballot else 0, a.weight, -a.index))
    return Choose(best.index, "fallback")
