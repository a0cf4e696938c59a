"""Tools as people use them: the real SDK and its helpers, both ports, the real model."""

import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.behaviour.statements import MODEL as MODEL_COLUMN
from tests.e2e.conftest import MODEL, ServeProcess

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "maxLength": 20},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
            },
            "required": ["city", "unit", "days"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time", "description": "The time now"}}
MESSAGES: Any = [{"role": "user", "content": "What is the weather like in Paris for the next 3 days?"}]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


def create(sdk: openai.OpenAI, **options: Any) -> Any:
    defaults = {"messages": MESSAGES, "tools": [WEATHER, TIME], "max_tokens": 400, "stream": False}
    return sdk.chat.completions.create(model=MODEL, **{**defaults, **options})


def check_calls(calls: Any) -> None:
    assert len({c.id for c in calls}) == len(calls) >= 1
    for call in calls:
        arguments = json.loads(call.function.arguments)
        tool = {"get_weather": WEATHER, "get_time": TIME}[call.function.name]
        jsonschema.validate(arguments, tool["function"].get("parameters", {"type": "object", "maxProperties": 0}))


@pytest.mark.behaviour("tools.required")
@pytest.mark.parametrize("seed", range(2))
def test_required_and_named_calls_satisfy_the_schema(sdk: openai.OpenAI, seed: int) -> None:
    for choice in ("required", NAMED):
        done = create(sdk, tool_choice=choice, seed=seed, temperature=1.2)
        message = done.choices[0].message
        assert (done.choices[0].finish_reason, message.content) == ("tool_calls", None)
        check_calls(message.tool_calls)
        if choice is NAMED:
            assert {c.function.name for c in message.tool_calls} == {"get_weather"}


@pytest.mark.behaviour("tools.parallel")
def test_one_call_only_without_parallel_calls(sdk: openai.OpenAI) -> None:
    message = create(sdk, tool_choice="required", parallel_tool_calls=False).choices[0].message
    assert len(message.tool_calls) == 1


@pytest.mark.behaviour("tools.deltas", "tools.parallel")
def test_a_stream_gives_the_same_calls_in_parts(sdk: openai.OpenAI) -> None:
    options = {"tool_choice": "required", "seed": 4, "temperature": 0.8}
    whole = create(sdk, **options).choices[0].message
    chunks = list(create(sdk, **options, stream=True))
    deltas = [c.choices[0].delta for c in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", None)
    parts = [part for d in deltas for part in d.tool_calls or []]
    calls: dict[int, list[str]] = {}
    for part in parts:
        if part.index not in calls:
            assert part.id and part.type == "function" and part.function.name
            calls[part.index] = [part.function.name, ""]
        else:
            assert part.id is None and part.function.name is None
        calls[part.index][1] += part.function.arguments
    assert [tuple(c) for c in calls.values()] == [(c.function.name, c.function.arguments) for c in whole.tool_calls]
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["tool_calls"]


@pytest.mark.behaviour("tools.deltas")
def test_the_sdks_streaming_helper(sdk: openai.OpenAI) -> None:
    class GetWeather(BaseModel):
        """The weather in a city"""

        city: str = Field(max_length=20)
        unit: Literal["celsius", "fahrenheit"]

    tools = [openai.pydantic_function_tool(GetWeather)]
    with sdk.chat.completions.stream(
        model=MODEL, messages=MESSAGES, tools=tools, tool_choice="required", parallel_tool_calls=False, max_tokens=300
    ) as stream:
        done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert len(done) == 1
    calls = final.choices[0].message.tool_calls
    assert calls and isinstance(calls[0].function.parsed_arguments, GetWeather)


@pytest.mark.behaviour("tools.choice")
def test_auto_and_none(sdk: openai.OpenAI) -> None:
    """What a small model does with tools is its own affair; the answer has one of two shapes."""
    auto = create(sdk, tool_choice="auto", temperature=0).choices[0]
    if auto.finish_reason == "tool_calls":
        check_calls(auto.message.tool_calls)
    else:
        assert auto.message.content and auto.message.tool_calls is None
    none = create(sdk, tool_choice="none", temperature=0).choices[0].message
    plain = create(sdk, tools=openai.NOT_GIVEN, temperature=0).choices[0].message
    assert (none.tool_calls, none.content) == (None, plain.content)


@pytest.mark.behaviour("tools.conversation")
def test_a_conversation_with_results(sdk: openai.OpenAI) -> None:
    asked = create(sdk, tool_choice=NAMED, parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": '{"forecast": "rain, 12 degrees"}'}
    answer = create(sdk, messages=[*MESSAGES, asked.model_dump(exclude_none=True), result], tool_choice="none")
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > 40


def test_tools_or_an_answer_by_a_schema(sdk: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for seed in range(3):
        choice = create(sdk, response_format=wanted, seed=seed, temperature=1.0).choices[0]
        if choice.message.tool_calls:
            check_calls(choice.message.tool_calls)
        else:
            jsonschema.validate(json.loads(choice.message.content), schema)


def test_log_probabilities_come_with_calls(sdk: openai.OpenAI) -> None:
    done = create(sdk, tool_choice=NAMED, logprobs=True, parallel_tool_calls=False, temperature=0)
    check_calls(done.choices[0].message.tool_calls)
    assert len(done.choices[0].logprobs.content) == done.usage.completion_tokens


BAD = [
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [TIME, TIME]}, "tools"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"messages": [*MESSAGES, {"role": "tool", "content": "x"}]}, "messages[1]"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    (
        {
            "tool_choice": "required",
            "tools": [{"type": "function", "function": {"name": "a", "parameters": {"not": {}}}}],
        },
        "tools[0].function.parameters",
    ),
    (
        {
            "tool_choice": "required",
            "tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "object", "$ref": "#/x"}}}],
        },
        "tools",
    ),
]


@pytest.mark.behaviour("tools.refused")
@pytest.mark.parametrize(("fields", "param"), BAD)
def test_what_cannot_be_served_is_a_400(sdk: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(sdk, stream=True, extra_body=fields)
    assert caught.value.param == param


@pytest.mark.behaviour("tools.required", "tools.parallel", "tools.deltas", columns=[MODEL_COLUMN])
def test_the_model_consensus_calls_once_where_it_may_not_call_twice(service: ServeProcess) -> None:
    with openai.OpenAI(base_url=f"{service.urls['consensus']}/v1", api_key="none", max_retries=0) as sdk:
        options: Any = {"model": "consensus", "messages": MESSAGES, "tools": [WEATHER, TIME], "max_tokens": 300}
        options |= {"tool_choice": "required", "parallel_tool_calls": False}
        whole = sdk.chat.completions.create(**options).choices[0].message.tool_calls
        assert whole is not None and len(whole) == 1
        check_calls(whole)
        with sdk.chat.completions.stream(**options) as stream:
            calls = stream.get_final_completion().choices[0].message.tool_calls
        assert calls is not None and len(calls) == 1
