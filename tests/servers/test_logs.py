"""What the log says of a request: its id in every line, text or JSON, and a prompt's text only when asked for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from axion_llm.errors import WorkerDied
from axion_llm.servers.logs import JsonFormatter, Repeated, TextFormatter, _note_request, current_request
from tests.fakes.fake_pool import Script
from tests.servers.conftest import LiveServer, eventually
from tests.servers.test_guard import running

CHAT = "/v1/chat/completions"
SECRET = "the launch code is 0000"
BODY = {"model": "fake", "messages": [{"role": "user", "content": SECRET}]}


def test_a_line_for_each_turn_of_a_loop_is_one_line_and_a_count() -> None:
    repeated, shown = Repeated(60.0), []
    for i in range(1000):
        made = logging.makeLogRecord({"msg": "out of %s\n<socket %d>", "args": ("descriptors", i), "created": i / 10})
        if repeated.filter(made):
            shown.append(made.getMessage().partition("\n")[0])
    assert shown == ["out of descriptors", "out of descriptors (599 more times in 60 s)"]
    assert repeated.filter(logging.makeLogRecord({"msg": "something else", "created": 100.0}))


@contextmanager
def logged(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """Everything that the package logs, at debug level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(_note_request)
    logger = logging.getLogger("axion_llm")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_what_is_polled_is_no_news(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    """The chat page asks for the models every few seconds; a refusal is told all the same."""

    def levels() -> list[str]:
        return [record.levelname for record in caplog.records if record.name == "axion_llm.access"]

    with caplog.at_level(logging.DEBUG, "axion_llm.access"):
        for path in ("/v1/models", "/v1/models/fake", "/health", "/v1/models/unknown"):
            httpx.get(server.urls["standard"] + path)
        eventually(lambda: len(levels()) == 4)
    assert levels() == ["DEBUG", "DEBUG", "DEBUG", "INFO"]


def test_a_request_as_json(server: LiveServer) -> None:
    server.pool.script = Script(pieces=["a", "b", "c"], cached=2, delay=0.01)
    with logged(JsonFormatter()) as stream:
        httpx.post(server.urls["standard"] + CHAT, json=BODY, headers={"x-request-id": "mine"})
        eventually(lambda: "tokens_out" in stream.getvalue())
    [entry] = [json.loads(line) for line in stream.getvalue().splitlines() if "axion_llm.access" in line]
    assert entry["level"] == "info" and entry["time"].endswith("+00:00")
    expected = {
        "request_id": "mine",
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "port": "standard",
        "model": "fake",
        "finish": "stop",
        "tokens_out": 3,
        "tokens_cached": 2,
    }
    assert {name: entry[name] for name in expected} == expected
    assert entry["tokens_in"] > 0
    assert 0 < entry["ttft_ms"] < entry["ms"]
    assert entry["tokens_per_second"] > 0
    assert {"queue_ms", "prefill_ms", "decode_ms"} <= set(entry)


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter("%(message)s")])
def test_every_line_of_a_request_has_its_id(server: LiveServer, formatter: logging.Formatter) -> None:
    server.pool.script = Script(fail=RuntimeError("a bug"), fail_after=1)
    with logged(formatter) as stream:
        httpx.post(server.urls["streaming"] + CHAT, json=BODY, headers={"x-request-id": "mine"})
        eventually(lambda: "POST" in stream.getvalue())
    lines = [line for line in stream.getvalue().splitlines() if line.startswith(("{", "error", "POST"))]
    assert len(lines) == 2
    assert all("mine" in line for line in lines)
    assert all(line.count("id=mine") <= 1 for line in lines)


def test_text_of_what_belongs_to_no_request() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "hello", (), None)
    assert _note_request(record) and TextFormatter("%(message)s").format(record) == "hello"
    token = current_request.set("r1")
    assert _note_request(record) and TextFormatter("%(message)s").format(record) == "hello id=r1"
    current_request.reset(token)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [None, WorkerDied("gone"), RuntimeError("bug")])
def test_no_text_of_a_prompt_or_an_answer(server: LiveServer, stream: bool, fault: Exception | None) -> None:
    server.pool.script = Script(pieces=["very ", "private"], fail=fault, fail_after=1)
    bad = BODY | {"temperature": SECRET}
    with logged(JsonFormatter()) as log:
        httpx.post(server.urls["standard"] + CHAT, json=BODY | {"stream": stream})
        httpx.post(server.urls["standard"] + CHAT, json=bad)
        httpx.post(server.urls["standard"] + "/v1/completions", json={"model": "nope", "prompt": SECRET})
        eventually(lambda: log.getvalue().count("axion_llm.access") == 3)
    assert "launch" not in log.getvalue()
    assert "private" not in log.getvalue()


def test_texts_when_they_are_asked_for() -> None:
    with running(log_prompts=True) as server, logged(JsonFormatter()) as stream:
        server.pool.script = Script(pieces=["very ", "private"])
        httpx.post(server.urls["standard"] + CHAT, json=BODY, headers={"x-request-id": "mine"})
        eventually(lambda: "POST" in stream.getvalue())
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [SECRET in e["prompt"] for e in entries if "prompt" in e] == [True]
    assert [e["answer"] for e in entries if "answer" in e] == ["very private"]
    assert {e["request_id"] for e in entries if "request_id" in e} == {"mine"}
