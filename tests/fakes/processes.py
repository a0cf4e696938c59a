"""What tests ask the operating system about the worker processes they started."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

FAKE_COMMAND = (sys.executable, "-m", "tests.fakes.fake_worker")


def fake_workers() -> list[int]:
    """The fake workers below this process."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "tests.fakes.fake_worker" in _command_line(child)]


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def socket_directories() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("axion-*"))


def num_fds() -> int:
    return psutil.Process().num_fds()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition, seconds: float = 5.0) -> None:  # type: ignore[no-untyped-def]
    """Wait for something that will be true soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "still not true"
        await asyncio.sleep(0.01)
