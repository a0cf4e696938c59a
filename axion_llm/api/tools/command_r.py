"""Cohere's Command R, and Aya of the same family: "Action:" and a fenced array of tool names and parameters.

Command R7B has control tokens in their place.
"""

from __future__ import annotations

from dataclasses import replace

from axion_llm.api.tools.form import Form


def _instructions(tools: str) -> str:
    return (
        f"## Available Tools\nHere are the tools that you can use, described by JSON Schema:\n```json\n{tools}\n```\n\n"
        'To use tools, write "Action:" followed by a JSON list of the actions that you want to take, and nothing '
        "behind it:\nAction: ```json\n[\n    {\n"
        '        "tool_name": <name of the tool>,\n        "parameters": <object of parameters>\n    }\n]```\n'
        "Answer in plain words when no tool is needed."
    )


COMMAND_R = Form(
    name="command-r",
    trigger="Action:",
    lead=" ```json\n[\n    ",
    before='{\n        "tool_name": ',
    middle=',\n        "parameters": ',
    after="\n    }",
    between=",\n    ",
    end="\n]```",
    instructions=_instructions,
    result=lambda text: f"<results>\n{text}\n</results>",
    closers=("```",),
)

COMMAND_R7B = replace(
    COMMAND_R,
    name="command-r7b",
    trigger="<|START_ACTION|>",
    lead="[\n    ",
    before='{"tool_name": ',
    middle=', "parameters": ',
    after="}",
    end="\n]",
    tail="<|END_ACTION|>",
    closers=("<|END_ACTION|>",),
    control=("<|START_ACTION|>", "<|END_ACTION|>"),
)
