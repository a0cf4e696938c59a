"""Which experts a request goes to, in which way and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.consensus.ballot import Question
from axion_llm.consensus.facts import Facts
from axion_llm.consensus.options import STRATEGIES, Options, Strategy
from axion_llm.consensus.plan import Expert, Plan
from axion_llm.consensus.route import Ask, make_plan
from axion_llm.consensus.vote import UNIT
from axion_llm.consensus.weights import Score, Weights
from axion_llm.errors import BadRequest, NoQuorum

PHI = Expert("phi", roles=("chat", "fast"), size_bytes=2, strength=-0.9)
MISTRAL = Expert("mistral", roles=("chat",), size_bytes=4, strength=-0.8)
CODER = Expert("coder", roles=("code",), size_bytes=4, strength=-0.8)
GEMMA = Expert("gemma", roles=("vision", "chat"), size_bytes=3, strength=-0.85)
AYA = Expert("aya", roles=("multilingual",), languages=("de", "fr"), size_bytes=5, strength=-0.75)
SMALL = Expert("small", roles=("chat",), is_reserve=True, size_bytes=1)
ALL = [PHI, MISTRAL, CODER, GEMMA, AYA, SMALL]
NUMBER = Question("number")


def plan(
    facts: Facts | None = None, experts: list[Expert] = ALL, strategy: Strategy = "auto", **options: object
) -> Plan:
    asked = Ask(facts or Facts(language="en"), Options.model_validate(options), strategy)
    return make_plan(asked, experts, Weights())


def test_prose_goes_to_one_expert_with_the_others_in_reserve() -> None:
    found = plan()
    assert found.method == "route"
    assert found.slots[0].expert == "phi"
    assert "small" not in found.experts
    assert [slot.stage for slot in found.slots] == list(range(len(found.slots)))


def test_code_goes_to_the_coder() -> None:
    assert plan(Facts(language="en", code="python")).slots[0].expert == "coder"
    assert "python" in plan(Facts(code="python")).reason


def test_a_language_goes_to_who_speaks_it() -> None:
    assert plan(Facts(language="de")).slots[0].expert == "aya"
    assert plan(Facts(language="ja")).slots[0].expert == "aya", "by its role: nobody names Japanese"
    assert plan(Facts(language="de", code="python")).slots[0].expert == "coder"
    assert plan(Facts(language="en")).slots[0].expert == "phi"


def test_images_need_eyes() -> None:
    found = plan(Facts(has_images=True))
    assert found.method == "route"
    assert found.experts == ["gemma"]
    with pytest.raises(BadRequest, match="takes images"):
        plan(Facts(has_images=True), [PHI])
    asked = Ask(Facts(has_images=True), Options(experts=["phi"]), "auto")
    with pytest.raises(BadRequest, match="takes images"):
        make_plan(asked, ALL, Weights())


def test_tools_are_one_experts_work() -> None:
    assert plan(Facts(has_tools=True), strategy="vote").method == "route"


def test_an_answer_that_can_be_compared_goes_through_the_cascade() -> None:
    found = plan(Facts(language="en", question=NUMBER))
    assert found.method == "cascade"
    assert found.slots[0].expert == "phi", "the smallest first"
    assert found.slots[1].expert == "phi", "twice: one voice alone agrees with nobody"


def test_the_only_expert_is_sampled() -> None:
    found = plan(experts=[SMALL])
    assert found.method == "self"
    assert found.experts == ["small"]
    assert sum(slot.weight for slot in found.slots) == pytest.approx(UNIT, rel=0.01)


def test_nobody_is_there() -> None:
    with pytest.raises(NoQuorum, match="axion-llm models"):
        plan(experts=[])


def test_a_cold_expert_joins_only_if_the_deadline_allows() -> None:
    cold = Expert("cold", roles=("chat",), is_loaded=False, load_seconds=20.0)
    assert "cold" in plan(experts=[PHI, cold], strategy="vote").experts
    assert "cold" not in plan(experts=[PHI, cold], strategy="vote", deadline_ms=30_000).experts
    assert plan(experts=[cold], deadline_ms=1000).experts == ["cold"], "alone it is tried all the same"


def test_an_expert_that_failed_to_load_is_asked_only_by_name_or_in_need() -> None:
    broken = Expert("broken", roles=("chat",), is_loaded=False, has_failed=True)
    assert "broken" not in plan(experts=[PHI, broken], strategy="vote").experts
    assert plan(experts=[broken]).experts == ["broken"]
    assert plan(experts=[SMALL, broken]).experts == ["small"], "better the reserve than one that cannot"
    asked = Ask(Facts(language="en"), Options(experts=["phi", "broken"]), "vote")
    assert make_plan(asked, [PHI, broken], Weights()).experts == ["phi", "broken"], "the pool may manage it this time"


def test_only_the_most_suitable_expert_may_cost_another_its_place() -> None:
    cold = [Expert(name, roles=("chat",), is_loaded=False) for name in ("x", "y", "z")]
    asked = Ask(Facts(language="en"), Options(), "vote", num_free_places=1)
    assert make_plan(asked, [PHI, *cold], Weights()).experts == ["phi", "x"]
    coder = Expert("coder", roles=("code",), is_loaded=False)
    full = Ask(Facts(language="en", code="python"), Options(), "vote", num_free_places=0)
    assert make_plan(full, [PHI, *cold, coder], Weights()).experts == ["coder", "phi"]
    named = Ask(Facts(language="en"), Options(experts=["x", "y"]), "vote", num_free_places=0)
    assert make_plan(named, [PHI, *cold], Weights()).experts == ["x", "y"], "who is named is loaded"


def test_calibration_chooses_the_way() -> None:
    scores = {"route": {"all": Score(60, 100, 0.5, 0.69)}, "vote": {"all": Score(80, 100, 0.71, 0.87)}}
    asked = Ask(Facts(language="en"), Options(), "auto")
    found = make_plan(asked, ALL, Weights({}, scores))
    assert found.method == "vote"
    assert "0.80" in found.reason
    unsure = {"route": {"all": Score(60, 100, 0.5, 0.69)}, "vote": {"all": Score(65, 100, 0.55, 0.74)}}
    assert make_plan(asked, ALL, Weights({}, unsure)).method == "route", (
        "an interval that reaches down to it is no proof"
    )


def test_weights_follow_the_calibration() -> None:
    measured = Weights({"phi": {"all": Score(90, 100)}, "mistral": {"all": Score(30, 100)}})
    asked = Ask(Facts(language="en", question=NUMBER), Options(), "vote")
    found = {slot.expert: slot.weight for slot in make_plan(asked, [PHI, MISTRAL, CODER], measured).slots}
    assert found["phi"] > found["coder"] > 0
    assert found["phi"] > found["mistral"] > 0


def test_the_strongest_writes_the_synthesis() -> None:
    assert plan(experts=[PHI, AYA, CODER], strategy="synthesize").aggregators == ("aya", "coder", "phi")
    assert plan(strategy="synthesize", aggregator="phi").aggregators[0] == "phi"


@given(st.sampled_from(STRATEGIES), st.sampled_from(["en", "de", "ja", "unknown"]), st.booleans(), st.integers(1, 16))
def test_every_plan_can_be_carried_out(strategy: Strategy, language: str, is_number: bool, n: int) -> None:
    facts = Facts(language=language, question=NUMBER if is_number else Question())
    for experts in (ALL, [SMALL], [PHI, CODER]):
        found = plan(facts, experts, strategy, n=n)
        assert found.slots
        assert 1 <= found.min_successful <= len(found.slots)
        assert len(found.experts) <= 5
        assert all(slot.weight > 0 for slot in found.slots)
        assert {s.stage for s in found.slots} == set(range(max(s.stage for s in found.slots) + 1)), "no gap"
        assert found.limits.experts_deadline <= found.limits.deadline
        assert found.aggregators
