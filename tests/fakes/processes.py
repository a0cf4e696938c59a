"""What tests ask the operating system about the worker processes they started."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

FAKE_COMMAND = (sys.executable, "-m", "tests.fakes.fake_worker")


def fake_workers() -> list[int]:
    """The fake workers below this process."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "tests.fakes.fake_worker" in _command_line(child)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def num_fds() -> int:
    return int(psutil.Process().num_fds())


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait for something that will be true soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still not true"
        await asyncio.sleep(0.01)


@pytest.fixture
async def socket_root(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A temporary directory of the test's own; in the end no worker and no socket is left."""
    tmp_path_factory.getbasetemp()  # pytest's own must not come to lie in it
    root = Path(tempfile.mkdtemp(prefix="t"))
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    yield root
    await until(lambda: fake_workers() == [])
    left = _socket_directories(root)
    shutil.rmtree(root)
    assert left == []


def _socket_directories(root: Path) -> list[str]:
    return [path.name for path in root.glob("axion-*")]
