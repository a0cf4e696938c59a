"""`/metrics` in Prometheus' text form: requests (telemetry.py), engines, loads and memory.

Counters of an engine are sums over all processes that the model has had, so they never go back. Rates are left to
Prometheus: the share of decodes that reuse a graph is rate(axion_graph_reuses_total) / rate(axion_engine_steps_total),
tokens per second rate(axion_request_tokens_total{kind="out"}).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from axion_llm import __version__
from axion_llm.pool.interface import ModelState, ModelStatus
from axion_llm.pool.report import Account, MemoryReport
from axion_llm.servers import status
from axion_llm.servers.service import Service
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
    "num_masks": ("axion_masks", "Token masks of grammars"),
    "mask_seconds": ("axion_mask_seconds", "Computing token masks, beside llama_decode"),
    "num_forced_tokens": ("axion_forced_tokens", "Tokens that a grammar left no choice about"),
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
ACCOUNTS = {
    "load_seconds": ("axion_model_load_seconds", "Time of the loads that succeeded"),
    "num_crashes": ("axion_model_crashes", "Ends of a model's process that nobody asked for"),
    "num_restarts": ("axion_model_restarts", "Loads that followed a crash"),
}
STATES = get_args(ModelState)

Sample = tuple[Sequence[str], float]  # label values, value


async def render(service: Service) -> bytes:
    """The page now. A model that does not answer (it is being unloaded, or hangs) has no gauges."""
    pool, telemetry = service.pool, service.telemetry
    stats = await status.engine_stats(pool.running())
    memory = await pool.memory()
    telemetry.in_flight.set(service.drain.num_in_flight)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(stats, pool.accounts(), pool.models(), memory, telemetry.highest))
    return generate_latest(telemetry.registry) + generate_latest(registry)


class _Page(Collector):
    def __init__(
        self,
        stats: Mapping[str, EngineStats],
        accounts: Mapping[str, Account],
        models: Sequence[ModelStatus],
        memory: MemoryReport,
        highest: dict[tuple[str, str], float],
    ) -> None:
        self._stats, self._accounts, self._models, self._memory = stats, accounts, models, memory
        self._highest = highest

    def collect(self) -> Iterable[Metric]:
        yield _gauge("axion_build_info", "Always 1", ["version"], [([__version__], 1)])
        yield from self._engines()
        yield from self._loads()
        yield from self._states()
        yield from self._bytes()

    def _engines(self) -> Iterator[Metric]:
        for field, (name, text) in COUNTERS.items():
            yield _counter(name, text, ["model"], [([model], self._total(model, field)) for model in self._known()])
        for field, (name, text) in GAUGES.items():
            yield _gauge(name, text, ["model"], [([model], getattr(s, field)) for model, s in self._stats.items()])

    def _known(self) -> list[str]:
        return list(dict.fromkeys([*self._stats, *self._accounts]))

    def _total(self, model: str, field: str) -> float:
        """Of all its processes. While one ends it is in neither sum for a moment, hence what was shown before."""
        ended, now = self._accounts.get(model, Account()).ended, self._stats.get(model, EngineStats())
        total = getattr(ended, field) + getattr(now, field)
        self._highest[model, field] = max(total, self._highest.get((model, field), 0))
        return self._highest[model, field]

    def _loads(self) -> Iterator[Metric]:
        accounts = self._accounts
        loads = [([m, "loaded"], float(a.num_loads)) for m, a in accounts.items()]
        loads += [([m, "failed"], float(a.num_failed_loads)) for m, a in accounts.items()]
        yield _counter("axion_model_loads", "Loads by how they ended", ["model", "result"], loads)
        unloads = [([m, reason], float(n)) for m, a in accounts.items() for reason, n in a.num_unloads.items()]
        yield _counter("axion_model_unloads", "Unloads; evicted: for another model", ["model", "reason"], unloads)
        for field, (name, text) in ACCOUNTS.items():
            yield _counter(name, text, ["model"], [([m], getattr(a, field)) for m, a in accounts.items()])

    def _states(self) -> Iterator[Metric]:
        states = [([m.spec.name, state], float(m.state == state)) for m in self._models for state in STATES]
        yield _gauge("axion_model_state", "1 for the state that the model is in", ["model", "state"], states)
        pinned = [([m.spec.name], float(m.is_pinned)) for m in self._models]
        yield _gauge("axion_model_pinned", "1: neither idle time nor another model unloads it", ["model"], pinned)
        waiting = [([m.spec.name], float(m.num_requests)) for m in self._models]
        yield _gauge("axion_model_requests", "Requests that use the model or wait for it", ["model"], waiting)
        cores = [([m.spec.name], float(m.num_threads)) for m in self._models if m.state == "ready"]
        yield _gauge("axion_model_threads", "Threads the model computes with", ["model"], cores)

    def _bytes(self) -> Iterator[Metric]:
        memory = self._memory
        processes = {f"model:{name}": worker.process for name, worker in memory.workers.items()}
        processes |= {"server": memory.server} if memory.server else {}
        processes |= {f"spare:{i}": spare for i, spare in enumerate(memory.spares)}
        kinds = [([p, kind], getattr(m, kind)) for p, m in processes.items() for kind in ("rss", "pss", "uss")]
        yield _gauge("axion_process_memory_bytes", "Resident memory of each process", ["process", "kind"], kinds)
        parts = [
            ([name, part], float(value))
            for name, worker in memory.workers.items()
            for part, value in (
                ("weights", worker.process.weights),
                ("kv", worker.kv),
                ("compute", worker.compute),
                ("other", worker.other),
            )
        ]
        yield _gauge("axion_model_memory_bytes", "RSS of a model's process by what it is for", ["model", "part"], parts)
        available: list[Sample] = [([], float(memory.machine.available))]
        yield _gauge("axion_memory_available_bytes", "Of the machine, under the cgroup's limit too", [], available)


def _counter(name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, text: str, labels: Sequence[str], samples: Iterable[Sample]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
