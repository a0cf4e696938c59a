"""OpenTelemetry spans of requests: off unless asked for (--tracing), and the extra `tracing` is installed.

A request is one span, and the stations of its first choice are three more inside it: queue, prefill, decode. They
are made when the request has ended, from times that the record has anyway, so tracing puts nothing between two
tokens. The names of attributes are OpenTelemetry's own for generative AI where it has one. No text of a prompt.

Where spans go is said by OpenTelemetry's variables: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and so on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from axion_llm import __version__
from axion_llm.errors import ConfigError
from axion_llm.servers.access import Record

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


class Tracer(Protocol):
    def write(self, record: Record, traceparent: str | None) -> None: ...

    def stop(self) -> None:
        """Sends what has not been sent yet."""
        ...


class SpanWriter:
    """A `Tracer`. Without an exporter spans go to the OTLP endpoint of the environment, in the background."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
        except ImportError:
            message = "tracing needs more packages: pip install 'axion-llm[tracing]'"
            raise ConfigError(message, param="tracing") from None
        named = Resource({"service.name": "axion-llm", "service.version": __version__})
        self._provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
        processor = SimpleSpanProcessor(exporter) if exporter else BatchSpanProcessor(_otlp())
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("axion_llm", __version__)

    def write(self, record: Record, traceparent: str | None) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        now = time.perf_counter()
        to_ns = _clock(now)
        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent} if traceparent else {})
        span = self._tracer.start_span(
            _name(record),
            context=parent,
            kind=trace.SpanKind.SERVER,
            start_time=to_ns(record.began),
            attributes=dict(_attributes(record)),
        )
        if record.status >= 500 or record.status == 0 or (record.finish or "").startswith("error"):
            span.set_status(trace.StatusCode.ERROR, record.finish)
        inside = trace.set_span_in_context(span)
        for name, begin, end in record.stations:
            station = self._tracer.start_span(name, context=inside, start_time=to_ns(begin))
            station.end(to_ns(end))
        span.end(to_ns(now))

    def stop(self) -> None:
        self._provider.shutdown()


def _otlp() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter: SpanExporter = OTLPSpanExporter()
    return exporter


def _clock(now: float) -> Any:
    offset = time.time_ns() - int(now * 1e9)
    return lambda at: int(at * 1e9) + offset


def _name(record: Record) -> str:
    operation = _OPERATIONS.get(record.path)
    return f"{operation} {record.model}" if operation and record.model else record.method


def _attributes(record: Record) -> Iterable[tuple[str, Any]]:
    fields: Mapping[str, Any] = {
        "http.request.method": record.method,
        "http.response.status_code": record.status,
        "url.path": record.path,
        "axion.request_id": record.id,
        "axion.port": record.port,
        "axion.key": record.key,
        "gen_ai.operation.name": _OPERATIONS.get(record.path),
        "gen_ai.request.model": record.model,
        "gen_ai.response.finish_reasons": [record.finish] if record.finish else None,
    }
    if record.model is not None:
        fields = {
            **fields,
            "gen_ai.provider.name": "axion_llm",
            "gen_ai.usage.input_tokens": record.tokens_in,
            "gen_ai.usage.cache_read.input_tokens": record.cached,
            "gen_ai.usage.output_tokens": record.tokens_out,
        }
        if record.first_token is not None:
            fields |= {"axion.ttft_seconds": record.first_token - record.began}
    return [(name, value) for name, value in fields.items() if value is not None]
