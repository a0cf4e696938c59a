"""Every decision of the pool, from made-up snapshots."""

from __future__ import annotations

from typing import Literal

import pytest

from axion_llm.models.spec import ModelSpec, Source
from axion_llm.pool.policy import (
    MIN_TURN_SECONDS,
    Admit,
    Close,
    Decision,
    Demand,
    Evict,
    Forgo,
    Limits,
    Refuse,
    Resident,
    Wait,
    choose_warm,
    expired,
    plan_load,
)

NOW = 100.0
TURN_END = NOW + MIN_TURN_SECONDS  # of a model that has just been loaded, and quickly

State = Literal["loading", "busy", "idle", "leaving"]


def resident(name: str, state: State, last_used: float = 0, held: int = 10, unseen: int = 0) -> Resident:
    return Resident(name, state, last_used, held, unseen, ready_at=NOW)


def plan(
    *residents: Resident,
    need: int = 10,
    available: int = 100,
    max_loaded: int = 2,
    is_first: bool = True,
    is_wanted: bool = True,
) -> Decision:
    return plan_load(residents, Demand(need, is_first, is_wanted), Limits(max_loaded, available, now=NOW))


def test_admits_what_fits() -> None:
    assert plan() == Admit()
    assert plan(resident("a", "busy")) == Admit()
    assert plan(need=100) == Admit()


def test_unloads_the_least_recently_used_of_the_idle() -> None:
    assert plan(resident("a", "idle", 3), resident("b", "idle", 2)) == Evict("b")
    assert plan(resident("a", "idle", 3), resident("b", "busy", 2)) == Evict("a")


@pytest.mark.parametrize("state", ["busy", "loading"])
def test_waits_while_all_places_are_in_use(state: State) -> None:
    assert plan(resident("a", "busy"), resident("b", state)) == Wait("place", TURN_END)


def test_unloads_one_at_a_time() -> None:
    assert plan(resident("a", "idle"), resident("b", "leaving")) == Wait("place")


def test_unloads_for_memory_too() -> None:
    assert plan(resident("a", "idle", held=60), need=70, available=40) == Evict("a")


def test_unloads_nothing_when_that_would_not_be_enough() -> None:
    residents = resident("a", "idle", held=10), resident("b", "busy", held=50)
    assert plan(*residents, need=70, available=30, max_loaded=5) == Wait("memory", TURN_END)


def test_refuses_what_never_fits_and_says_what_could_be_freed() -> None:
    assert plan(need=101) == Refuse(100)
    residents = resident("a", "idle", held=20), resident("b", "busy", held=30)
    assert plan(*residents, need=101, available=50) == Refuse(100)


def test_mapped_weights_of_others_are_no_room() -> None:
    """The kernel counts them as available; to use them would have the disk read at every token."""
    assert plan(resident("a", "busy", held=60, unseen=50), need=70, available=100) == Wait("memory", TURN_END)
    assert plan(resident("a", "idle", held=60, unseen=50), need=70, available=100) == Evict("a")
    assert plan(resident("a", "busy", held=60, unseen=50), need=111, available=100) == Refuse(110)


def test_a_load_under_way_has_its_memory_set_aside() -> None:
    assert plan(resident("a", "loading", held=95, unseen=95), need=10, available=100) == Wait("memory")


# ---- turns


def in_turn(*residents: Resident, now: float, since: float = 0.0, turn_seconds: float = 20.0) -> Decision:
    """Of a model that has waited since `since` for the only place."""
    return plan_load(residents, Demand(10, since=since), Limits(1, 100, 0, now, turn_seconds))


def used(state: State, ready_at: float, load_seconds: float, last_used: float = 0, closing: float = 0) -> Resident:
    return Resident("a", state, last_used, 10, 0, False, ready_at, load_seconds, closing)


def test_a_turn_is_worth_its_load_and_has_an_end() -> None:
    a = used("busy", ready_at=0, load_seconds=0.5)
    assert in_turn(a, now=3.9) == Wait("place", 4.0)
    assert in_turn(a, now=4.0) == Close("a")
    slow = used("busy", ready_at=0, load_seconds=10)
    assert in_turn(slow, now=19.9) == Wait("place", 20.0)
    assert in_turn(slow, now=20.0) == Close("a")
    fast = used("busy", ready_at=0, load_seconds=0.01)
    assert in_turn(fast, now=0.9) == Wait("place", 1.0)


def test_a_turn_begins_when_another_one_waits() -> None:
    assert in_turn(used("busy", ready_at=0, load_seconds=1), now=100, since=99) == Wait("place", 107.0)


def test_what_a_model_has_after_its_turn_is_suspended_in_the_end() -> None:
    closing = used("closing", ready_at=0, load_seconds=1, closing=8)
    assert in_turn(closing, now=15.9) == Wait("place", 16.0)
    assert in_turn(closing, now=16.0) == Evict("a")


def test_one_that_has_just_been_used_keeps_its_place_as_long_as_its_load_takes() -> None:
    a = used("idle", ready_at=90, load_seconds=0.5, last_used=100)
    assert in_turn(a, now=100.4, since=99) == Wait("place", 100.5)
    assert in_turn(a, now=100.5, since=99) == Evict("a")
    assert in_turn(a, now=100.1, since=95) == Evict("a")  # its turn is over anyway


def test_only_one_turn_ends_at_a_time() -> None:
    closing, busy = used("closing", 0, 1, closing=8), resident("b", "busy")
    assert plan_load([closing, busy], Demand(10), Limits(2, 100, now=15)) == Wait("place", 16.0)


def test_memory_limit() -> None:
    def limited(*residents: Resident, need: int, limit: int) -> Decision:
        return plan_load(residents, Demand(need), Limits(5, 100, limit, NOW))

    assert limited(need=10, limit=10) == Admit()
    assert limited(need=11, limit=10) == Refuse(10)
    assert limited(resident("a", "idle"), need=10, limit=15) == Evict("a")
    assert limited(resident("a", "idle"), need=5, limit=15) == Admit()
    assert limited(need=101, limit=1000) == Refuse(100)


# ---- who waits, who is told no


def test_waits_for_its_turn() -> None:
    assert plan(is_first=False) == Wait("turn")
    assert plan(resident("a", "idle"), resident("b", "idle"), is_first=False) == Wait("turn")


def test_does_not_wait_to_be_refused() -> None:
    assert plan(need=101, is_first=False) == Refuse(100)


def test_a_load_that_no_request_waits_for_takes_only_free_room() -> None:
    assert plan(is_wanted=False) == Admit()
    assert plan(is_wanted=False, is_first=False) == Wait("turn")
    assert plan(resident("a", "idle"), resident("b", "idle"), is_wanted=False) == Forgo()
    assert plan(resident("a", "idle", held=60), need=70, available=40, is_wanted=False) == Forgo()


def test_expired_are_the_idle_that_nobody_asked_for_in_time() -> None:
    residents = resident("a", "idle", 10), resident("b", "busy", 10), resident("c", "idle", 50)
    assert expired(residents, now=70, idle_seconds=60) == ["a"]
    assert expired(residents, now=69, idle_seconds=60) == []
    assert expired(residents, now=1000, idle_seconds=0) == []


def test_warm_models_in_order_and_the_packaged_default_last() -> None:
    default = ModelSpec("default", Source(package="p"), "d.gguf")
    a, b = (ModelSpec(name, Source(repo="r"), f"{name}.gguf") for name in "ab")
    assert choose_warm([default, a, b], 2) == [a, b]
    assert choose_warm([default, a], 2) == [a, default]
    assert choose_warm([default], 2) == [default]
    assert choose_warm([default, a], 0) == []


# ---- pinned models


def test_a_pinned_model_makes_no_room() -> None:
    assert plan(pinned("a", last_used=1), resident("b", "idle", 2)) == Evict("b")
    assert plan(pinned("a"), resident("b", "busy")) == Wait("place", TURN_END)


def test_when_all_places_are_pinned_nobody_waits() -> None:
    assert plan(pinned("a"), pinned("b")) == Refuse(100, "place")


def test_what_pinned_models_hold_cannot_be_freed() -> None:
    assert plan(pinned("a", held=60), need=80, available=40, max_loaded=5) == Refuse(40)


def test_a_pinned_model_never_expires() -> None:
    assert expired([pinned("a"), resident("b", "idle")], now=1000, idle_seconds=300) == ["b"]


def test_pinned_models_are_warmed_first() -> None:
    specs = [ModelSpec(name, Source(repo="r"), "f", pin=name == "c") for name in "abc"]
    assert [spec.name for spec in choose_warm(specs, 2)] == ["c", "a"]


def pinned(name: str, last_used: float = 0, held: int = 10) -> Resident:
    return Resident(name, "idle", last_used, held, 0, is_pinned=True)
