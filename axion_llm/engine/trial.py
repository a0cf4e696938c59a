"""Work of unknown cost, tried in a process of its own first: really ended where it takes too much, or is not wanted.

A thread cannot be ended, and what it has allocated grows the process that serves. So a copy of this process does the
work first, with limits of the kernel on its CPU time and memory. What stays within them is done again where it is
needed. The copy is a fork: it has all that the work needs at once, and shares its memory. It runs nothing but that.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from axion_llm.errors import BadRequest

POLL_SECONDS = 0.05
NICENESS = 10  # the streams have precedence
PR_SET_PDEATHSIG = 1
_FAILED, _DONE = b"-", b"+"


class Unaffordable(Exception):
    """It would have taken more than the limits."""


class Unwanted(Exception):
    """Nobody waits for it any more, or it has had no time on a busy machine."""


@dataclass(frozen=True)
class Limits:
    cpu_seconds: int
    memory_bytes: int  # more than the process has already
    wall_seconds: float  # for a machine that gives it no CPU time


def run(work: Callable[[], object], limits: Limits, is_wanted: Callable[[], bool] = lambda: True) -> int:
    """The bytes that the work has taken. Raises the work's BadRequest, Unaffordable or Unwanted."""
    prctl = ctypes.CDLL(None).prctl
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of forks beside threads: see _do
            pid = os.fork()
        if pid == 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            _do(work, limits, writer)
        os.close(writer)
        writer = -1
        try:
            told = _hear(reader, time.monotonic() + limits.wall_seconds, is_wanted)
        finally:
            os.kill(pid, signal.SIGKILL)  # a process of ours until it is waited for, so it is nobody else
            os.waitpid(pid, 0)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if told[:1] == _DONE:
        return int(told[1:])
    if told[:1] == _FAILED:
        raise BadRequest(told[1:].decode())
    raise Unaffordable


def _hear(reader: int, end: float, is_wanted: Callable[[], bool]) -> bytes:
    """What the copy says; nothing when it was ended for what it took."""
    told = b""
    while True:
        ready, _, _ = select.select([reader], [], [], POLL_SECONDS)
        if ready:
            part = os.read(reader, 4096)
            if not part:
                return told
            told += part
        elif not is_wanted() or time.monotonic() > end:
            raise Unwanted


def _do(work: Callable[[], object], limits: Limits, writer: int) -> None:
    """In the copy, which has one thread. Takes no lock that another thread may have held, and never returns."""
    told, code = b"", 1
    try:
        gc.disable()
        faulthandler.disable()
        os.nice(NICENESS)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 2)  # of an allocation that fails: it is no end of the worker
        before = _size("statm")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds))
        most = _size("statm", 0) + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            work()
            told = _DONE + str(max(0, _size("statm") - before)).encode()
        except BadRequest as error:
            told = _FAILED + error.message.encode()[:2000]
        code = 0
        os.write(writer, told)
    finally:
        os._exit(code)


def _size(name: str, field: int = 1) -> int:
    """Resident bytes, or all of the address space (field 0)."""
    return int(Path(f"/proc/self/{name}").read_text().split()[field]) * resource.getpagesize()
