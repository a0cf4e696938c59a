"""What a request says of its output's form -> the grammar that the output has to follow.

`response_format` is OpenAI's; `json_schema` and `grammar` are llama-server's; `structured_outputs` is vLLM's, with its
names: json, json_object, regex, choice, grammar. What the keywords of a schema mean is in docs/structured-output.md;
one that could not be enforced is refused, never dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from axion_llm.api.schemas import Generation
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Grammar, GrammarKind

FIELDS = ("response_format", "json_schema", "grammar", "structured_outputs")

MAX_SOURCE_CHARS = 128 * 1024
MAX_DEPTH = 64
MAX_MULTIPLE = 50_000
LEAST_STEP = 1e-9
ANY_OBJECT = {"type": "object"}
# Spaces as json.dumps sets them: models know the style, nothing is left to choose, and no one can loop on white space.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

# Assertions of JSON Schema that llguidance cannot enforce. Words that the standard does not know are annotations.
REFUSED = frozenset(
    [
        *("not", "if", "then", "else", "propertyNames", "dependencies", "dependentRequired", "dependentSchemas"),
        *("contains", "minContains", "maxContains", "uniqueItems", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor"),
        "x-guidance",  # llguidance's own switches, some of which would turn enforcing off
    ]
)
FORMATS = frozenset(["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"])

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_IN_LIST = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_SINGLE = ("items", "additionalProperties", "additionalItems")


def grammar_of(request: Generation) -> Grammar | None:
    """None: anything goes. Raises BadRequest, with the field's path as param."""
    found = [grammar for grammar in _all_of(request) if grammar]
    if len(found) > 1:
        param, other = found[-1].param.partition(".")[0], found[0].param.partition(".")[0]
        raise BadRequest(f"{param}: cannot be combined with {other}; one of them binds an output", param=param)
    return found[0] if found else None


def wants_json(request: Generation) -> bool:
    given = request.structured_outputs or {}
    is_asked = (request.response_format or {}).get("type", "text") != "text"
    return is_asked or request.json_schema is not None or bool(given.get("json") or given.get("json_object"))


def _all_of(request: Generation) -> Iterator[Grammar | None]:
    if request.response_format is not None:
        yield _of_format(request.response_format)
    if request.json_schema is not None:  # an empty one means any object, as llama-server has it
        yield schema_grammar(request.json_schema or ANY_OBJECT, "json_schema")
    if request.grammar:
        yield _of_text("grammar", request.grammar, "grammar")
    if request.structured_outputs is not None:
        yield _of_structured(request.structured_outputs)


def _of_format(value: dict[str, Any]) -> Grammar | None:
    match value.get("type"):
        case "text":
            return None
        case "json_object":  # `schema`: as llama-server has it
            return schema_grammar(value.get("schema") or ANY_OBJECT, "response_format.schema")
        case "json_schema":
            return _of_json_schema(value.get("json_schema"))
        case other:
            kind = repr(other)[:60] if "type" in value else "nothing"
            message = f"response_format.type: must be 'text', 'json_object' or 'json_schema', got {kind}"
            raise BadRequest(message, param="response_format.type")


def _of_json_schema(value: Any) -> Grammar:
    param = "response_format.json_schema"
    if not isinstance(value, dict):
        raise BadRequest(f"{param}: must be an object with a name and a schema", param=param)
    if not isinstance(value.get("name"), str) or not _NAME.fullmatch(value["name"]):
        raise BadRequest(f"{param}.name: must be 1 to 64 letters, digits, '_' or '-'", param=f"{param}.name")
    if "schema" not in value:
        raise BadRequest(f"{param}.schema: is required", param=f"{param}.schema")
    if not isinstance(value.get("strict"), bool | None):
        raise BadRequest(f"{param}.strict: must be true, false or null", param=f"{param}.strict")
    return schema_grammar(value["schema"], f"{param}.schema", is_strict=bool(value.get("strict")))


def _of_structured(value: dict[str, Any]) -> Grammar:
    kinds = ("json", "json_object", "regex", "choice", "grammar")
    given = [k for k, v in value.items() if v is not None and v is not False]
    if len(given) != 1 or given[0] not in kinds:
        message = f"structured_outputs: must have exactly one of {', '.join(kinds)}, and no other field"
        raise BadRequest(message, param="structured_outputs")
    kind, content, param = given[0], value[given[0]], f"structured_outputs.{given[0]}"
    match kind:
        case "json":
            return schema_grammar(_loaded(content, param), param)
        case "json_object":
            return schema_grammar(ANY_OBJECT, param)
        case "choice":
            return _of_choices(content, param)
    return _of_text("regex" if kind == "regex" else "grammar", content, param)


def _of_text(kind: GrammarKind, content: Any, param: str) -> Grammar:
    if not isinstance(content, str) or not content:
        raise BadRequest(f"{param}: must be a string that is not empty", param=param)
    _check_size(content, param)
    if "multipleOf" in content:
        raise BadRequest(f"{param}: multipleOf is for JSON schemas, where its cost is known", param=param)
    return Grammar(kind, content, param=param)


def _of_choices(value: Any, param: str) -> Grammar:
    if not isinstance(value, list) or not value or not all(isinstance(c, str) and c for c in value):
        raise BadRequest(f"{param}: must be an array of strings, none empty", param=param)
    source = "|".join(re.escape(choice) for choice in value)
    _check_size(source, param)
    return Grammar("regex", source, param=param)


def _loaded(value: Any, param: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRequest(f"{param}: is a string, but not one of JSON", param=param) from None


# ---- schemas


def schema_grammar(schema: Any, param: str, *, is_strict: bool = False) -> Grammar:
    """`is_strict`: objects that say nothing of further properties have none, as OpenAI's strict schemas do."""
    checked = check_schema(schema, param)
    schema = with_firm_bounds(closed(checked) if is_strict else checked)
    source = json.dumps({**schema, "x-guidance": JSON_STYLE}, ensure_ascii=False)
    _check_size(source, param)
    return Grammar("json_schema", source, param=param)


def check_schema(schema: Any, param: str) -> dict[str, Any]:
    """Raises BadRequest for what could not be enforced, naming the place."""
    if not isinstance(schema, dict):
        raise BadRequest(f"{param}: must be an object", param=param)
    _check_depth(schema, param)
    for path, part in subschemas(schema, param):
        for key in part.keys() & REFUSED:
            raise BadRequest(f"{path}: the keyword {key!r} cannot be enforced by this server", param=param)
        if not _is_affordable(part.get("multipleOf")):
            message = f"{path}.multipleOf: must have no more than {MAX_MULTIPLE:,} as its digits"
            raise BadRequest(message, param=param)
        known = part.get("format")
        if known is not None and not (isinstance(known, str) and known in FORMATS):
            message = f"{path}.format: must be one of {', '.join(sorted(FORMATS))}"
            raise BadRequest(message, param=param)
    return schema


def _is_affordable(multiple: Any) -> bool:
    """Compiling takes time that grows with the square of the number's digits, taken as a whole number."""
    if isinstance(multiple, bool) or not isinstance(multiple, int | float):
        return True  # the compiler says what is wrong
    digits = "".join(map(str, Decimal(str(multiple)).normalize().as_tuple().digits))
    return abs(multiple) < 1e15 and int(digits) <= MAX_MULTIPLE and abs(multiple) <= MAX_MULTIPLE


def subschemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all schemas in it, with their paths."""
    yield path, schema
    for key in _BY_NAME:
        for name, part in schema[key].items() if isinstance(schema.get(key), dict) else ():
            yield from _of_part(part, f"{path}.{key}.{name[:40]}")
    for key in _IN_LIST:
        for i, part in enumerate(schema[key] if isinstance(schema.get(key), list) else ()):
            yield from _of_part(part, f"{path}.{key}[{i}]")
    for key in _SINGLE:
        yield from _of_part(schema.get(key), f"{path}.{key}")


def _of_part(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(part, dict):
        yield from subschemas(part, path)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy whose objects allow no properties but their own, where they do not say otherwise."""
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, part in subschemas(copy, ""):
        if "properties" in part and not part.keys() & {"additionalProperties", "patternProperties", "allOf", "$ref"}:
            part["additionalProperties"] = False
    return copy


def with_firm_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """With a number that has to be beyond a whole one and stay below the next kept off it by a billionth.

    llguidance takes 0 where a number has to be above 0 and at most 0.5.
    """
    if not any("exclusiveMinimum" in part or "exclusiveMaximum" in part for _, part in subschemas(schema, "")):
        return schema
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    for _, part in subschemas(copy, ""):
        if part.get("type") != "integer":
            _keep_off(part, "exclusiveMinimum", "minimum", ("maximum", "exclusiveMaximum"), 1)
            _keep_off(part, "exclusiveMaximum", "maximum", ("minimum", "exclusiveMinimum"), -1)
    return copy


def _keep_off(part: dict[str, Any], exclusive: str, inclusive: str, others: tuple[str, str], step: int) -> None:
    bound = part.get(exclusive)
    far = [part[key] for key in others if isinstance(part.get(key), int | float)]
    if isinstance(bound, bool) or not isinstance(bound, int | float) or bound != int(bound) or not far:
        return
    if min(step * (other - bound) for other in far) < 1:
        near = part.get(inclusive, bound)
        part[inclusive] = max(step * near, step * bound + LEAST_STEP) * step
        del part[exclusive]


def _check_depth(value: Any, param: str) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadRequest(f"{param}: is nested deeper than {MAX_DEPTH} levels", param=param)
        children = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [child for values in children for child in values]


def _check_size(source: str, param: str) -> None:
    try:
        source.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{param}: has half a surrogate pair, which is no text", param=param) from None
    if len(source) > MAX_SOURCE_CHARS:
        message = (
            f"{param}: has {len(source):,} characters, more than the {MAX_SOURCE_CHARS:,} that this server compiles"
        )
        raise BadRequest(message, param=param)
