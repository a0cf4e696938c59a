"""Structured output as people use it: the real SDK, pydantic models, both ports, the real model."""

import json
import re
from enum import Enum
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.behaviour.statements import MODEL as CONSENSUS
from tests.e2e.conftest import MODEL, ServeProcess

MESSAGES: Any = [{"role": "user", "content": "Invent a person and describe them as JSON."}]


class Mood(Enum):
    GLAD = "glad"
    GLUM = "glum"


class Address(BaseModel):
    city: str = Field(max_length=20)
    zip: str = Field(pattern=r"^[0-9]{5}$")


class Person(BaseModel):
    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)
    mood: Mood
    address: Address | None
    tags: list[str] = Field(max_length=2)


def json_schema(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}


@pytest.mark.behaviour("structured.json_schema")
def test_parse_with_a_pydantic_model(sdk: openai.OpenAI) -> None:
    for seed in range(3):
        parsed = sdk.chat.completions.parse(
            model=MODEL, messages=MESSAGES, response_format=Person, seed=seed, max_tokens=400
        )
        person = parsed.choices[0].message.parsed
        assert isinstance(person, Person), parsed
        assert parsed.choices[0].finish_reason == "stop"


@pytest.mark.behaviour("structured.json_schema")
def test_parse_in_a_stream(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Person, seed=1, max_tokens=400
    ) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Person)
    assert json.loads(deltas) == json.loads(final.choices[0].message.content or "")


def test_a_truncated_answer_is_the_sdks_length_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        sdk.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Person, max_tokens=5)


@pytest.mark.behaviour("structured.json_object")
def test_json_object(sdk: openai.OpenAI) -> None:
    done = sdk.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        response_format={"type": "json_object"},
        temperature=0,
        max_tokens=300,
        stream=False,
    )
    text = done.choices[0].message.content or ""
    if done.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)
    else:
        assert (done.choices[0].finish_reason, text[:1]) == ("length", "{")


def test_each_choice_has_its_own_output(sdk: openai.OpenAI) -> None:
    schema = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 4}
    done = sdk.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        response_format=json_schema(schema),
        n=3,
        seed=5,
        temperature=1.5,
        max_tokens=200,
        stream=False,
    )
    for choice in done.choices:
        jsonschema.validate(json.loads(choice.message.content or ""), schema)


@pytest.mark.parametrize(
    ("structured", "pattern"),
    [
        ({"regex": "[A-Z][a-z]{2,5} [0-9]{4}"}, "[A-Z][a-z]{2,5} [0-9]{4}"),
        ({"choice": ["red (dark)", "blue"]}, r"red \(dark\)|blue"),
        ({"grammar": 'start: "<" WORD ">"\nWORD: /[a-z]{1,4}/'}, "<[a-z]{1,4}>"),
        ({"grammar": 'root ::= "yes" | "no"'}, "yes|no"),
        ({"json": {"const": [1, "a"]}}, re.escape('[1, "a"]')),
        ({"json": '{"const": null}'}, "null"),
    ],
)
def test_vllms_extensions(sdk: openai.OpenAI, structured: dict[str, Any], pattern: str) -> None:
    body = {"structured_outputs": structured}
    chat = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=False, extra_body=body)
    assert re.fullmatch(pattern, chat.choices[0].message.content or "")
    text = sdk.completions.create(model=MODEL, prompt="It is", stream=False, max_tokens=50, extra_body=body)
    assert re.fullmatch(pattern, text.choices[0].text)


@pytest.mark.behaviour("structured.llama_server")
@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"json_schema": {"const": "42"}}, '"42"'),
        ({"grammar": 'root ::= "a"{5,5}'}, "a{5}"),
        ({"grammar": 'root ::= item+\nitem ::= "- " [a-z]{1,3} "\\n"', "n_predict": 12}, "(- [a-z]{1,3}\n)+.*"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_llama_servers_fields(sdk: openai.OpenAI, fields: dict[str, Any], pattern: str, stream: bool) -> None:
    options: Any = {"model": MODEL, "temperature": 0, "extra_body": fields, "stream": stream}
    chat = sdk.chat.completions.create(messages=MESSAGES, **options)
    said = "".join(c.choices[0].delta.content or "" for c in chat) if stream else chat.choices[0].message.content
    assert re.fullmatch(pattern, said, re.S)
    text = sdk.completions.create(prompt="It is", **options)
    assert re.fullmatch(pattern, "".join(c.choices[0].text for c in text) if stream else text.choices[0].text, re.S)


@pytest.mark.behaviour("structured.refused")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"response_format": json_schema({"type": "nonsense"})}, "response_format.json_schema.schema", "nonsense"),
        ({"response_format": json_schema({"not": {}})}, "response_format.json_schema.schema", "'not'"),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex", "unclosed group"),
        ({"structured_outputs": {"grammar": "start: b"}}, "structured_outputs.grammar", "b"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema", "nonsense"),
        ({"grammar": "root ::= ("}, "grammar", "Expected"),
        ({"grammar": "nonsense"}, "grammar", "::="),
    ],
)
def test_what_cannot_be_compiled_is_a_400(
    sdk: openai.OpenAI, fields: dict[str, Any], param: str, message: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream, extra_body=fields)
    assert caught.value.param == param


@pytest.mark.behaviour("structured.llama_server", columns=[CONSENSUS])
def test_the_model_consensus_keeps_to_llama_servers_fields_too(service: ServeProcess) -> None:
    with openai.OpenAI(base_url=f"{service.urls['consensus']}/v1", api_key="none", max_retries=0) as sdk:
        for fields, said in (({"json_schema": {"const": "42"}}, '"42"'), ({"grammar": 'root ::= "yes"'}, "yes")):
            options: Any = {"model": "consensus", "messages": MESSAGES, "extra_body": fields}
            assert sdk.chat.completions.create(**options).choices[0].message.content == said


@pytest.mark.behaviour("structured.json_object", "structured.json_schema", "structured.refused", columns=[CONSENSUS])
def test_the_model_consensus_keeps_to_a_schema_too(service: ServeProcess) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    with openai.OpenAI(base_url=f"{service.urls['consensus']}/v1", api_key="none", max_retries=0) as sdk:
        options: Any = {"model": "consensus", "messages": MESSAGES, "max_tokens": 60}
        wanted = json_schema({**schema, "additionalProperties": False})
        found = sdk.chat.completions.create(**options, response_format=wanted)
        assert set(json.loads(found.choices[0].message.content or "")) == {"ok"}
        pieces = sdk.chat.completions.create(**options, response_format=wanted, stream=True)
        assert set(json.loads("".join(chunk.choices[0].delta.content or "" for chunk in pieces))) == {"ok"}
        free = sdk.chat.completions.create(**options, response_format={"type": "json_object"}).choices[0]
        assert (free.message.content or "").startswith("{")
        if free.finish_reason == "stop":
            json.loads(free.message.content or "")
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.chat.completions.create(**options, response_format=json_schema({"$ref": "#/nowhere"}))
        assert (caught.value.param or "").startswith("response_format")
