"""A maker of pools over fake worker processes; what a test makes is stopped after it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from axion_llm.pool import room
from tests.fakes.processes import socket_root
from tests.pool.machinery import Machine, MachineMaker

__all__ = ["socket_root"]


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MachineMaker]:
    monkeypatch.setattr(room, "WORKER_BYTES", 0)
    monkeypatch.setattr(room, "RECHECK_SECONDS", 0.05)
    machines: list[Machine] = []

    def make(models: dict[str, str], **settings: Any) -> Machine:
        machines.append(Machine(models, **settings))
        return machines[-1]

    yield make
    for made in machines:
        await made.pool.stop()
