"""Messages -> prompt, by the model's own Jinja template in our sandbox, as transformers renders it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2

from axion_llm.api.sandbox import Sandbox, TooMuch
from axion_llm.errors import BadRequest, ServiceError

MAX_PROMPT_CHARS = 16 * 1024 * 1024
_PROBE = "axion-probe-of-the-system-role"

Message = dict[str, Any]


class ChatTemplate:
    """A compiled template of one model. `accepts_system` is found out by trying."""

    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        self._env = Sandbox()
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = self._env.from_string(source)
        except (jinja2.TemplateError, RecursionError) as exc:
            raise ServiceError(f"the model's chat template does not compile: {exc}") from exc
        self.accepts_system = self._probe_system()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt up to where the assistant's answer begins; see tools/render.py for templates without tools.

        `values`: the request's chat_template_kwargs.
        """
        prepared = [_prepared(m) for m in messages]
        if not self.accepts_system:
            prepared = fold_system(prepared)
        try:
            return self._run(prepared, tools, values)
        except (jinja2.TemplateError, *_ERRORS_OF_TEMPLATE_CODE) as exc:
            message = f"the model's chat template refuses these messages: {exc}"
            raise BadRequest(message, param="messages") from exc

    def try_render(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None) -> str:
        """Empty when the template refuses: for finding out what it knows."""
        try:
            return self.render(messages, tools)
        except BadRequest:
            return ""

    def _run(
        self,
        messages: list[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> str:
        self._env.begin()
        pieces, num_chars = [], 0
        variables = {"messages": messages, "tools": tools, "documents": None, "add_generation_prompt": True}
        for piece in self._template.generate({**(values or {}), **variables, **self._tokens}):
            num_chars += len(piece)
            if num_chars > MAX_PROMPT_CHARS:
                raise TooMuch(f"the prompt has more than {MAX_PROMPT_CHARS:,} characters")
            self._env.check()
            pieces.append(piece)
        return "".join(pieces)

    def _probe_system(self) -> bool:
        """Some templates raise on a system message, others leave it out without a word."""
        probe = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "Hi"}]
        try:
            return _PROBE in self._run(probe)
        except (jinja2.TemplateError, *_ERRORS_OF_TEMPLATE_CODE):
            return False


# What a template's code can raise on messages it was not written for: None + "text", a missing key, no end.
_ERRORS_OF_TEMPLATE_CODE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)


def fold_system(messages: list[Message]) -> list[Message]:
    """Each system message joins the user message that follows it; with none to follow it becomes one."""
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            folded.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            folded.append(message)
    return [*folded, {"role": "user", "content": "\n\n".join(waiting)}] if waiting else folded


def _prepared(message: Message) -> Message:
    prepared = {k: v for k, v in message.items() if v is not None}
    prepared["role"] = "system" if message["role"] == "developer" else message["role"]
    prepared["content"] = message.get("content") or ""
    if message.get("tool_calls"):
        prepared["tool_calls"] = [_parsed_call(call) for call in message["tool_calls"]]
    return prepared


def _parsed_call(call: dict[str, Any]) -> dict[str, Any]:
    """Templates want a call's arguments as an object; on the wire they are a string of JSON."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


@lru_cache(maxsize=64)
def chat_template(source: str, bos_token: str, eos_token: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token, eos_token)
