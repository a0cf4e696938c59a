"""A live server over a scripted pool, for commands that talk to one; one for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.fake_pool import FakePool
from tests.servers.conftest import LiveServer, eventually


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    started = LiveServer().start()
    yield started
    started.ask_to_stop()
    started.join()


@pytest.fixture
def pool(server: LiveServer) -> Iterator[FakePool]:
    server.reset()
    yield server.pool
    eventually(lambda: server.pool.num_running == 0)
