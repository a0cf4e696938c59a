"""Tools and structured output through the Responses API, as the official SDK uses them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.fakes.fake_pool import FakePool, Script

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "%s"}}\n</tool_call>'


def cut(text: str, size: int = 7) -> Sequence[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def test_a_call(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=cut(CALL % "Paris"))
    found = sdk.responses.create(model="fake", input="Weather in Paris?", tools=[WEATHER], stream=False)
    (call,) = found.output
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments), call.status) == ("get_weather", {"city": "Paris"}, "completed")
    assert call.call_id.startswith("call_") and call.id is not None and call.id.startswith("fc_")
    assert found.output_text == ""
    assert found.tools[0].type == "function" and found.tools[0].name == "get_weather"
    assert '"get_weather"' in str(pool.requests[0].prompt)


def test_a_stream_of_words_and_calls(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=cut("Let me look. " + CALL % "Paris" + "\n" + CALL % "Rome"))
    events = list(sdk.responses.create(model="fake", input="Weather?", tools=[WEATHER], stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    kinds = [e.type.removeprefix("response.") for e in events]
    once = [kind for i, kind in enumerate(kinds) if not i or kinds[i - 1] != kind]
    call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert once == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *call,
        *call,
        "completed",
    ]
    by_item: dict[str, str] = {}
    for event in events:
        if event.type == "response.function_call_arguments.delta":
            by_item[event.item_id] = by_item.get(event.item_id, "") + event.delta
    last = events[-1]
    assert last.type == "response.completed"
    message, *calls = last.response.output
    assert message.type == "message" and last.response.output_text.strip() == "Let me look."
    assert [(c.id, c.arguments) for c in calls if c.type == "function_call"] == list(by_item.items())
    assert [json.loads(arguments)["city"] for arguments in by_item.values()] == ["Paris", "Rome"]
    added = [e for e in events if e.type == "response.output_item.added"]
    assert [e.output_index for e in added] == [0, 1, 2]


def test_results_go_back_by_a_stored_response_or_by_items(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=cut(CALL % "Paris"))
    first = sdk.responses.create(model="fake", input="Weather in Paris?", tools=[WEATHER], stream=False)
    call = first.output[0]
    assert call.type == "function_call"
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    pool.script = Script()
    sdk.responses.create(model="fake", input=[result], previous_response_id=first.id, tools=[WEATHER], stream=False)
    items: Any = [{"role": "user", "content": "Weather in Paris?"}, call.to_dict(), result]
    sdk.responses.create(model="fake", input=items, tools=[WEATHER], stream=False)
    by_id, by_items = (str(request.prompt) for request in pool.requests[1:])
    assert by_id == by_items
    assert "sunny" in by_id and '"city": "Paris"' in by_id


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)
def test_a_choice_is_enforced(sdk: openai.OpenAI, pool: FakePool, choice: Any) -> None:
    sdk.responses.create(model="fake", input="Hi", tools=[WEATHER], tool_choice=choice, stream=False)
    grammar = pool.requests[0].grammar
    assert grammar is not None and "get_weather" in grammar.source
    sdk.responses.create(model="fake", input="Hi", tools=[WEATHER], tool_choice="none", stream=False)
    assert pool.requests[1].grammar is None


class City(BaseModel):
    name: str
    population: int


def test_parse(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=cut('{"name": "Paris", "population": 2}'))
    found = sdk.responses.parse(model="fake", input="Paris?", text_format=City, extra_body={"stream": False})
    assert found.output_parsed == City(name="Paris", population=2)
    grammar = pool.requests[0].grammar
    assert grammar is not None and grammar.kind == "json_schema" and "population" in grammar.source
    assert found.text is not None and found.text.format is not None and found.text.format.type == "json_schema"
    with sdk.responses.stream(model="fake", input="Paris?", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(name="Paris", population=2)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}},
            "text.format.schema",
        ),
        ({"tools": [WEATHER | {"name": "no spaces"}]}, "tools[0].name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_bad_requests_name_this_apis_fields(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    error = http.post("/v1/responses", json={"model": "fake", "input": "Hi", **change}).json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(param)
