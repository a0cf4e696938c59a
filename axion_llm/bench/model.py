"""Prefill and decode of one model at several depths, our kernels on and off in turn in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from axion_llm import native
from axion_llm.engine.binding import Batch, LlamaModel
from axion_llm.worker.messages import KvType, Load

BATCH = 512  # tokens a step


@dataclass(frozen=True)
class Row:
    """Tokens per second, medians over the rounds, with `depth` tokens in the cache before."""

    test: str  # pp512, tg32
    kv_type: str
    depth: int
    on: float
    off: float
    barriers_on: float = 0.0  # between the threads, for each batch that is computed (in tg tests: for each token)
    barriers_off: float = 0.0

    @property
    def ratio(self) -> float:
        return self.on / self.off


class Runner:
    """One sequence of one model; tokens are arbitrary, speed does not depend on them."""

    def __init__(self, path: Path, kv_type: KvType, n_ctx: int, threads: int) -> None:
        load = Load("bench", str(path), n_ctx=n_ctx, n_seq_max=1, n_batch=BATCH, kv_type=kv_type)
        self.model = LlamaModel(load, threads)
        self._batch = Batch(BATCH)

    def run(self, num_tokens: int, depth: int, step: int) -> float:
        """Compute `num_tokens` behind `depth`, `step` at a time; seconds. The cache is as before afterwards."""
        started = time.perf_counter()
        self._fill(depth, num_tokens, step)
        seconds = time.perf_counter() - started
        self.model.truncate(0, depth)
        return seconds

    def _fill(self, position: int, num_tokens: int, step: int) -> None:
        end = position + num_tokens
        while position < end:
            count = min(step, end - position)
            tokens = [(position + i) * 7919 % self.model.n_vocab for i in range(count)]
            self._batch.clear()
            self._batch.add(tokens, position, 0, num_outputs=1)
            self.model.decode(self._batch)
            position += count

    def reach(self, depth: int) -> None:
        self.model.truncate(0, 0)
        self._fill(0, depth, BATCH)


def measure(
    path: Path,
    kv_types: list[KvType],
    depths: list[int],
    rounds: int,
    threads: int,
    say: Callable[[str], None],
    *,
    num_prompt: int = 512,
    num_output: int = 32,
    whole_prompt: int = 0,
) -> list[Row]:
    """`whole_prompt`: also a prompt of that length from an empty cache, once a side (stock takes minutes over it)."""
    library = native.load()
    names = {kernel.name for kernel in library.kernels() if kernel.enabled}
    rows: list[Row] = []
    for kv_type in kv_types:
        longest = max(max(depths) + max(num_prompt, num_output), whole_prompt)
        runner = Runner(path, kv_type, longest, threads)

        def side_by_side(
            test: str, count: int, depth: int, step: int, times: int, runner: Runner = runner, kv: str = kv_type
        ) -> None:
            speeds: dict[bool, list[float]] = {True: [], False: []}
            barriers = {True: 0.0, False: 0.0}
            for _ in range(times):
                for is_on, speed in speeds.items():
                    library.enable(names if is_on else set())
                    before = library.num_barriers()
                    speed.append(count / runner.run(count, depth, step))
                    barriers[is_on] = (library.num_barriers() - before) / -(-count // step)
            library.enable(names)
            medians = (statistics.median(s) for s in speeds.values())
            rows.append(Row(test, kv, depth, *medians, *barriers.values()))
            say(f"{kv} depth {depth} {test}: on {rows[-1].on:.1f}, off {rows[-1].off:.1f}")

        for depth in depths:
            runner.reach(depth)
            side_by_side(f"pp{num_prompt}", num_prompt, depth, BATCH, rounds)
            side_by_side(f"tg{num_output}", num_output, depth, 1, rounds)
        if whole_prompt:
            runner.reach(0)
            side_by_side(f"pp{whole_prompt}", whole_prompt, 0, BATCH, 1)
        runner.model.close()
    return rows


def against_f16(row: Row, rows: list[Row]) -> float | None:
    """Ours on this cache against stock on an F16 cache in the same test; None when that was not measured."""
    peers = [r.off for r in rows if (r.test, r.depth, r.kv_type) == (row.test, row.depth, "f16")]
    return row.on / peers[0] if peers else None
