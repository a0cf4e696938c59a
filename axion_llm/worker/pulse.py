"""A worker's pulse: over a pipe the child says twice a second how much it has done; one that does no more is hung.

What is done counts turns of the message loop and graph nodes, so a prompt chunk that takes a minute is no hang, and a
deadlock is one. The parent counts its own looks, not time: a machine that was suspended finds no worker hung.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections.abc import Callable

BEAT_SECONDS = 0.5
_BEAT = struct.Struct("<Q")


def beat(fd: int, num_done: Callable[[], int]) -> None:
    """The child's side, for a thread of its own: runs until the process ends."""
    os.set_blocking(fd, False)
    while True:
        with contextlib.suppress(BlockingIOError):  # a parent that is stopped reads nothing
            os.write(fd, _BEAT.pack(num_done() % (1 << 64)))
        time.sleep(BEAT_SECONDS)


class Pulse:
    """The parent's side. `fd` is for the child to write to."""

    def __init__(self) -> None:
        self._reader, self.fd = os.pipe()
        os.set_blocking(self._reader, False)
        self._num_done: int | None = None
        self._num_looks = 0  # since something was done

    @property
    def seconds_silent(self) -> float:
        """How long nothing has been done."""
        return self._num_looks * BEAT_SECONDS

    def reset(self) -> None:
        """What was up to now does not count, as a load, which may do nothing but read a slow disk."""
        self._num_looks = 0

    async def watch(self, limit_seconds: Callable[[], float | None]) -> None:
        """Returns when it has been silent for the limit; None: no limit now."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._look()
            limit = limit_seconds()
            if limit is not None and self.seconds_silent >= limit:
                return

    def _look(self) -> None:
        beats = b""
        with contextlib.suppress(BlockingIOError):
            beats = os.read(self._reader, 1 << 16)
        if len(beats) >= _BEAT.size and (done := _BEAT.unpack(beats[-_BEAT.size :])[0]) != self._num_done:
            self._num_done, self._num_looks = done, 0
        else:
            self._num_looks += 1

    def handed_over(self) -> None:
        """The child has its end: ours is closed, so that nothing keeps the pipe."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.handed_over()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
