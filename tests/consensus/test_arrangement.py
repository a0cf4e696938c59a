"""How many experts at a time: tried, then the fastest, and looked at again now and then."""

from __future__ import annotations

import pytest

from axion_llm.consensus.arrangement import KEPT, RECHECK, TRIES, Arrangement, candidates


@pytest.mark.parametrize(("n", "ways"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4])])
def test_candidates(n: int, ways: list[int]) -> None:
    assert candidates(n) == ways


def run(found: Arrangement, seconds: dict[int, float], num_runs: int, n: int = 3) -> list[int]:
    chosen = []
    for _ in range(num_runs):
        way = found.choose(n)
        found.observe(n, way, 100, seconds[way])
        chosen.append(way)
    return chosen


def test_each_way_is_tried_then_the_fastest_taken() -> None:
    found = Arrangement()
    chosen = run(found, {1: 3.0, 2: 2.0, 3: 2.5}, 3 * TRIES + 10)
    assert {way: chosen[: 3 * TRIES].count(way) for way in (1, 2, 3)} == {1: TRIES, 2: TRIES, 3: TRIES}
    assert set(chosen[3 * TRIES :]) == {2}


def test_fewer_at_a_time_where_it_makes_no_difference() -> None:
    assert run(Arrangement(), {1: 2.02, 2: 2.0, 3: 2.0}, 20)[-1] == 1


def test_a_machine_that_changes_is_noticed() -> None:
    found = Arrangement()
    run(found, {1: 2.0, 2: 3.0, 3: 3.0}, 20)
    chosen = run(found, {1: 9.0, 2: 3.0, 3: 3.0}, KEPT + 2)
    assert chosen[-1] != 1


def test_another_way_is_tried_again_now_and_then() -> None:
    assert set(run(Arrangement(), {1: 2.0, 2: 3.0, 3: 3.0}, 3 * RECHECK)[10:]) == {1, 2, 3}


def test_one_expert_needs_no_arrangement() -> None:
    found = Arrangement()
    found.observe(1, 1, 10, 1.0)
    assert found.choose(1) == 1
