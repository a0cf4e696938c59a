"""`/metrics`: the counters of the loaded models' engines, in Prometheus' text form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from axion_llm.errors import AxionError
from axion_llm.pool.interface import RunningModel
from axion_llm.worker.messages import EngineStats

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Field of EngineStats: name, help. Time outside llama_decode is loop minus decode.
COUNTERS = {
    "num_steps": ("axion_engine_steps", "Scheduler steps"),
    "num_decode_steps": ("axion_engine_decode_steps", "Of the steps, those that only decode"),
    "num_prompt_tokens": ("axion_prompt_tokens", "Prompt tokens computed"),
    "num_cached_tokens": ("axion_cached_tokens", "Prompt tokens that the prefix cache had"),
    "num_output_tokens": ("axion_output_tokens", "Tokens generated"),
    "num_drafted_tokens": ("axion_drafted_tokens", "Tokens guessed by speculation"),
    "num_accepted_tokens": ("axion_accepted_tokens", "Of the guessed tokens, those that were right"),
    "num_preemptions": ("axion_preemptions", "Sequences sent back to wait for want of KV cells"),
    "num_refused": ("axion_requests_refused", "Requests refused because the queue was full"),
    "loop_seconds": ("axion_engine_loop_seconds", "Wall time of the engine loop while there was work"),
    "step_seconds": ("axion_engine_step_seconds", "Of the loop, inside steps"),
    "decode_seconds": ("axion_engine_decode_seconds", "Of the steps, inside llama_decode"),
    "num_graph_reuses": ("axion_graph_reuses", "Decodes that reused the compute graph of the one before"),
    "num_decode_graph_reuses": ("axion_decode_graph_reuses", "The same, of the steps that only decode"),
}
GAUGES = {
    "num_running": ("axion_sequences_running", "Sequences that have a place in the KV cache"),
    "num_waiting": ("axion_sequences_waiting", "Sequences that wait for one"),
    "kv_used_tokens": ("axion_kv_used_tokens", "KV cache cells in use"),
    "kv_cached_tokens": ("axion_kv_cached_tokens", "Of them, held by the prefix cache"),
    "prompt_token_seconds": ("axion_prompt_token_seconds", "Measured time of one prompt token"),
    "kv_total_tokens": ("axion_kv_total_tokens", "KV cache cells"),
}


class _Engines(Collector):
    def __init__(self, stats: Mapping[str, EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        for field, (name, text) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["model"])
            for model, stats in self._stats.items():
                counter.add_metric([model], getattr(stats, field))
            yield counter
        for field, (name, text) in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["model"])
            for model, stats in self._stats.items():
                gauge.add_metric([model], getattr(stats, field))
            yield gauge


async def render(running: Mapping[str, RunningModel]) -> bytes:
    """The page for these models; one that does not answer (it is being unloaded, or hangs) is left out."""
    answers = await asyncio.gather(*(model.stats() for model in running.values()), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, AxionError):
            raise answer
    stats = {name: a for name, a in zip(running, answers, strict=True) if isinstance(a, EngineStats)}
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Engines(stats))
    return generate_latest(registry)
