"""Buckets of requests and tokens: what enters, what is charged, what the headers say. Time is an argument."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.errors import RateLimited
from axion_llm.security.limits import Budget


def headers(budget: Budget, now: float) -> dict[str, str]:
    return {k.decode().removeprefix("x-ratelimit-"): v.decode() for k, v in budget.headers(now)}


def test_requests() -> None:
    budget = Budget(2, 0, 0.0)
    budget.admit(0, 0.0)
    budget.admit(0, 0.0)
    with pytest.raises(RateLimited, match=r"2 requests per minute. Try again in 30s") as caught:
        budget.admit(0, 0.0)
    assert caught.value.retry_after_seconds == 30
    assert headers(budget, 0.0) == {"limit-requests": "2", "remaining-requests": "0", "reset-requests": "1m0s"}
    budget.admit(0, 30.0)
    with pytest.raises(RateLimited):
        budget.admit(0, 30.0)


def test_tokens_are_charged_as_they_come_and_a_debt_is_waited_for() -> None:
    budget = Budget(0, 600, 0.0)
    budget.admit(40, 0.0)
    budget.charge(10)
    assert headers(budget, 0.0) == {"limit-tokens": "600", "remaining-tokens": "590", "reset-tokens": "1s"}
    budget.charge(1190)  # beyond the limit: not cut off
    assert headers(budget, 0.0)["remaining-tokens"] == "0"
    with pytest.raises(RateLimited, match="600 tokens per minute") as caught:
        budget.admit(40, 0.0)
    assert caught.value.retry_after_seconds == 61  # back to 0, and ten for the next prompt
    budget.admit(40, 61.0)


def test_a_body_larger_than_the_limit_can_enter_once_half_is_there() -> None:
    budget = Budget(0, 100, 0.0)
    budget.admit(10**9, 0.0)
    budget.charge(60)
    with pytest.raises(RateLimited):
        budget.admit(10**9, 0.0)
    budget.admit(10**9, 6.1)


def test_a_refusal_for_tokens_costs_no_request() -> None:
    budget = Budget(10, 10, 0.0)
    budget.charge(20)
    with pytest.raises(RateLimited):
        budget.admit(4, 0.0)
    assert headers(budget, 0.0)["remaining-requests"] == "10"


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 4000), st.integers(0, 500)), max_size=60))
def test_the_mean_rate_keeps_the_limit(requests: list[tuple[float, int, int]]) -> None:
    """Beyond what the bucket holds at first, never more than flows in, save the last request's own excess."""
    limit, now, used, last = 100, 0.0, 0, 0
    budget = Budget(0, limit, 0.0)
    for pause, body_bytes, num_tokens in requests:
        now += pause
        try:
            budget.admit(body_bytes, now)
        except RateLimited:
            continue
        budget.charge(num_tokens)
        used, last = used + num_tokens, num_tokens
        assert used - last <= limit + now * limit / 60 + 1e-6
