"""What the engine counts, for /metrics and the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass

from axion_llm.engine.constraint import Masks
from axion_llm.engine.scheduler import Scheduler, Step
from axion_llm.worker.messages import EngineStats


@dataclass
class Counters:
    num_steps: int = 0
    num_decode_steps: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    num_drafted_tokens: int = 0
    num_accepted_tokens: int = 0
    num_decode_graph_reuses: int = 0
    num_forced_tokens: int = 0
    step_seconds: float = 0.0
    decode_seconds: float = 0.0

    def count_step(self, seconds: float) -> None:
        self.num_steps += 1
        self.step_seconds += seconds

    def count_decode(self, step: Step, seconds: float, num_graph_reuses: int) -> None:
        self.decode_seconds += seconds
        self.num_prompt_tokens += step.num_prompt_tokens
        if step.num_decodes == len(step.slices):
            self.num_decode_steps += 1
            self.num_decode_graph_reuses += num_graph_reuses

    def stats(self, scheduler: Scheduler, masks: Masks, num_graph_reuses: int, num_refused: int) -> EngineStats:
        return EngineStats(
            **vars(self),
            num_preemptions=scheduler.num_preemptions,
            num_refused=num_refused,
            num_masks=masks.num_masks,
            mask_seconds=masks.seconds,
            num_running=len(scheduler.running),
            num_waiting=len(scheduler.waiting),
            kv_used_tokens=scheduler.cells_used,
            kv_cached_tokens=scheduler.cache.num_cells,
            kv_total_tokens=scheduler.num_cells,
            num_graph_reuses=num_graph_reuses,
            prompt_token_seconds=scheduler.pacing.token_seconds,
        )
