"""Mistral 7B Instruct v0.3 and others of its tokenizer: the control token [TOOL_CALLS], then an array of calls."""

from __future__ import annotations

from axion_llm.api.tools.form import Form


def _instructions(tools: str) -> str:
    return (
        f"You can call these functions, described by JSON Schema:\n{tools}\n\n"
        "To call some, answer with [TOOL_CALLS] and an array of objects with name and arguments:\n"
        '[TOOL_CALLS][{"name": <function name>, "arguments": <object of arguments>}]\n'
        "Answer in plain words when no function is needed."
    )


MISTRAL = Form(
    name="mistral",
    trigger="[TOOL_CALLS]",
    lead=" [",
    before='{"name": ',
    middle=', "arguments": ',
    after="}",
    between=", ",
    end="]",
    instructions=_instructions,
    result=lambda text: f"[TOOL_RESULTS] {text}[/TOOL_RESULTS]",
    control=("[TOOL_CALLS]",),
)
