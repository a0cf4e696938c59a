"""`tools`, `tool_choice` and `parallel_tool_calls` of a request: checked, and what they ask of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from axion_llm.api import structured
from axion_llm.api.tools.form import Form, ToolSpec, to_json
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Grammar

MAX_TOOLS = 128
MAX_FORCED_CALLS = 8  # of one answer, where the grammar sets the limit
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class ToolUse:
    """What a request wants: tools to be shown, and which calls, if any, have to follow."""

    tools: Sequence[ToolSpec]
    mode: Literal["auto", "required"]
    allowed: frozenset[str]  # names that may be called
    is_parallel: bool

    @property
    def is_forced(self) -> bool:
        """The answer is calls and nothing else."""
        return self.mode == "required"

    @property
    def max_calls(self) -> int | None:
        return None if self.is_parallel else 1

    @property
    def is_strict(self) -> bool:
        return any(t["function"].get("strict") for t in self.tools)

    def grammar(self, form: Form) -> Grammar:
        """Of everything behind the form's trigger; without force it binds once the model has written that."""
        if self.is_forced:
            return self._grammar("calls", form)
        if form.trigger:
            return self._grammar("calls", form, trigger=form.trigger)
        return self._grammar("calls | TEXT\nTEXT: /([^{\\[`\\s](.|\\n)*)?/", form)

    def grammar_or(self, form: Form, answer: dict[str, Any]) -> Grammar:
        """Calls, or an answer by this schema."""
        return self._grammar(f"{_text(form.trigger)} calls | answer\nanswer: %json {to_json(answer)}", form)

    def _grammar(self, start: str, form: Form, trigger: str | None = None) -> Grammar:
        is_optional = not (self.is_forced or self.is_strict) and "answer" not in start
        source = f"start: {start}\n{self._calls(form)}"
        return Grammar("calls", source, trigger, param="tools", is_optional=is_optional)

    def _calls(self, form: Form) -> str:
        tools = [t["function"] for t in self.tools if t["function"]["name"] in self.allowed]
        calls = [
            f"call_{i}: {_text(form.before + to_json(tool['name']) + form.middle)} args_{i}{_text(form.after)}\n"
            f"args_{i}: %json {to_json(self._schema(tool))}\n"
            for i, tool in enumerate(tools)
        ]
        # What stands between a trigger and its call is the model's habit: not to be argued about.
        lead = _text(form.lead) if self.is_forced else f" /[ \\n]{{0,4}}/{_text(form.lead.lstrip())}"
        more = f"({_text(form.between)} call){{0,{MAX_FORCED_CALLS - 1}}}" if self.is_parallel else ""
        names = " | ".join(f"call_{i}" for i in range(len(tools)))
        return f"calls:{lead} call {more} {_text(form.end)}\ncall: {names}\n" + "".join(calls)

    def _schema(self, tool: dict[str, Any]) -> dict[str, Any]:
        """Of its arguments: any object where one that may be called, or not, has a schema that cannot be enforced."""
        schema = tool.get("parameters") or NO_PARAMETERS
        try:
            structured.check_schema(schema, "parameters")
        except BadRequest:  # told before where it matters
            schema = ANY_ARGUMENTS
        if tool.get("strict"):
            schema = structured.closed(schema)
        return {**schema, "x-guidance": structured.JSON_STYLE}


def _text(literal: str) -> str:
    return f" {to_json(literal)}" if literal else ""


def tool_use(tools: Sequence[ToolSpec] | None, choice: Any, *, is_parallel: bool | None) -> ToolUse | None:
    """None: the model is shown no tools. Raises BadRequest."""
    tools = tools or []
    _check_tools(tools)
    names = frozenset(t["function"]["name"] for t in tools)
    mode, allowed = _choice(choice, names)
    if mode == "none" or not tools:
        if mode == "required":
            raise BadRequest("tool_choice: needs tools to choose from", param="tool_choice")
        return None
    is_named = isinstance(choice, dict) and choice.get("type") == "function"  # just that call, and once
    use = ToolUse(tools, mode, allowed, is_parallel is not False and not is_named)
    for i, tool in enumerate(tools):
        if tool["function"].get("parameters") and (use.is_forced or tool["function"].get("strict")):
            structured.check_schema(tool["function"]["parameters"], f"tools[{i}].function.parameters")
    return use


def _check_tools(tools: Sequence[ToolSpec]) -> None:
    if len(tools) > MAX_TOOLS:
        raise BadRequest(f"tools: must not be more than {MAX_TOOLS}", param="tools")
    seen = set()
    for i, tool in enumerate(tools):
        name = tool["function"]["name"]
        if not _NAME.fullmatch(name):
            param = f"tools[{i}].function.name"
            raise BadRequest(f"{param}: must be 1 to 64 letters, digits, '_' or '-'", param=param)
        if name in seen:
            raise BadRequest(f"tools[{i}].function.name: {name!r} is there twice", param="tools")
        seen.add(name)


def _choice(choice: Any, names: frozenset[str]) -> tuple[Literal["none", "auto", "required"], frozenset[str]]:
    match choice:
        case None:
            return "auto", names
        case "none" | "auto" | "required":
            return choice, names
        case {"type": "function", "function": {"name": str(name)}}:
            if name not in names:
                raise BadRequest(f"tool_choice: there is no tool {name[:64]!r} in tools", param="tool_choice")
            return "required", frozenset([name])
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(listed)}}:
            return mode, _listed(listed, names)
    message = "tool_choice: must be 'none', 'auto', 'required' or {'type': 'function', 'function': {'name': ...}}"
    raise BadRequest(message, param="tool_choice")


def _listed(listed: list[Any], names: frozenset[str]) -> frozenset[str]:
    allowed = frozenset(str((t.get("function") or t).get("name")) for t in listed if isinstance(t, dict))
    if not allowed or not allowed <= names:
        raise BadRequest("tool_choice: allowed_tools must name some of tools", param="tool_choice")
    return allowed
