"""Which attempts are too late: per expert, for the request, and after a quorum."""

from __future__ import annotations

from dataclasses import replace

from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.deadlines import next_check, overdue
from axion_llm.consensus.plan import Limits, Plan, Slot

LIMITS = Limits(100.0, 60.0, None, {"a": 5.0, "b": 5.0}, {"a": 20.0, "b": 30.0})
PLAN = Plan("vote", (Slot("a"), Slot("b")), LIMITS, min_successful=1)


def running(index: int, expert: str, started: float | None = 0.0, **fields: float) -> Attempt:
    made = Attempt(index, expert, status="running" if started is not None else "waiting", asked=0.0, started=started)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def done(index: int, ended: float) -> Attempt:
    return Attempt(index, "a", status="ok", asked=0.0, started=0.0, first_token=1.0, ended=ended)


def test_no_first_token() -> None:
    assert overdue(PLAN, [running(0, "a")], 4.9) == []
    assert len(overdue(PLAN, [running(0, "a")], 5.0)) == 1


def test_no_end() -> None:
    talks = running(0, "a", first_token=1.0)
    assert overdue(PLAN, [talks], 19.9) == []
    assert overdue(PLAN, [talks], 20.0) == [talks]
    assert next_check(PLAN, [talks]) == 20.0


def test_a_load_counts_against_the_request_only() -> None:
    loads = running(0, "a", started=None)
    assert overdue(PLAN, [loads], 59.0) == []
    assert overdue(PLAN, [loads], 60.0) == [loads]


def test_patience_begins_with_the_quorum() -> None:
    late = running(1, "b", first_token=1.0)
    assert next_check(PLAN, [done(0, 4.0), late]) == 4.0 + 1.5 * 4.0
    short = replace(PLAN, limits=replace(LIMITS, patience=0.5))
    assert overdue(short, [done(0, 4.0), late], 4.5) == [late]
    assert overdue(short, [done(0, 4.0), late], 4.4) == []


def test_patience_counts_from_a_later_start() -> None:
    second = running(1, "b", started=4.0, first_token=4.5)
    patient = replace(PLAN, limits=replace(LIMITS, patience=6.0))
    assert next_check(patient, [done(0, 4.0), second]) == 10.0
    slow_load = running(1, "b", started=9.0, first_token=9.5)
    assert next_check(patient, [done(0, 4.0), slow_load]) == 15.0


def test_nothing_is_live() -> None:
    assert next_check(PLAN, [done(0, 1.0)]) == LIMITS.deadline
