"""A span for each request, stations inside it, joined to the client's own trace."""

from __future__ import annotations

import builtins
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, WorkerDied
from axion_llm.servers.app import create_app
from axion_llm.servers.tracing import SpanWriter
from tests.fakes.fake_pool import FakePool, Script

CHAT = "/v1/chat/completions"
BODY = {"model": "fake", "messages": [{"role": "user", "content": "my secret"}]}


async def spans_of(script: Script, path: str = CHAT, body: Any = BODY, **headers: str) -> list[Any]:
    exporter = InMemorySpanExporter()
    tracer = SpanWriter(exporter)
    app = create_app(FakePool(script=script), Settings(), kind="standard", tracer=tracer)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        await client.post(path, json=body, headers=headers)
    tracer.stop()
    return list(exporter.get_finished_spans())


async def test_a_request_and_its_stations() -> None:
    spans = await spans_of(Script(cached=3), **{"x-request-id": "mine"})
    assert [s.name for s in spans] == ["queue", "prefill", "decode", "chat fake"]
    *stations, request = spans
    assert request.kind is SpanKind.SERVER
    assert request.status.status_code is StatusCode.UNSET
    expected = {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": CHAT,
        "axion.request_id": "mine",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "fake",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }
    assert expected.items() <= dict(request.attributes).items()
    assert "my secret" not in str([s.to_json() for s in spans])
    for span in stations:
        assert span.parent.span_id == request.context.span_id
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
    assert request.resource.attributes["service.name"] == "axion-llm"


async def test_the_clients_trace_goes_on() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    *_, request = await spans_of(Script(), traceparent=parent)
    assert f"{request.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{request.parent.span_id:016x}" == "b7ad6b7169203331"
    *_, other = await spans_of(Script(), traceparent="nonsense")
    assert other.parent is None


async def test_errors() -> None:
    [request] = await spans_of(Script(reject=WorkerDied("gone")))
    assert request.status.status_code is StatusCode.ERROR
    [refused] = await spans_of(Script(), body={})  # the client's fault is no error of the service
    assert refused.status.status_code is StatusCode.UNSET
    assert refused.attributes["http.response.status_code"] == 400


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"axion-llm\[tracing\]"):
        SpanWriter()
