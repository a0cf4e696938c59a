"""The ways of deciding as pure functions: what they wait for, what they choose, what early stop may not change."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axion_llm.consensus.attempt import Attempt, Status
from axion_llm.consensus.ballot import Ballot, Question
from axion_llm.consensus.plan import Limits, Method, Plan, Slot
from axion_llm.consensus.strategies import Choose, Combine, Compare, Decision, GiveUp, Wait, decide

LIMITS = Limits(10.0, 10.0, None)


def plan(method: Method = "vote", **fields: object) -> Plan:
    base = Plan(method, (Slot("a"),), LIMITS, question=Question("number"))
    return replace(base, **fields)  # type: ignore[arg-type]


def attempt(index: int, answer: str | None = None, status: Status = "ok", weight: int = 1, stage: int = 0) -> Attempt:
    """`answer` None: it comes down to nothing."""
    made = Attempt(index, f"e{index}", weight=weight, stage=stage, status=status)
    if status == "ok":
        made.texts = [answer or "well"]
        made.ballot = Ballot("number", answer, answer) if answer else None
    return made


def run(answers: list[tuple[str | None, int]], order: list[int], chosen: Plan) -> Decision:
    """Answers come in in this order; the first decision that is not to wait."""
    attempts = [attempt(i, None, "running", w) for i, (_, w) in enumerate(answers)]
    for index in order:
        decision = decide(chosen, attempts)
        if not isinstance(decision, Wait):
            return decision
        answer, weight = answers[index]
        attempts[index] = attempt(index, answer, "ok" if answer != "failed" else "failed", weight)
    return decide(chosen, attempts)


def winner(decision: Decision, answers: list[tuple[str | None, int]]) -> str | None:
    return answers[decision.index][0] if isinstance(decision, Choose) else None


Answers = st.lists(
    st.tuples(st.sampled_from(["1", "2", "3", None, "failed"]), st.integers(1, 4)), min_size=2, max_size=5
)


@settings(max_examples=300, deadline=None)
@given(Answers, st.sampled_from(["vote", "self", "best_of", "cascade"]))
def test_early_stop_gives_the_full_votes_answer(answers: list[tuple[str | None, int]], method: Method) -> None:
    """In every order of arrival."""
    full = run(answers, list(range(len(answers))), plan(method, early_stop=False))
    for order in itertools.permutations(range(len(answers))):
        early = run(answers, list(order), plan(method))
        if isinstance(early, Choose) and early.is_early and early.by == method:
            assert winner(early, answers) == winner(full, answers)
        else:
            assert winner(early, answers) == winner(full, answers) or method == "cascade"


def test_a_vote_stops_when_the_lead_is_safe() -> None:
    attempts = [attempt(0, "7"), attempt(1, "7"), attempt(2, status="running")]
    assert decide(plan(min_successful=2), attempts) == Choose(0, "vote", 1.0, is_early=True)
    assert decide(plan(min_successful=2, early_stop=False), attempts) == Wait()


def test_a_strong_expert_that_is_still_at_work_holds_two_weak_ones_back() -> None:
    attempts = [attempt(0, "7"), attempt(1, "7"), attempt(2, status="running", weight=3)]
    assert decide(plan(), attempts) == Wait()


def test_the_quorum_comes_before_an_early_stop() -> None:
    attempts = [attempt(0, "7", weight=5), attempt(1, status="running")]
    assert isinstance(decide(plan(min_successful=1), attempts), Choose)
    assert decide(plan(min_successful=2), attempts) == Wait()


def test_of_equal_answers_the_heaviest_voters_words_are_shown() -> None:
    attempts = [attempt(0, "7", weight=1), attempt(1, "7", weight=2), attempt(2, "8", weight=1)]
    assert decide(plan(), attempts) == Choose(1, "vote", 0.75)


def test_a_tie_goes_to_the_first_planned_however_they_arrive() -> None:
    assert winner(run([("1", 1), ("2", 1)], [1, 0], plan()), [("1", 1), ("2", 1)]) == "1"


def test_answers_in_prose_are_compared() -> None:
    attempts = [attempt(0), attempt(1), attempt(2, "7")]
    assert decide(plan(), attempts) == Compare((0, 1, 2))


@pytest.mark.parametrize("method", ["vote", "self", "best_of", "cascade", "synthesize"])
def test_below_the_quorum(method: Method) -> None:
    attempts = [attempt(0, "7"), attempt(1, status="failed"), attempt(2, status="blank")]
    refused = decide(plan(method, min_successful=2, falls_back=False), attempts)
    assert refused == GiveUp(1)
    assert decide(plan(method, min_successful=2), attempts) == Choose(0, "fallback")


def test_nothing_at_all() -> None:
    attempts = [attempt(0, status="failed"), attempt(1, status="timeout")]
    assert decide(plan(min_successful=1), attempts) == GiveUp(0)


def test_half_an_answer_is_taken_only_when_there_is_no_other() -> None:
    cut = attempt(0, status="cut")
    cut.texts = ["It is"]
    assert decide(plan(), [cut, attempt(1, "7")]) == Choose(1, "vote", 1.0)
    assert decide(plan(), [cut, attempt(1, status="failed")]) == Choose(0, "fallback")
    late = attempt(0, status="timeout")
    assert decide(plan(), [late]) == GiveUp(0)
    late.texts = ["It"]
    assert decide(plan(), [late]) == Choose(0, "fallback")


def test_a_route_takes_the_next_expert_when_one_fails() -> None:
    attempts = [attempt(0, status="running", stage=0), attempt(1, status="waiting", stage=1)]
    assert decide(plan("route"), attempts) == Wait(0)
    attempts[0] = attempt(0, status="failed")
    assert decide(plan("route"), attempts) == Wait(1)
    attempts[1] = attempt(1, "7")
    assert decide(plan("route"), attempts) == Choose(1, "route")


def test_a_cascade_asks_more_experts_only_on_dissent() -> None:
    agree = [attempt(0, "7"), attempt(1, "7"), attempt(2, status="waiting", stage=1, weight=5)]
    assert decide(plan("cascade"), agree) == Choose(0, "cascade", 1.0, is_early=True)
    assert decide(plan("cascade", early_stop=False), agree) == Wait(1)
    differ = [attempt(0, "7"), attempt(1, "8"), attempt(2, status="waiting", stage=1, weight=2)]
    assert decide(plan("cascade"), differ) == Wait(1)
    alone = [attempt(0, "7"), attempt(1, status="waiting", stage=1)]
    assert decide(plan("cascade"), alone) == Wait(1), "one voice agrees with nobody"


def test_a_synthesis_needs_two_answers() -> None:
    attempts = [attempt(0, "7"), attempt(1), attempt(2, status="failed")]
    assert decide(plan("synthesize"), attempts) == Combine((0, 1))
    assert decide(plan("synthesize"), [attempt(0, "7"), attempt(1, status="running")]) == Wait()
    alone = decide(plan("synthesize", min_successful=1), [attempt(0, "7"), attempt(1, status="failed")])
    assert isinstance(alone, Choose)
