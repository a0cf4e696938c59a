"""What a model family writes when it calls a tool: a form. One file for each, all of them data and wording.

trigger lead call (between call)* end       call = before NAME middle ARGUMENTS after
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ToolSpec = dict[str, Any]  # {"type": "function", "function": {"name", "description", "parameters", ...}}


@dataclass(frozen=True)
class Call:
    name: str
    arguments: str  # JSON

    @classmethod
    def of(cls, tool_call: dict[str, Any]) -> Call:
        """Of a message's tool_calls, with its arguments as an object or as a string."""
        function, arguments = tool_call["function"], tool_call["function"].get("arguments") or {}
        return cls(function["name"], arguments if isinstance(arguments, str) else to_json(arguments))


@dataclass(frozen=True)
class Form:
    """Strings are as the model is asked to write them; the parser is more forgiving about white space and keys."""

    name: str
    trigger: str  # where calls begin; empty: a text that is JSON from its first character
    lead: str
    before: str
    middle: str
    after: str
    between: str
    end: str
    instructions: Callable[[str], str]  # a system prompt around the tools' JSON, for templates that know none
    result: Callable[[str], str] = lambda text: f"<tool_response>\n{text}\n</tool_response>"
    tail: str = ""  # behind the end in earlier turns: a control token, which a grammar cannot ask for
    openers: tuple[str, ...] = ()  # other triggers that are understood
    closers: tuple[str, ...] = ()  # dropped behind calls
    allows_bare: bool = False  # an answer that is nothing but a call needs no trigger
    control: tuple[str, ...] = ()  # of these strings, those that may be control tokens

    def write(self, calls: Sequence[Call]) -> str:
        """Calls of an earlier turn, as the model would have written them."""
        written = [f"{self.before}{to_json(c.name)}{self.middle}{c.arguments}{self.after}" for c in calls]
        return self.trigger + self.lead + self.between.join(written) + self.end + self.tail


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
