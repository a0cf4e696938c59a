"""What the answers look like, for /openapi.json. A test holds the answers of a running server against it."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
NULLABLE_STRING: Json = {"type": ["string", "null"]}
OBJECT: Json = {"type": "object"}
COUNT: Json = {"type": "integer", "minimum": 0}


def _object(optional: Json | None = None, /, **required: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _constant(value: str) -> Json:
    return {"const": value}


FINISH: Json = {"enum": ["stop", "length", "tool_calls", "content_filter"]}
USAGE = _object(
    prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT, prompt_tokens_details=_object(cached_tokens=COUNT)
)
MESSAGE = _object(
    {"tool_calls": _list(OBJECT)}, role=_constant("assistant"), content=NULLABLE_STRING, refusal=NULLABLE_STRING
)
LOGPROBS: Json = {"type": ["object", "null"]}
_HEAD: Json = {"id": STRING, "created": INTEGER, "model": STRING}

SCHEMAS: dict[str, Json] = {
    "Error": _object(error=_object(message=STRING, type=STRING, param=NULLABLE_STRING, code=NULLABLE_STRING)),
    "ChatCompletion": _object(
        **_HEAD,
        object=_constant("chat.completion"),
        choices=_list(_object(index=COUNT, message=MESSAGE, logprobs=LOGPROBS, finish_reason=FINISH)),
        usage=USAGE,
    ),
    "TextCompletion": _object(
        **_HEAD,
        object=_constant("text_completion"),
        choices=_list(_object(index=COUNT, text=STRING, logprobs=LOGPROBS, finish_reason=FINISH)),
        usage=USAGE,
    ),
    "Response": _object(
        {"usage": {"type": ["object", "null"]}, "previous_response_id": NULLABLE_STRING},
        id=STRING,
        object=_constant("response"),
        created_at=INTEGER,
        status={"enum": ["completed", "incomplete", "in_progress", "failed"]},
        error={"type": ["object", "null"]},
        incomplete_details={"type": ["object", "null"]},
        model=STRING,
        output=_list(_object(id=STRING, type={"enum": ["message", "function_call"]}, status=STRING)),
        tools=_list(OBJECT),
        metadata=OBJECT,
        store={"type": "boolean"},
    ),
    "Deleted": _object(id=STRING, object=_constant("response"), deleted={"const": True}),
    "ItemList": _object(
        object=_constant("list"),
        data=_list(_object(id=STRING, type=STRING)),
        first_id=NULLABLE_STRING,
        last_id=NULLABLE_STRING,
        has_more={"type": "boolean"},
    ),
    "EmbeddingList": _object(
        object=_constant("list"),
        model=STRING,
        data=_list(
            _object(
                object=_constant("embedding"),
                index=COUNT,
                embedding={"anyOf": [_list({"type": "number"}), {**STRING, "contentEncoding": "base64"}]},
            )
        ),
        usage=_object(prompt_tokens=COUNT, total_tokens=COUNT),
    ),
    "Tokens": _object(
        tokens=_list({"anyOf": [COUNT, _object(id=COUNT, piece={"anyOf": [STRING, _list(COUNT)]})]}),
    ),
    "Content": _object(content=STRING),
    "Model": _object(
        {"description": STRING, "context_length": COUNT, "state": STRING},
        id=STRING,
        object=_constant("model"),
        created=INTEGER,
        owned_by=STRING,
    ),
    "ModelList": _object(object=_constant("list"), data=_list(_ref("Model"))),
    "Health": _object({"models": _list(OBJECT)}, status=STRING),
    "Ready": _object(status=_constant("ready")),
    "Document": _object(openapi=STRING, paths=OBJECT, components=OBJECT),
    "AdminStatus": OBJECT,
    "Order": OBJECT,
}
