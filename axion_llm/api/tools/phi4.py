"""Phi-4-mini: an array of calls between <|tool_call|> and <|/tool_call|>."""

from __future__ import annotations

from axion_llm.api.tools.form import Form


def _instructions(tools: str) -> str:
    return (
        f"You are a helpful assistant with some tools.<|tool|>{tools}<|/tool|>\n"
        "To use some, answer with an array of calls and nothing else: "
        '<|tool_call|>[{"name": <tool name>, "arguments": <object of arguments>}]<|/tool_call|>'
    )


PHI4 = Form(
    name="phi4",
    trigger="<|tool_call|>",
    lead="[",
    before='{"name": ',
    middle=', "arguments": ',
    after="}",
    between=", ",
    end="]",
    tail="<|/tool_call|>",
    instructions=_instructions,
    result=lambda text: f"<|tool_response|>{text}",
    openers=("functools",),  # what vLLM's template for it asks for
    closers=("<|/tool_call|>",),
    control=("<|tool_call|>", "<|/tool_call|>"),
)
