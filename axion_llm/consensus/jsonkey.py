"""A JSON value in an answer -> its canonical form: keys sorted, 30 and 30.0 the same number, strings in NFC."""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import islice
from typing import Any

MAX_STARTS = 16  # places where a value might begin that are tried

_FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)```", re.S | re.I)


def json_key(text: str) -> str | None:
    """Of the whole text, a fenced block or the first value inside; None where there is none."""
    for candidate in [text, *_FENCE.findall(text)]:
        try:
            return _canonical(json.loads(candidate))
        except (ValueError, RecursionError):
            continue
    decoder = json.JSONDecoder()
    for match in islice(re.finditer(r"[{\[]", text), MAX_STARTS):
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        return _canonical(value)
    return None


def _canonical(value: Any) -> str:
    return json.dumps(_normal(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _normal(value: Any) -> Any:
    if isinstance(value, dict):
        return {unicodedata.normalize("NFC", k): _normal(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_normal(v) for v in value]
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value).strip()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
