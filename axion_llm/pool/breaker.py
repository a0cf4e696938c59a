"""How soon a model whose process crashed may be loaded again: at once, then after a while, then not for a minute.

    crashes within 10 minutes    the next load
    1                            at once: whoever waits for an answer gets it
    2, 3, 4                      1, 2, 4 s after the last crash
    5 and more                   refused for a minute after the last crash, then one is let through as a trial

What one request has done twice, the second time alone, does not count (see quarantine.py).

Pure: times are the pool's clock, in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

WINDOW_SECONDS = 600.0
MAX_CRASHES = 5
OPEN_SECONDS = 60.0


class Breaker:
    def __init__(self) -> None:
        self._crashes: list[tuple[float, int | None]] = []
        self._excused: deque[int | None] = deque(maxlen=64)

    def note_crash(self, now: float, pid: int | None = None) -> None:
        self._crashes = [crash for crash in self._crashes if now - crash[0] < WINDOW_SECONDS] + [(now, pid)]

    def excuse(self, pids: Iterable[int | None]) -> None:
        """The crashes of these processes, noted before or later, were a single request's fault and not the model's."""
        self._excused += [pid for pid in pids if pid is not None]

    def num_crashes(self, now: float) -> int:
        """Lately."""
        return len(self._recent(now))

    def delay_seconds(self, now: float) -> float:
        """From now until the next load may begin."""
        recent = self._recent(now)
        if len(recent) < 2:
            return 0.0
        wait = OPEN_SECONDS if len(recent) >= MAX_CRASHES else 2.0 ** (len(recent) - 2)
        return max(0.0, recent[-1] + wait - now)

    def is_open(self, now: float) -> bool:
        """No load now, and nobody should wait for one."""
        return self.num_crashes(now) >= MAX_CRASHES and self.delay_seconds(now) > 0

    def _recent(self, now: float) -> list[float]:
        return [at for at, pid in self._crashes if now - at < WINDOW_SECONDS and pid not in self._excused]
