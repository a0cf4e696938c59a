"""Counters of the consensus port, by strategy and by expert."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from axion_llm.consensus.attempt import Attempt

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 180.0)
SHARES = (0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0)


class Meter:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._ends = Counter(
            "axion_consensus_requests", "Requests by how they ended", ["strategy", "decided_by"], registry=registry
        )
        self._seconds = Histogram(
            "axion_consensus_seconds", "To the end of the answer", ["strategy"], buckets=SECONDS, registry=registry
        )
        self._agreement = Histogram(
            "axion_consensus_agreement", "Share of the winning answer", ["strategy"], buckets=SHARES, registry=registry
        )
        self._early = Counter(
            "axion_consensus_early_stops", "Votes decided before their end", ["strategy"], registry=registry
        )
        self._calls = Counter(
            "axion_consensus_calls", "Calls of experts by how they ended", ["model", "status"], registry=registry
        )
        self._tokens = Counter(
            "axion_consensus_tokens",
            "Output tokens of experts by how the call ended",
            ["model", "status"],
            registry=registry,
        )

    def count(self, strategy: str, decided_by: str, seconds: float, agreement: float | None, is_early: bool) -> None:
        self._ends.labels(strategy, decided_by).inc()
        self._seconds.labels(strategy).observe(seconds)
        if agreement is not None:
            self._agreement.labels(strategy).observe(agreement)
        if is_early:
            self._early.labels(strategy).inc()

    def count_calls(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if attempt.asked is not None:
                self._calls.labels(attempt.expert, attempt.status).inc()
                self._tokens.labels(attempt.expert, attempt.status).inc(attempt.completion_tokens)
