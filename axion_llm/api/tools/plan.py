"""How one request's tools are served by one model: its prompt, its grammar and the parser of its answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from axion_llm.api.schemas import ChatRequest
from axion_llm.api.tools.choice import ToolUse, tool_use
from axion_llm.api.tools.form import Form
from axion_llm.api.tools.parser import ToolParser
from axion_llm.api.tools.render import form_of
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Grammar, Loaded


@dataclass(frozen=True)
class ToolPlan:
    use: ToolUse
    form: Form
    control: tuple[str, ...]  # tokens of the form that are control tokens of this model: shown as text

    @property
    def answer_begins(self) -> str:
        """What the prompt has already of an answer that has to be calls."""
        return self.form.trigger if self.use.is_forced else ""

    def grammar(self, answer: Grammar | None) -> Grammar:
        """`answer`: what a text that is no call has to look like."""
        if answer is None or self.use.is_forced:
            return self.use.grammar(self.form)
        if answer.kind != "json_schema" or not self.form.trigger or self.form.trigger in self.control:
            message = (
                f"{answer.param}: cannot be combined with tools that the model may or may not call, for this model; "
                "set tool_choice to none or required"
            )
            raise BadRequest(message, param=answer.param)
        return self.use.grammar_or(self.form, json.loads(answer.source))

    def parser(self) -> ToolParser:
        """For one choice of an answer."""
        form = self.form
        if self.use.is_strict:  # only calls that the grammar has seen
            form = replace(form, openers=(), allows_bare=not form.trigger)
        parser = ToolParser(form, self.use.allowed, max_calls=self.use.max_calls)
        parser.feed(self.answer_begins)
        return parser


def requested(request: ChatRequest) -> ToolUse | None:
    """None: the model is shown no tools. Raises BadRequest."""
    return tool_use(tool_dicts(request), request.tool_choice, is_parallel=request.parallel_tool_calls)


def tool_plan(request: ChatRequest, template: str | None, info: Loaded) -> ToolPlan | None:
    use = requested(request)
    if use is None:
        return None
    form = form_of(template or "", info.control_tokens)
    return ToolPlan(use, form, tuple(text for text in form.control if text in info.control_tokens))


def tool_dicts(request: ChatRequest) -> Sequence[dict[str, Any]]:
    return [t.model_dump(exclude_none=True) for t in request.tools or []]
