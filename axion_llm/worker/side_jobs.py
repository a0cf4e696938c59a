"""What a worker computes beside its steps, in a thread: the result is taken up between two of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from axion_llm.errors import AxionError, unexpected

OnError = Callable[[str, AxionError], None]


class SideJobs:
    """One job for a request at a time. `work` runs in the executor, `then` takes its result in the loop's thread."""

    def __init__(self, executor: Executor, on_error: OnError) -> None:
        self._executor = executor
        self._on_error = on_error
        self._jobs: dict[str, tuple[Future[Any], Callable[[Any], None]]] = {}

    @property
    def num_running(self) -> int:
        return len(self._jobs)

    def submit(self, request_id: str, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self._jobs[request_id] = self._executor.submit(work), then

    def cancel(self, request_id: str) -> bool:
        """Whether it was here. What has begun goes on, its result is dropped."""
        job = self._jobs.pop(request_id, None)
        if job:
            job[0].cancel()
        return job is not None

    def collect(self) -> None:
        """Take up what is done."""
        done = [request_id for request_id, (future, _) in self._jobs.items() if future.done()]
        for request_id in done:
            future, then = self._jobs.pop(request_id)
            try:
                then(future.result())
            except Exception as error:
                self._on_error(request_id, unexpected(error))
