"""Hermes and its heirs, Qwen 2.5 among them: a JSON object in <tool_call> tags for each call.

Also what a model without a form of its own is asked for. Qwen 2.5 Coder often leaves out the tags.
"""

from __future__ import annotations

from axion_llm.api.tools.form import Form


def _instructions(tools: str) -> str:
    return (
        "You may call one or more of these functions when they help to answer the user. They are described by JSON "
        f"Schema in <tools> tags:\n<tools>\n{tools}\n</tools>\n\n"
        "To call a function, answer with a JSON object of its name and arguments in <tool_call> tags:\n"
        '<tool_call>\n{"name": <function name>, "arguments": <object of arguments>}\n</tool_call>\n'
        "Its result comes back in <tool_response> tags. Answer in plain words when no function is needed."
    )


HERMES = Form(
    name="hermes",
    trigger="<tool_call>",
    lead="\n",
    before='{"name": ',
    middle=', "arguments": ',
    after="}",
    between="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
    instructions=_instructions,
    closers=("</tool_call>", "```"),
    allows_bare=True,
    control=("<tool_call>", "</tool_call>"),
)
