"""A conversation with tools -> the prompt, by the model's own template as far as it knows about tools.

What a template leaves out is written by us in the family's form: the tools into the system message, earlier calls into
the assistant's text, results into a user message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any

from axion_llm.api.chat_template import ChatTemplate, Message
from axion_llm.api.tools.command_r import COMMAND_R, COMMAND_R7B
from axion_llm.api.tools.form import Call, Form, ToolSpec, to_json
from axion_llm.api.tools.gemma3 import GEMMA3
from axion_llm.api.tools.hermes import HERMES
from axion_llm.api.tools.mistral import MISTRAL
from axion_llm.api.tools.phi4 import PHI4

# The first of these that stands in a template tells its family.
_BY_TEMPLATE = (
    ("[TOOL_CALLS]", MISTRAL),
    ("<tool_call>", HERMES),
    ("<|tool|>", PHI4),
    ("<|tool_call|>", PHI4),
    ("<|START_ACTION|>", COMMAND_R7B),
    ("tool_name", COMMAND_R),
    ("<|START_OF_TURN_TOKEN|>", COMMAND_R),
    ("<start_of_turn>", GEMMA3),
)


def form_of(template: str, control_tokens: Sequence[str] = ()) -> Form:
    """The form of the family that a template belongs to; Hermes' where it is none that we know.

    `control_tokens`: of the model; Mistral's tell of tools even where the template in the file does not.
    """
    if "[INST]" in template and "[TOOL_CALLS]" in control_tokens:
        return MISTRAL
    return next((form for mark, form in _BY_TEMPLATE if mark in template), HERMES)


@dataclass(frozen=True)
class _Knowledge:
    """What of a conversation with tools a template shows."""

    tools: bool
    tools_in_system: bool  # as text, in a field of the system message
    calls: bool
    results: bool


def render(
    template: ChatTemplate,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    form: Form,
    values: Mapping[str, Any] | None = None,
) -> str:
    """The prompt up to where the assistant's answer begins. `values`: further ones that the template may ask for."""
    if not tools and not any(m["role"] == "tool" or m.get("tool_calls") for m in messages):
        return template.render(messages, values=values)
    known, tools = _knowledge(template), [_complete(tool) for tool in tools]
    messages = [_with_short_ids(m) for m in messages] if form.name == "mistral" else list(messages)
    if not known.calls:
        messages = [_with_written_calls(m, form) for m in messages]
    if not known.results:
        messages = _with_results_as_user(messages, form)
    if tools and known.tools_in_system:
        messages = _with_system_tools(messages, to_json([t["function"] for t in tools]))
    elif tools and not known.tools:
        messages = _with_instructions(messages, form.instructions("\n".join(to_json(t["function"]) for t in tools)))
    return template.render(messages, tools or None, values)


def _complete(tool: ToolSpec) -> ToolSpec:
    """Templates take for granted what OpenAI leaves to the client."""
    defaults = {"description": "", "parameters": {"type": "object", "properties": {}}}
    return {**tool, "function": {**defaults, **tool["function"]}}


# ---- what a template knows, found out by trying

_TOOL: ToolSpec = {
    "type": "function",
    "function": {"name": "axion_probe", "description": "", "parameters": {"type": "object", "properties": {}}},
}
_USER: Message = {"role": "user", "content": "Hi"}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "123456789", "type": "function", "function": {"name": "axion_called", "arguments": {}}}],
}
_RESULT: Message = {"role": "tool", "content": "axion_result", "tool_call_id": "123456789", "name": "axion_called"}
_SYSTEM: Message = {"role": "system", "content": "Hi", "tools": '["axion_in_system"]'}


@lru_cache(maxsize=64)
def _knowledge(template: ChatTemplate) -> _Knowledge:
    after_call = template.try_render([_USER, _CALL, _RESULT], [_TOOL])
    return _Knowledge(
        tools="axion_probe" in template.try_render([_USER], [_TOOL]),
        tools_in_system="axion_in_system" in template.try_render([_SYSTEM, _USER], None),
        calls="axion_called" in after_call.replace('"name": "axion_called", "content"', ""),
        results="axion_result" in after_call,
    )


# ---- what it does not know, written for it


def _with_written_calls(message: Message, form: Form) -> Message:
    if not message.get("tool_calls"):
        return message
    written = form.write([Call.of(c) for c in message["tool_calls"]])
    rest = {k: v for k, v in message.items() if k != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, [message.get("content"), written]))}


def _with_results_as_user(messages: list[Message], form: Form) -> list[Message]:
    """Results in a row become one message."""
    out: list[Message] = []
    is_result = False
    for message in messages:
        if message["role"] != "tool":
            out.append(message)
        elif is_result:
            out[-1] = {**out[-1], "content": out[-1]["content"] + "\n" + form.result(message.get("content") or "")}
        else:
            out.append({"role": "user", "content": form.result(message.get("content") or "")})
        is_result = message["role"] == "tool"
    return out


def _with_instructions(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0]["role"] in ("system", "developer"):
        return [{**messages[0], "content": f"{messages[0].get('content') or ''}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_system_tools(messages: list[Message], tools: str) -> list[Message]:
    first = messages[0] if messages and messages[0]["role"] in ("system", "developer") else None
    system = {
        **(first or {"role": "system", "content": "You are a helpful assistant with some tools."}),
        "tools": tools,
    }
    return [system, *messages[1 if first else 0 :]]


def _with_short_ids(message: Message) -> Message:
    """Mistral's templates refuse an id that is not nine letters and digits."""
    changed = dict(message)
    if message.get("tool_call_id"):
        changed["tool_call_id"] = _short_id(message["tool_call_id"])
    if message.get("tool_calls"):
        changed["tool_calls"] = [{**c, "id": _short_id(str(c.get("id")))} for c in message["tool_calls"]]
    return changed


def _short_id(text: str) -> str:
    return text if len(text) == 9 and text.isalnum() else sha256(text.encode()).hexdigest()[:9]
