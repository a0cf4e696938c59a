"""What clients send by habit, and how: each is taken as it is meant, or refused by its own name."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import pytest

from axion_llm import errors
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import MAX_BODY_BYTES, LiveServer

CHAT, RESPONSES, TEXT = "/v1/chat/completions", "/v1/responses", "/v1/completions"
HI: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
SAID: dict[str, Any] = {"model": "fake", "input": "Hi", "stream": False}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, SAID | {"reasoning": None, "text": None, "tools": None, "store": None, "include": None}),
        (RESPONSES, SAID | {"reasoning": {"effort": None, "summary": None}, "text": {"verbosity": None}}),
        (CHAT, HI | dict.fromkeys(("tools", "stop", "seed", "temperature", "top_p", "n", "response_format", "store"))),
        (CHAT, HI | {"reasoning_effort": None, "stream_options": None, "logit_bias": None, "max_tokens": None}),
    ],
)
def test_null_is_absent(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert "warning" not in answer.headers


def test_null_is_absent_in_our_own_options(server: LiveServer) -> None:
    options = dict.fromkeys(("early_stop", "pre_evaluate", "include_experts", "events", "n", "strategy"))
    answer = httpx.post(f"{server.urls['consensus']}{CHAT}", json={**HI, "model": "consensus", "consensus": options})
    assert answer.status_code == 200, answer.text
    order = f"{server.urls['standard']}/admin/models/fake/unload"
    assert httpx.post(order, json={"force": None}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        (
            CHAT,
            HI | {"reasoning_effort": "high", "verbosity": "low", "store": True},
            "reasoning_effort, verbosity, store",
        ),
        (CHAT, HI | {"reasoning_effort": "minimal"}, "reasoning_effort"),
        (RESPONSES, SAID | {"reasoning": {"effort": "medium", "summary": "auto"}}, "reasoning"),
        (RESPONSES, SAID | {"text": {"verbosity": "low"}}, "text.verbosity"),
    ],
)
def test_habits_are_taken_and_told(http: httpx.Client, path: str, body: dict[str, Any], named: str) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["warning"] == f'299 - "without effect here: {named}"'


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/fake", "/openapi.json", "/metrics", "/health", "/"])
def test_head_is_get_without_a_body(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)
    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


def zipped(body: bytes) -> dict[str, Any]:
    return {"content": gzip.compress(body), "headers": {"content-type": "application/json", "content-encoding": "gzip"}}


def test_a_body_in_gzip(http: httpx.Client, pool: FakePool) -> None:
    answer = http.post(TEXT, **zipped(b'{"model": "fake", "prompt": "Hello there", "stream": false}'))
    assert answer.status_code == 200, answer.text
    assert pool.requests[-1].prompt == "Hello there"


def test_what_it_unpacks_to_is_bounded(http: httpx.Client) -> None:
    bomb = zipped(b'{"model": "fake", "prompt": "' + b"x" * 50_000_000 + b'"}')
    assert len(bomb["content"]) < MAX_BODY_BYTES
    assert http.post(TEXT, **bomb).status_code == 413


@pytest.mark.parametrize("broken", [b"", b"no gzip", gzip.compress(b"{}")[:-4], gzip.compress(b"{}") * 2])
def test_what_is_no_gzip(http: httpx.Client, broken: bytes) -> None:
    answer = http.post(TEXT, content=broken, headers=zipped(b"")["headers"])
    assert answer.status_code == 400
    assert "gzip" in answer.json()["error"]["message"]


def test_other_encodings_are_named(http: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "br"}
    answer = http.post(TEXT, content=b"{}", headers=headers)
    assert answer.status_code == 415 and "br" in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "told", "param"),
    [
        (CHAT, HI, "prompt", "messages"),
        (CHAT, HI | {"max_tokens": 9}, "max_tokens", "max_tokens"),
        (CHAT, HI | {"max_completion_tokens": 9}, "max_tokens", "max_completion_tokens"),
        (CHAT, HI | {"n_predict": 9}, "max_tokens", "n_predict"),
        (RESPONSES, SAID, "prompt", "input"),
        (RESPONSES, SAID | {"max_output_tokens": 9}, "max_tokens", "max_output_tokens"),
        (TEXT, {"model": "fake", "prompt": "Hi"}, "prompt", "prompt"),
        (TEXT, {"model": "fake", "prompt": "Hi", "max_tokens": 9}, "max_tokens", "max_tokens"),
    ],
)
def test_an_error_names_what_was_sent(
    http: httpx.Client, pool: FakePool, stream: bool, path: str, body: dict[str, Any], told: str, param: str
) -> None:
    pool.script = Script(reject=errors.ContextLengthExceeded(f"too long: lower {told}", param=told))
    answer = http.post(path, json=body | {"stream": stream})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert told == "prompt" or param in error["message"]


@pytest.mark.parametrize("arguments", ["", " ", "null", None])
def test_no_arguments_in_any_form(http: httpx.Client, arguments: str | None) -> None:
    assert history(http, arguments).status_code == 200


@pytest.mark.parametrize("arguments", ["{", "nothing", "[1]", "3", '{"a": "\\ud800"}'])
def test_arguments_that_are_none(http: httpx.Client, arguments: str) -> None:
    answer = history(http, arguments)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[1].tool_calls[0].function.arguments"


def history(http: httpx.Client, arguments: str | None) -> httpx.Response:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}}
    turns = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c"}]
    turns[1]["content"] = "noon"
    return http.post(CHAT, json=HI | {"messages": [*HI["messages"], *turns]})


@pytest.mark.parametrize("known", [["date"], {}, 5, True])
def test_a_keyword_of_another_type_than_the_language_has(http: httpx.Client, known: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": known}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = http.post(CHAT, json=HI | {"response_format": form})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "response_format.json_schema.schema"
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    answer = http.post(CHAT, json=HI | {"tools": [tool]})
    assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("tools")


def test_half_a_surrogate_pair_inside_of_json_inside_of_json(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=HI | {"structured_outputs": {"json": '{"const": "\\ud800"}'}})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "structured_outputs.json"


@pytest.mark.parametrize(
    ("field", "value"),
    [("repeat_penalty", 1e-300), ("repeat_penalty", 5e-324), ("repeat_penalty", 1e300), ("temperature", 1e300)],
)
def test_numbers_that_a_float_cannot_hold_are_named(http: httpx.Client, field: str, value: float) -> None:
    answer = http.post(CHAT, json=HI | {field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


@pytest.mark.parametrize("value", [1e-38, 5e-324, 1e-8, 0])
def test_a_temperature_next_to_nothing_is_greedy(http: httpx.Client, pool: FakePool, value: float) -> None:
    assert http.post(CHAT, json=HI | {"temperature": value, "top_p": 1, "seed": 1}).status_code == 200
    assert pool.requests[-1].sampling.temperature == 0
