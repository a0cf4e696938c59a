"""200 requests over experts that die, hang, say nothing or never end, at random and many at a time."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from axion_llm import errors
from axion_llm.consensus.experts import Roster
from axion_llm.consensus.options import STRATEGIES
from axion_llm.consensus.orchestrator import Orchestrator
from tests.consensus.conftest import NUMBER, PROSE, ask, pool_of, task
from tests.fakes.fake_pool import FakePool, Script, spec

DEADLINE_SECONDS = 1.0


def misbehaving(draw: random.Random) -> Script:
    kind = draw.choice(
        ["good", "good", "killed", "late death", "hung", "hung later", "blank", "babbling", "rejects", "bug"]
    )
    return {
        "good": Script(pieces=["6 ", "eggs"], delay=draw.uniform(0, 0.05)),
        "killed": Script(fail=errors.WorkerDied("killed")),
        "late death": Script(pieces=["6 "] * 5, fail=errors.WorkerDied("killed"), fail_after=3),
        "hung": Script(hang_after=0),
        "hung later": Script(pieces=["6 "] * 5, hang_after=2),
        "blank": Script(pieces=[" ", "\n"]),
        "babbling": Script(pieces=["and so on "] * 100_000, delay=0.002),
        "rejects": Script(reject=errors.Overloaded("too much")),
        "bug": Script(fail=RuntimeError("bug"), fail_after=1),
    }[kind]


def chaotic_pool(draw: random.Random) -> FakePool:
    pool = pool_of(**{name: lambda request: misbehaving(draw) for name in ("a", "b", "c")})
    pool.specs = [spec(name, expert_first_token_seconds=0.5, expert_deadline_seconds=0.8) for name in ("a", "b", "c")]
    return pool


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_every_request_is_answered_or_refused_in_time(seed: int) -> None:
    draw = random.Random(seed)
    pool = chaotic_pool(draw)
    orchestrator = Orchestrator(pool, Roster())
    outcomes: dict[str, int] = {}

    async def one(number: int) -> None:
        strategy, prompt = STRATEGIES[number % len(STRATEGIES)], (NUMBER, PROSE)[number % 2]
        began = time.monotonic()
        try:
            answer = await ask(pool, task(f"consensus/{strategy}", prompt, deadline_ms=1000), orchestrator)
            assert answer.text.strip()
            outcome = "answered"
        except errors.AxionError as exc:
            assert exc.code != "internal_error"
            outcome = exc.code
        assert time.monotonic() - began < DEADLINE_SECONDS + 1
        outcomes[outcome] = outcomes.get(outcome, 0) + 1

    for _ in range(5):
        await asyncio.gather(*(one(number) for number in range(20)))
    assert sum(outcomes.values()) == 100
    assert outcomes["answered"] > 70, outcomes
    await asyncio.sleep(0.05)
    assert pool.num_running == pool.num_leases == 0, "a sequence has leaked"
