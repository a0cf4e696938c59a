"""What is refused, and after how long a client is told to come back."""

import pytest

from axion_llm.engine.prefix_cache import PrefixCache
from axion_llm.engine.queue_limit import QueueLimit
from axion_llm.engine.scheduler import Scheduler
from axion_llm.engine.sequence import Sequence
from axion_llm.errors import Overloaded
from axion_llm.worker.messages import Generate, Sampling
from tests.engine.cells import FakeCells


def request(num_tokens: int) -> Generate:
    return Generate("x", [0] * num_tokens, Sampling())


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(PrefixCache(FakeCells(), 8), num_cells=1000, max_running=2, n_batch=64)


def fill(scheduler: Scheduler, count: int, num_tokens: int = 10) -> None:
    for i in range(count):
        scheduler.add(Sequence(Generate(str(i), "", Sampling()), list(range(i, i + num_tokens)), 500, arrival=0.0))
    scheduler.schedule(0.0)


def test_free_places_do_not_count_as_a_queue(scheduler: Scheduler) -> None:
    limit = QueueLimit(scheduler, max_requests=1, max_tokens=100)
    limit.check(request(10), [request(10)])
    fill(scheduler, 2)
    limit.check(request(10), [])
    with pytest.raises(Overloaded, match="limits: 1 and 100"):
        limit.check(request(10), [request(10)])
    assert limit.num_refused == 1


def test_a_prompt_that_is_too_long_for_the_queue_may_still_run_when_nothing_waits(scheduler: Scheduler) -> None:
    limit = QueueLimit(scheduler, max_requests=10, max_tokens=100)
    fill(scheduler, 2)
    limit.check(request(500), [])
    with pytest.raises(Overloaded):
        limit.check(request(500), [request(10)])


def test_the_time_to_come_back_follows_what_was_measured(scheduler: Scheduler) -> None:
    limit = QueueLimit(scheduler, max_requests=1, max_tokens=10_000)
    fill(scheduler, 2)
    assert limit.wait_seconds(4, 0) == 1.0, "nothing is known yet"
    limit.note_end(6.0)
    assert limit.wait_seconds(4, 0) == pytest.approx(12.0), "two places, two turns of six seconds"
    scheduler.pacing.token_seconds = 0.01
    assert limit.wait_seconds(1, 5000) == pytest.approx(50.0), "their prompts take longer"
