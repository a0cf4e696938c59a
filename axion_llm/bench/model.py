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
        self.model.truncate_sequence(0, depth)
        return seconds

    def _fill(self, position: int, num_tokens: int, step: int) -> None:
        end = position + num_tokens
        while position < end:
            count = min(step, end - position)
            tokens = [(position + i) * 7919 % self.model.n_vocab for i in range(count)]
            self._batch.clear()
            self._batch.add(tokens, position, 0, want_logits=True)
            self.model.decode(self._batch)
            position += count

    def reach(self, depth: int) -> None:
        self.model.remove_sequence(0)
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
) -> list[Row]:
    library = native.load()
    names = {kernel.name for kernel in library.kernels() if kernel.enabled}
    rows = []
    for kv_type in kv_types:
        runner = Runner(path, kv_type, max(depths) + max(num_prompt, num_output), threads)
        for depth in depths:
            runner.reach(depth)
            for test, count, step in ((f"pp{num_prompt}", num_prompt, BATCH), (f"tg{num_output}", num_output, 1)):
                speeds: dict[bool, list[float]] = {True: [], False: []}
                for _ in range(rounds):
                    for is_on, speed in speeds.items():
                        library.enable(names if is_on else set())
                        speed.append(count / runner.run(count, depth, step))
                library.enable(names)
                rows.append(Row(test, kv_type, depth, *(statistics.median(s) for s in speeds.values())))
                say(f"{kv_type} depth {depth} {test}: on {rows[-1].on:.1f}, off {rows[-1].off:.1f}")
        runner.model.close()
    return rows
