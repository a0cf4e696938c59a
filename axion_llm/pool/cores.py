"""One budget of cores for all models: those that work share it, and who works alone has all of it.

Without this every model would compute with as many threads as there are cores, and threads that spin at a barrier
would keep the cores from those they wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from axion_llm.errors import AxionError
from axion_llm.pool.interface import ModelWorker

HTTP_CORES_FROM = 8  # with so many cores, one is left to the HTTP process
SETTLE_SECONDS = 0.05  # cores that have got free are given out after so long: their model's next request may be near


@dataclass(frozen=True)
class Working:
    limit: int  # threads that its registry entry allows, 0 for any
    worker: ModelWorker | None  # None while it loads


@dataclass(frozen=True)
class Share:
    num_threads: int
    cpus: tuple[int, ...] = ()  # empty: any


def usable_cores(num_cores: int) -> int:
    """What models may use of a machine; the HTTP process gets by with what they leave where cores are few."""
    return num_cores - 1 if num_cores >= HTTP_CORES_FROM else num_cores


def share_cores(limits: Mapping[str, int], total: int) -> dict[str, int]:
    """Threads for each of the models that work, in their order; `limits`: the most that each may have, 0 for any.

    Equal parts; what one may not use goes to the others, the rest of a division to those that come first. Nobody gets
    less than one, so with more models than cores the threads are more than the cores; single threads do not spin.
    """
    shares = dict.fromkeys(limits, 1)
    left = total - len(shares)
    while left > 0:
        hungry = [name for name, limit in limits.items() if not limit or shares[name] < limit]
        if not hungry:
            break
        for name in sorted(hungry, key=lambda name: shares[name])[:left]:
            shares[name] += 1
            left -= 1
    return shares


def place(shares: Mapping[str, int], cpus: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Neighbouring CPUs for each, nobody's twice; with more threads than CPUs nobody is bound."""
    if sum(shares.values()) > len(cpus):
        return dict.fromkeys(shares, ())
    left = list(cpus)
    placed = {}
    for name, num_threads in shares.items():
        placed[name], left = tuple(left[:num_threads]), left[num_threads:]
    return placed


class CoreBudget:
    """Puts the shares into effect. `update` is to be called whenever a model begins or ends to work."""

    def __init__(self, total: int, pin_to: Sequence[int] = (), *, is_shared: bool = True) -> None:
        self.total = total
        self._pin_to = pin_to
        self._is_shared = is_shared
        self._given: dict[str, tuple[ModelWorker | None, Share]] = {}  # what which worker has been told, by model
        self._working: dict[str, Working] = {}
        self._settling: asyncio.TimerHandle | None = None

    def num_threads(self, name: str) -> int:
        """That a model computes with, or did when it last worked."""
        given = self._given.get(name)
        return given[1].num_threads if given else self.total

    def update(self, working: Mapping[str, Working]) -> None:
        """`working`: the models that have requests or are being loaded."""
        self._working = dict(working)
        self._apply(has_settled=False)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle)

    def close(self) -> None:
        if self._settling:
            self._settling.cancel()

    def _settle(self) -> None:
        self._settling = None
        self._apply(has_settled=True)

    def _apply(self, *, has_settled: bool) -> None:
        """Less at once, so that the machine is never oversubscribed for long; more when things have settled."""
        for name, share in self._shares().items():
            worker = self._working[name].worker
            told_to, told = self._given.get(name, (None, None))
            is_more = told is not None and share.num_threads > told.num_threads
            if told_to is worker and (share == told or (is_more and not has_settled)):
                continue
            self._given[name] = worker, share
            if worker is not None:  # else it is told with its load
                with contextlib.suppress(AxionError):  # it has just ended
                    worker.set_cores(share.num_threads, share.cpus)

    def _shares(self) -> dict[str, Share]:
        limits = {name: working.limit for name, working in self._working.items()}
        if not self._is_shared:
            return {name: Share(limit or self.total) for name, limit in limits.items()}
        threads = share_cores(limits, self.total)
        cpus = place(threads, self._pin_to) if self._pin_to else dict.fromkeys(threads, ())
        return {name: Share(threads[name], cpus[name]) for name in threads}
