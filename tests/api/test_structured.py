"""response_format and structured_outputs: what grammar they become, and what is refused with which field's name."""

import json
from typing import Any

import pytest

from axion_llm.api import structured
from axion_llm.api.schemas import CompletionRequest
from axion_llm.api.structured import MAX_DEPTH, MAX_SOURCE_CHARS, schema_grammar
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Grammar


def grammar_of(response_format: Any, structured_outputs: Any = None, **fields: Any) -> Grammar | None:
    wanted = {"response_format": response_format, "structured_outputs": structured_outputs, **fields}
    return structured.grammar_of(CompletionRequest.model_validate({"model": "m", "prompt": "", **wanted}))


def json_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, **more}}


def source(grammar: Grammar | None) -> Any:
    assert grammar and grammar.kind == "json_schema"
    schema = json.loads(grammar.source)
    assert schema.pop("x-guidance")["whitespace_flexible"] is False
    return schema


def test_text_is_free() -> None:
    assert grammar_of(None, None) is None
    assert grammar_of({"type": "text"}, None) is None
    assert grammar_of({"type": "text"}, {"regex": "a"}) == Grammar("regex", "a", param="structured_outputs.regex")


def test_schemas() -> None:
    assert source(grammar_of({"type": "json_object"}, None)) == {"type": "object"}
    assert source(grammar_of({"type": "json_object", "schema": {"const": 1}}, None)) == {"const": 1}
    assert source(grammar_of(json_schema({"const": 1}), None)) == {"const": 1}
    assert source(grammar_of(None, {"json": {"const": 1}})) == {"const": 1}
    assert source(grammar_of(None, {"json": '{"const": 1}'})) == {"const": 1}
    assert source(grammar_of(None, {"json_object": True})) == {"type": "object"}


def test_llama_servers_fields() -> None:
    assert source(grammar_of(None, json_schema={"const": 1})) == {"const": 1}
    assert source(grammar_of(None, json_schema={})) == {"type": "object"}
    assert grammar_of(None, grammar='root ::= "a"') == Grammar("grammar", 'root ::= "a"', param="grammar")
    assert grammar_of(None, grammar="") is None


def test_strict_closes_only_what_says_nothing() -> None:
    schema = {
        "properties": {"a": {"properties": {}}, "b": {"properties": {}, "additionalProperties": True}},
        "items": {"type": "object"},
    }
    assert source(grammar_of(json_schema(schema, strict=True), None)) == {
        "properties": {
            "a": {"properties": {}, "additionalProperties": False},
            "b": {"properties": {}, "additionalProperties": True},
        },
        "items": {"type": "object"},
        "additionalProperties": False,
    }
    assert source(grammar_of(json_schema(schema), None)) == schema


def test_choices_are_literal() -> None:
    grammar = grammar_of(None, {"choice": ["a.b", "c|d"]})
    assert grammar and (grammar.kind, grammar.source) == ("regex", r"a\.b|c\|d")


WRONG: list[tuple[Any, Any, str]] = [
    ({}, None, "response_format.type"),
    ({"type": "xml"}, None, "response_format.type"),
    ({"type": "json_schema"}, None, "response_format.json_schema"),
    ({"type": "json_schema", "json_schema": {"schema": {}}}, None, "response_format.json_schema.name"),
    ({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, None, "response_format.json_schema.name"),
    ({"type": "json_schema", "json_schema": {"name": "a"}}, None, "response_format.json_schema.schema"),
    (json_schema([]), None, "response_format.json_schema.schema"),
    (json_schema({}, strict="yes"), None, "response_format.json_schema.strict"),
    (json_schema({"x-guidance": {"lenient": True}}), None, "response_format.json_schema.schema"),
    ({"type": "json_object"}, {"regex": "a"}, "structured_outputs"),
    (None, {}, "structured_outputs"),
    (None, {"regex": "a", "choice": ["a"]}, "structured_outputs"),
    (None, {"whitespace_pattern": "a"}, "structured_outputs"),
    (None, {"regex": ""}, "structured_outputs.regex"),
    (None, {"regex": 7}, "structured_outputs.regex"),
    (None, {"regex": "a" * (MAX_SOURCE_CHARS + 1)}, "structured_outputs.regex"),
    (None, {"choice": []}, "structured_outputs.choice"),
    (None, {"choice": ["a", ""]}, "structured_outputs.choice"),
    (None, {"json": "{"}, "structured_outputs.json"),
    (None, {"grammar": 'start: %json {"multipleOf": 99991}'}, "structured_outputs.grammar"),
]


@pytest.mark.parametrize(("response_format", "structured_outputs", "param"), WRONG)
def test_what_is_refused(response_format: Any, structured_outputs: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        grammar_of(response_format, structured_outputs)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"json_schema": {"not": {}}}, "json_schema"),
        ({"grammar": "a" * (MAX_SOURCE_CHARS + 1)}, "grammar"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar"),
        ({"json_schema": {}, "response_format": {"type": "json_object"}}, "json_schema"),
        ({"grammar": "a", "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    ],
)
def test_what_is_refused_of_llama_servers_fields(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        grammar_of(fields.pop("response_format", None), **fields)
    assert caught.value.param == param
    assert caught.value.message.startswith(param)


def test_the_depth_has_a_limit() -> None:
    fits = json.loads('{"items":' * (MAX_DEPTH - 1) + "{}" + "}" * (MAX_DEPTH - 1))
    schema_grammar(fits, "s")
    with pytest.raises(BadRequest, match="deeper"):
        schema_grammar({"items": fits}, "s")


@pytest.mark.parametrize(
    ("multiple", "is_fine"), [(7, True), (0.01, True), (50_000, True), (50_001, False), (0.12345678, False)]
)
def test_multiples_that_cost_too_much(multiple: float, is_fine: bool) -> None:
    if is_fine:
        schema_grammar({"multipleOf": multiple}, "s")
    else:
        with pytest.raises(BadRequest, match="multipleOf"):
            schema_grammar({"multipleOf": multiple}, "s")
