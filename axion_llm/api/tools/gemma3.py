"""Gemma 3 has no tokens for tools: Google documents a prompt, and an answer that is one JSON object, nothing else."""

from __future__ import annotations

from axion_llm.api.tools.form import Form


def _instructions(tools: str) -> str:
    return (
        "You have access to functions. If you decide to invoke a function, you MUST answer with a JSON object in this "
        'format and nothing else:\n{"name": <function name>, "parameters": <object of argument names and values>}\n'
        f"Answer in plain words when no function is needed. The functions, described by JSON Schema:\n{tools}"
    )


GEMMA3 = Form(
    name="gemma3",
    trigger="",
    lead="",
    before='{"name": ',
    middle=', "parameters": ',
    after="}",
    between="\n",
    end="",
    instructions=_instructions,
    result=lambda text: f"The function returned:\n{text}",
    closers=("```",),
    allows_bare=True,
)
