"""Every keyword of JSON Schema that docs/structured-output.md calls enforced, in the manner of JSON-Schema-Test-Suite.

The oracle is the jsonschema package: the matcher takes what is valid and refuses what is not, and whatever the real
model says under the schema is valid.
"""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from axion_llm.api.structured import FORMATS, REFUSED, schema_grammar
from axion_llm.engine.engine import Engine
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Finished, Sampling
from tests.engine.driver import note, request

DOCS = Path(__file__).parents[2] / "docs" / "structured-output.md"
AB = {"a": {"type": "integer"}, "b": {"type": "string", "maxLength": 5}}
ONE = {"type": "object", "properties": AB, "additionalProperties": False}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}

# keyword, schema, valid instances, invalid ones
CASES: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("type", {"type": "integer"}, [0, -7, 12345], [1.5, "1", None, True, [], {}]),
    ("type", {"type": "number"}, [0, -7.25, 1e3], ["1", None, True]),
    ("type", {"type": "boolean"}, [True, False], [0, "true", None]),
    ("type", {"type": "null"}, [None], [0, False, "null"]),
    ("type", {"type": ["string", "null"], "maxLength": 3}, ["abc", None], [1, "abcd"]),
    ("enum", {"enum": ["red", 3, None, [1]]}, ["red", 3, None, [1]], ["blue", 4, [2], "3"]),
    ("const", {"const": {"a": [1, "x"]}}, [{"a": [1, "x"]}], [{"a": [1]}, {"a": [1, "y"]}, {}]),
    ("anyOf", {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]}, [1, "ab"], [1.5, "abc", None]),
    ("oneOf", {"oneOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]}, [1, "ab"], [1.5, "abc", None]),
    ("allOf", {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 7}]}, [3, 7], [2, 8, "5"]),
    ("$ref", TREE, [{"v": 1, "next": {"v": 2, "next": None}}], [{"v": 1}, {"v": 1, "next": {"v": 2}}]),
    ("$defs", TREE, [{"v": 1, "next": None}], [{"v": "1", "next": None}]),
    ("definitions", {"definitions": {"n": {"type": "integer"}}, "$ref": "#/definitions/n"}, [1], ["1"]),
    ("properties", ONE, [{}, {"a": 1}, {"a": 1, "b": "x"}], [{"a": "1"}, {"b": 2}, {"c": 1}]),
    ("required", {**ONE, "required": ["b"]}, [{"b": "x"}, {"a": 1, "b": "x"}], [{}, {"a": 1}]),
    ("additionalProperties", ONE, [{"a": 1}], [{"a": 1, "z": 1}]),
    (
        "additionalProperties",
        {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 3},
        [{}, {"x": 1, "y": 2}],
        [{"x": "1"}, {"x": None}],
    ),
    (
        "patternProperties",
        {
            "type": "object",
            "patternProperties": {"^n_[a-z]+$": {"type": "integer"}},
            "additionalProperties": False,
            "maxProperties": 3,
        },
        [{}, {"n_x": 1, "n_y": 2}],
        [{"n_x": "1"}, {"m": 1}, {"n_1": 1}],
    ),
    (
        "minProperties",
        {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2, "maxProperties": 3},
        [{"x": 1, "y": 2}],
        [{}, {"x": 1}],
    ),
    (
        "maxProperties",
        {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1},
        [{}, {"x": 1}],
        [{"x": 1, "y": 2}],
    ),
    ("items", {"type": "array", "items": {"type": "integer"}, "maxItems": 4}, [[], [1, 2]], [["1"], [1, None]]),
    (
        "prefixItems",
        {"type": "array", "prefixItems": [{"type": "integer"}, {"const": "x"}], "items": False, "minItems": 2},
        [[1, "x"]],
        [["x", 1], [1, "x", 2], [1]],
    ),
    ("minItems", {"type": "array", "items": {"enum": [1]}, "minItems": 2, "maxItems": 3}, [[1, 1]], [[], [1]]),
    ("maxItems", {"type": "array", "items": {"enum": [1]}, "maxItems": 2}, [[], [1, 1]], [[1, 1, 1]]),
    ("minLength", {"type": "string", "minLength": 2, "maxLength": 4}, ["ab", "éü😀"], ["", "a", "é"]),
    ("maxLength", {"type": "string", "maxLength": 2}, ["", "ab", "😀é"], ["abc"]),
    ("pattern", {"type": "string", "pattern": "^[a-c]{2,4}[0-9]$"}, ["ab1", "abca9"], ["a1", "abd1", "ab12", ""]),
    ("pattern", {"type": "string", "pattern": "b", "maxLength": 5}, ["b", "abc"], ["", "ac"]),
    ("minimum", {"type": "integer", "minimum": -3, "maximum": 12}, [-3, 0, 12], [-4]),
    ("maximum", {"type": "integer", "minimum": 0, "maximum": 117}, [0, 99, 117], [118, 1000]),
    ("minimum", {"type": "number", "minimum": 1.5, "maximum": 2.25}, [1.5, 2, 2.25], [1.25, 2.5, 0]),
    ("exclusiveMinimum", {"type": "integer", "exclusiveMinimum": 3, "maximum": 9}, [4], [3, 2]),
    ("exclusiveMaximum", {"type": "integer", "minimum": 0, "exclusiveMaximum": 9}, [8], [9, 10]),
    ("multipleOf", {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 100}, [0, 7, 98], [1, 99]),
    ("multipleOf", {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 9}, [0.25, 8.75], [0.3, 0.125]),
    ("format", {"type": "string", "format": "date"}, ["2024-02-29"], ["2024-13-01", "today"]),
    ("format", {"type": "string", "format": "date-time"}, ["2024-02-29T10:11:12Z"], ["2024-02-29", ""]),
    ("format", {"type": "string", "format": "time"}, ["10:11:12Z"], ["25:00:00Z", "x"]),
    ("format", {"type": "string", "format": "duration"}, ["P1DT2H"], ["1 day"]),
    ("format", {"type": "string", "format": "email"}, ["a@b.org"], ["a.b.org"]),
    ("format", {"type": "string", "format": "hostname"}, ["a.example"], ["-a", "a b"]),
    ("format", {"type": "string", "format": "ipv4"}, ["127.0.0.1"], ["256.0.0.1", "1.2.3"]),
    ("format", {"type": "string", "format": "ipv6"}, ["::1"], ["::g", "1"]),
    ("format", {"type": "string", "format": "uuid"}, ["12345678-1234-1234-1234-123456789abc"], ["1234", "x"]),
    ("format", {"type": "string", "format": "uri"}, ["https://a.example/b?c#d"], ["not a uri"]),
]
IDS = [f"{keyword}-{i}" for i, (keyword, *_) in enumerate(CASES)]
BY_ORACLE = {"date", "email", "ipv4", "ipv6", "uuid"}  # formats that jsonschema checks without further packages


def accepts(engine: Engine, schema: Any, instance: Any) -> bool:
    matcher = engine.grammars.constraint(schema_grammar(schema, "schema")).matcher
    text = json.dumps(instance, ensure_ascii=False)
    tokens = engine.model.tokenize(text, add_special=False, parse_special=False)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def is_valid(schema: Any, instance: Any) -> bool:
    kind = jsonschema.Draft202012Validator
    return bool(kind(schema, format_checker=kind.FORMAT_CHECKER).is_valid(instance))


@pytest.mark.parametrize(("keyword", "schema", "valid", "invalid"), CASES, ids=IDS)
def test_the_matcher_agrees_with_the_standard(
    engine: Engine, keyword: str, schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    assert keyword in json.dumps(schema)
    for instance in valid:
        assert is_valid(schema, instance), "the case itself"
        assert accepts(engine, schema, instance), instance
    for instance in invalid:
        if keyword != "format" or schema["format"] in BY_ORACLE:
            assert not is_valid(schema, instance), "the case itself"
        assert not accepts(engine, schema, instance), instance


@pytest.mark.parametrize(("keyword", "schema", "valid", "invalid"), CASES, ids=IDS)
def test_what_the_model_says_is_valid(
    engine: Engine, keyword: str, schema: Any, valid: list[Any], invalid: list[Any]
) -> None:
    grammar = schema_grammar(schema, "schema")
    prompt = "<|im_start|>user\nSay something as JSON.<|im_end|>\n<|im_start|>assistant\n"
    one = request("r", prompt, 60, sampling=Sampling(temperature=1.0, seed=1), grammar=grammar)
    engine.add(one, engine.tokenize(one), engine.compile(one))
    seen: dict[str, Any] = {}
    while engine.has_work:
        for event in engine.step():
            note(seen, event)
    assert isinstance(seen["r"].end, Finished)
    if seen["r"].end.reason == "stop":
        assert is_valid(schema, json.loads(seen["r"].text)), seen["r"].text


@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_what_cannot_be_enforced_is_refused_wherever_it_stands(keyword: str) -> None:
    inner = {keyword: True}
    for schema in (
        inner,
        {"properties": {"a": inner}},
        {"items": inner},
        {"anyOf": [{"type": "null"}, inner]},
        {"$defs": {"a": inner}},
        {"additionalProperties": inner},
        {"patternProperties": {"a": inner}},
        {"prefixItems": [inner]},
    ):
        with pytest.raises(BadRequest, match=re.escape(keyword)):
            schema_grammar(schema, "schema")


def test_a_property_may_be_called_like_a_keyword(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"not": {"type": "integer"}, "if": {"const": "contains"}}}
    assert accepts(engine, schema, {"not": 1, "if": "contains"})


def test_annotations_are_ignored(engine: Engine) -> None:
    words = {"title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": True, "readOnly": True}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "c",
        "x-own": 1,
        "type": "integer",
        **words,
    }
    assert accepts(engine, schema, 1) and not accepts(engine, schema, "1")


def test_strict_closes_objects(engine: Engine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}}}}
    grammars = [schema_grammar(schema, "s", is_strict=strict) for strict in (False, True)]
    assert [is_valid(json.loads(g.source), {"a": {"c": 1}}) for g in grammars] == [True, False]


def test_the_documentation_lists_them() -> None:
    text = DOCS.read_text()
    for word in {keyword for keyword, *_ in CASES} | FORMATS | REFUSED - {"x-guidance"}:
        assert f"`{word}`" in text, word


HOSTILE = {
    "long": {"enum": ["x" * 200_000]},
    "deep": json.loads('{"items":' * 100 + "{}" + "}" * 100),
    "number": {"type": "integer", "multipleOf": 99_991},
    "digits": {"type": "number", "multipleOf": 1.00001},
    "remote": {"$ref": "http://example.com/schema.json"},
    "file": {"$ref": "file:///etc/passwd"},
    "product": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"p{i}_{j}": {"const": j}}} for j in range(8)]}
            for i in range(12)
        ]
    },
}


@pytest.mark.parametrize("schema", HOSTILE.values(), ids=HOSTILE)
def test_hostile_schemas_are_refused(engine: Engine, schema: Any) -> None:
    with pytest.raises(BadRequest):
        engine.grammars.constraint(schema_grammar(schema, "schema"))


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ({"exclusiveMinimum": 0, "maximum": 0.5}, ["0.25", "0.5", "0.000001"], ["0", "0.0", "-0"]),
        ({"minimum": -0.5, "exclusiveMaximum": 0}, ["-0.25", "-0.5"], ["0", "-0", "-0.0"]),
        ({"exclusiveMinimum": 1, "maximum": 1.5}, ["1.25", "1.5"], ["1", "1.0"]),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, ["0.5"], ["0", "1"]),
        ({"exclusiveMinimum": 0}, ["0.5", "3"], ["0", "0.0"]),
    ],
)
def test_a_number_that_has_to_be_beyond_another_is_never_that(
    engine: Engine, bounds: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    matcher = engine.grammars.constraint(schema_grammar({"type": "number", **bounds}, "schema")).matcher

    def is_taken(text: str) -> bool:
        one, tokens = matcher.deep_copy(), engine.model.tokenize(text, add_special=False, parse_special=False)
        return one.try_consume_tokens(tokens) == len(tokens) and one.is_accepting()

    assert [text for text in good + bad if is_taken(text)] == good
