"""What the service counts of its requests, on all ports together. /metrics and the status read it."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for each counter, of no use to anybody here

# In seconds. From one decode step of a tiny model to a prompt of 32K tokens on few cores.
TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 180.0)
GAP_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 180.0, 600.0)
RATE_SECONDS = 5  # over which tokens per second are averaged


class Rate:
    """Tokens per second, from counts by the second of a clock."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, num_tokens: int, now: float) -> None:
        second = int(now)
        if second not in self._counts:
            self._counts = {s: n for s, n in self._counts.items() if second - s <= RATE_SECONDS}
            self._counts[second] = 0
        self._counts[second] += num_tokens

    def per_second(self, now: float) -> float:
        """Over the last RATE_SECONDS, or since the first token in them."""
        recent = {s: n for s, n in self._counts.items() if now - s <= RATE_SECONDS}
        return sum(recent.values()) / max(now - min(recent), 1.0) if recent else 0.0


class ModelMeter:
    """Of one model; on the way of every token, so what it needs is looked up once."""

    def __init__(self, ttft: Histogram, gaps: Histogram) -> None:
        self.ttft = ttft
        self.gaps = gaps
        self.rate = Rate()


class Telemetry:
    """One for all ports of a process, with a Prometheus registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.in_flight = Gauge("axion_requests_in_flight", "Completions that are being answered", registry=registry)
        self._requests = Counter(
            "axion_requests",
            "HTTP requests by port, endpoint and status; 499: the client left before there was one",
            ["port", "endpoint", "status"],
            registry=registry,
        )
        self._ends = Counter(
            "axion_completions", "Completions by how they ended", ["model", "port", "finish"], registry=registry
        )
        self._tokens = Counter(
            "axion_request_tokens",
            "Tokens of completions: in (prompts), cached (of them, not computed again), out",
            ["model", "port", "kind"],
            registry=registry,
        )
        self._duration = self._histogram(
            "axion_request_seconds", "Completions from first to last byte", DURATION_BUCKETS
        )
        self._ttft = self._histogram("axion_ttft_seconds", "From a request's arrival to its first token", TTFT_BUCKETS)
        self._gaps = self._histogram("axion_token_gap_seconds", "Between two pieces of one text", GAP_BUCKETS)
        self._meters: dict[str, ModelMeter] = {}
        self.highest: dict[tuple[str, str], float] = {}  # of each engine counter, by model: what was shown of it

    def meter(self, model: str) -> ModelMeter:
        """`model`: a name of the registry, never a client's word, or anybody could fill the memory."""
        if model not in self._meters:
            self._meters[model] = ModelMeter(self._ttft.labels(model), self._gaps.labels(model))
        return self._meters[model]

    def tokens_per_second(self, model: str) -> float | None:
        meter = self._meters.get(model)
        return meter.rate.per_second(time.monotonic()) if meter else None

    def count_request(self, port: str, endpoint: str, status: int) -> None:
        self._requests.labels(port, endpoint, str(status or 499)).inc()

    def count_completion(
        self, model: str, port: str, finish: str, seconds: float, *, tokens_in: int, cached: int, tokens_out: int
    ) -> None:
        self._ends.labels(model, port, finish).inc()
        self._duration.labels(model).observe(seconds)
        for kind, count in (("in", tokens_in), ("cached", cached), ("out", tokens_out)):
            self._tokens.labels(model, port, kind).inc(count)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry)
