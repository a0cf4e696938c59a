"""A model that crashes comes back: at once, later, not for a minute; and a quiet time forgets all."""

from __future__ import annotations

import pytest

from axion_llm.pool.breaker import MAX_CRASHES, OPEN_SECONDS, WINDOW_SECONDS, Breaker


def crashed(*times: float) -> Breaker:
    breaker = Breaker()
    for time in times:
        breaker.note_crash(time)
    return breaker


@pytest.mark.parametrize(("num_crashes", "delay"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 60), (9, 60)])
def test_the_delay_grows_with_the_crashes(num_crashes: int, delay: float) -> None:
    assert crashed(*[10.0] * num_crashes).delay_seconds(10.0) == delay


def test_the_delay_runs_from_the_last_crash() -> None:
    breaker = crashed(0, 10)
    assert breaker.delay_seconds(10.75) == 0.25
    assert breaker.delay_seconds(12) == 0


def test_after_many_crashes_one_load_a_minute_is_let_through() -> None:
    breaker = crashed(*range(MAX_CRASHES))
    last = MAX_CRASHES - 1.0
    assert breaker.is_open(last) and breaker.is_open(last + OPEN_SECONDS - 1)
    assert not breaker.is_open(last + OPEN_SECONDS)
    breaker.note_crash(last + OPEN_SECONDS)
    assert breaker.is_open(last + OPEN_SECONDS + 1)


def test_what_was_a_requests_fault_does_not_count_whenever_it_is_known() -> None:
    breaker = Breaker()
    breaker.note_crash(1.0, 11)
    breaker.excuse([11, 12, None])
    breaker.note_crash(2.0, 12)
    breaker.note_crash(3.0, None)
    assert breaker.num_crashes(3.0) == 1


def test_a_quiet_time_forgets() -> None:
    breaker = crashed(0, 0, 0)
    assert breaker.num_crashes(WINDOW_SECONDS - 1) == 3
    assert breaker.num_crashes(WINDOW_SECONDS) == 0 and breaker.delay_seconds(WINDOW_SECONDS) == 0
