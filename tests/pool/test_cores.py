"""Cores are shared among the models that work: the arithmetic, and what workers are told and when."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.pool.cores import SETTLE_SECONDS, CoreBudget, Working, place, share_cores, usable_cores
from tests.pool.machinery import MachineMaker

LIMITS = st.dictionaries(st.text("abc", min_size=1), st.integers(0, 8), max_size=6)


def test_alone_a_model_has_all() -> None:
    assert share_cores({"a": 0}, 32) == {"a": 32}


def test_equal_parts_and_the_rest_to_the_first() -> None:
    assert share_cores({"a": 0, "b": 0, "c": 0}, 32) == {"a": 11, "b": 11, "c": 10}


def test_what_one_may_not_use_goes_to_the_others() -> None:
    assert share_cores({"a": 4, "b": 0, "c": 0}, 32) == {"a": 4, "b": 14, "c": 14}
    assert share_cores({"a": 2}, 32) == {"a": 2}


def test_nobody_gets_less_than_one() -> None:
    assert share_cores({"a": 0, "b": 0, "c": 0}, 2) == {"a": 1, "b": 1, "c": 1}


@given(LIMITS, st.integers(1, 40))
def test_no_core_is_given_twice_or_left_without_a_reason(limits: dict[str, int], total: int) -> None:
    shares = share_cores(limits, total)
    assert all(share >= 1 and (not limits[name] or share <= limits[name]) for name, share in shares.items())
    assert sum(shares.values()) <= max(total, len(limits))
    can_grow = [name for name in limits if not limits[name] or shares[name] < limits[name]]
    if can_grow:
        assert sum(shares.values()) >= total
        assert max(shares[n] for n in can_grow) - min(shares[n] for n in can_grow) <= 1


@given(LIMITS, st.integers(1, 40))
def test_no_cpu_is_bound_twice(limits: dict[str, int], total: int) -> None:
    shares = share_cores(limits, total)
    placed = place(shares, range(100, 100 + total))
    cpus = [cpu for own in placed.values() for cpu in own]
    assert len(cpus) == len(set(cpus))
    assert not cpus or {n: len(own) for n, own in placed.items()} == shares


def test_on_a_large_machine_the_http_process_has_a_core() -> None:
    assert [usable_cores(n) for n in (1, 2, 7, 8, 32)] == [1, 2, 7, 7, 31]


class Told:
    """A worker that remembers."""

    def __init__(self) -> None:
        self.cores: list[int] = []

    def set_cores(self, num_threads: int, cpus: Sequence[int]) -> None:
        self.cores.append(num_threads)


def working(**workers: Any) -> dict[str, Working]:
    return {name: Working(0, worker) for name, worker in workers.items()}


async def test_a_second_model_takes_its_part_at_once_and_gives_it_back_when_settled() -> None:
    budget, a, b = CoreBudget(8), Told(), Told()
    budget.update(working(a=a))
    budget.update(working(a=a, b=b))
    assert (a.cores, b.cores) == ([8, 4], [4])
    budget.update(working(a=a))
    assert a.cores == [8, 4]
    await asyncio.sleep(2 * SETTLE_SECONDS)
    assert a.cores == [8, 4, 8]


async def test_a_model_that_works_again_soon_finds_its_part() -> None:
    budget, a, b = CoreBudget(8), Told(), Told()
    for _ in range(3):
        budget.update(working(a=a, b=b))
        budget.update(working(a=a))
    assert (a.cores, b.cores) == ([4], [4])
    budget.close()


async def test_a_load_has_a_part_too_and_its_worker_is_told_when_it_is_ready() -> None:
    budget, a, b = CoreBudget(8), Told(), Told()
    budget.update(working(a=a, b=None))
    assert budget.num_threads("b") == 4
    budget.update(working(a=a, b=b))
    assert (a.cores, b.cores) == ([4], [4])
    budget.close()


async def test_without_sharing_each_has_all() -> None:
    budget, a, b = CoreBudget(8, is_shared=False), Told(), Told()
    budget.update(working(a=a, b=b))
    assert (a.cores, b.cores) == ([8], [8])
    budget.close()


@pytest.mark.usefixtures("socket_root")
async def test_the_pool_shares_its_cores_among_streams(machine: MachineMaker) -> None:
    m = machine({"a": "ok", "b": "ok"}, threads=6)
    await m.loaded("a", "b")
    streams = [m.asking("a", "tokens=30 delay=0.01"), m.asking("b", "tokens=10 delay=0.01")]
    await asyncio.sleep(0.05)
    assert [m.pool._cores.num_threads(name) for name in "ab"] == [3, 3]
    await streams[1]
    await asyncio.sleep(2 * SETTLE_SECONDS)
    assert m.pool._cores.num_threads("a") == 6
    await streams[0]
