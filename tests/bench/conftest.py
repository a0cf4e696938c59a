"""A server of ours over a fake pool, to aim the load generator at."""

from collections.abc import Iterator

import pytest

from tests.servers.conftest import LiveServer


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    server = LiveServer().start()
    yield server.urls["standard"]
    server.ask_to_stop()
    server.join()
