"""tools, tool_choice and parallel_tool_calls: what they ask of a model, and what is refused."""

from typing import Any

import pytest

from axion_llm.api.tools.choice import MAX_TOOLS, tool_use
from axion_llm.errors import BadRequest


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


AB = [tool("a"), tool("b")]


@pytest.mark.parametrize(
    ("choice", "is_forced", "allowed"),
    [
        (None, False, {"a", "b"}),
        ("auto", False, {"a", "b"}),
        ("required", True, {"a", "b"}),
        (named("b"), True, {"b"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("a")]}}, False, {"a"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("a")]}}, True, {"a"}),
    ],
)
def test_choices(choice: Any, is_forced: bool, allowed: set[str]) -> None:
    use = tool_use(AB, choice, is_parallel=None)
    assert use and (use.is_forced, use.allowed) == (is_forced, allowed)
    assert use.max_calls == (1 if choice == named("b") else None), "a named tool is called once"


@pytest.mark.parametrize(("tools", "choice"), [(None, None), ([], "auto"), (None, "none"), (AB, "none")])
def test_no_tools(tools: Any, choice: Any) -> None:
    assert tool_use(tools, choice, is_parallel=None) is None


def test_one_call_at_a_time() -> None:
    use = tool_use(AB, "auto", is_parallel=False)
    assert use and use.max_calls == 1


@pytest.mark.parametrize(
    ("tools", "choice", "param"),
    [
        ([tool("a b")], None, "tools[0].function.name"),
        ([tool("a"), tool("x" * 65)], None, "tools[1].function.name"),
        ([tool("a"), tool("a")], None, "tools"),
        ([tool(f"t{i}") for i in range(MAX_TOOLS + 1)], None, "tools"),
        ([], "required", "tool_choice"),
        ([], named("a"), "tool_choice"),
        (AB, named("c"), "tool_choice"),
        (AB, "any", "tool_choice"),
        (AB, {"type": "function"}, "tool_choice"),
        (AB, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}, "tool_choice"),
        (AB, {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named("c")]}}, "tool_choice"),
        ([tool("a", parameters={"not": {}})], "required", "tools[0].function.parameters"),
        ([tool("a", parameters={"not": {}}, strict=True)], "auto", "tools[0].function.parameters"),
    ],
)
def test_what_is_refused(tools: Any, choice: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        tool_use(tools, choice, is_parallel=None)
    assert caught.value.param == param


def test_a_schema_that_cannot_be_enforced_is_any_object_unless_it_has_to_be() -> None:
    assert tool_use([tool("a", parameters={"not": {}})], "auto", is_parallel=None)
