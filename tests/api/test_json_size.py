"""Values are counted without parsing, and what is inside of strings does not count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.api.json_size import has_more_values

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a,[{"\\]}')),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.sampled_from('a,["\\'), max_size=5), inner),
    max_leaves=30,
)


def count(value: Any) -> tuple[int, int]:
    """Commas and containers, by parsing."""
    if not isinstance(value, list | dict):
        return 0, 0
    inner = [count(v) for v in (value.values() if isinstance(value, dict) else value)]
    return max(0, len(value) - 1) + sum(c for c, _ in inner), 1 + sum(n for _, n in inner)


@given(JSON)
def test_it_counts_as_a_parser_would(value: Any) -> None:
    commas, containers = count(value)
    for body in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()):
        plenty = 1000
        assert not has_more_values(body, commas + 1, plenty)
        assert not has_more_values(body, plenty, containers)
        if commas:
            assert has_more_values(body, commas, plenty)
        if containers:
            assert has_more_values(body, plenty, containers - 1)


@pytest.mark.parametrize("body", [b"", b'"', b'"\\', b'{"a', b'[,,"', b"\xff\x00,"])
def test_what_is_no_json_is_left_to_the_parser(body: bytes) -> None:
    assert not has_more_values(body, 10, 10)


def test_a_text_with_many_commas_is_one_value() -> None:
    body = json.dumps({"content": 'a,[{"' * 100_000}).encode()
    assert not has_more_values(body, 10, 10)
