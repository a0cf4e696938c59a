"""What runs beside the steps: its result is taken up once, an error goes to its request, a cancelled one is dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from axion_llm.errors import AxionError, BadRequest
from axion_llm.worker.side_jobs import SideJobs

Errors = list[tuple[str, AxionError]]


@pytest.fixture
def errors() -> Errors:
    return []


@pytest.fixture
def jobs(errors: Errors) -> Iterator[SideJobs]:
    with ThreadPoolExecutor(1) as executor:
        yield SideJobs(executor, lambda request_id, error: errors.append((request_id, error)))


def collect_all(jobs: SideJobs) -> None:
    deadline = time.monotonic() + 5
    while jobs.num_running and time.monotonic() < deadline:
        jobs.collect()
        time.sleep(0.001)


def test_a_result_is_taken_up_in_the_thread_of_the_loop(jobs: SideJobs) -> None:
    taken: list[tuple[int, int]] = []
    jobs.submit("a", threading.get_ident, lambda worked_in: taken.append((worked_in, threading.get_ident())))
    collect_all(jobs)
    assert len(taken) == 1
    assert taken[0][0] != taken[0][1] == threading.get_ident()


def test_an_error_is_that_of_its_request(jobs: SideJobs, errors: Errors) -> None:
    def refuse(result: object = None) -> None:
        raise BadRequest("no")

    jobs.submit("in the work", refuse, lambda _: None)
    jobs.submit("in what comes then", lambda: None, refuse)
    collect_all(jobs)
    assert [(request_id, error.message) for request_id, error in errors] == [
        ("in the work", "no"),
        ("in what comes then", "no"),
    ]


def test_a_cancelled_one_is_dropped(jobs: SideJobs) -> None:
    taken: list[str] = []
    go_on = threading.Event()
    jobs.submit("begun", lambda: go_on.wait(5), lambda _: taken.append("begun"))
    jobs.submit("queued", lambda: None, lambda _: taken.append("queued"))
    assert jobs.cancel("begun") and jobs.cancel("queued") and not jobs.cancel("queued")
    go_on.set()
    collect_all(jobs)
    assert (taken, jobs.num_running) == ([], 0)
