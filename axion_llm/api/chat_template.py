"""Messages -> prompt, by the model's own Jinja template in a sandbox, as transformers renders it.

The template comes out of a model file, so what it may do is bounded: no way into Python, no change of what
it is given, a limit on the text it makes, a deadline looked at on each look-up, call and piece of output.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from axion_llm.errors import BadRequest, ServiceError

MAX_PROMPT_CHARS = 16 * 1024 * 1024
MAX_RENDER_SECONDS = 2.0
_PROBE = "axion-probe-of-the-system-role"

Message = dict[str, Any]


class _TooMuch(jinja2.TemplateError):
    pass


class _GenerationTag(Extension):
    """{% generation %} marks the assistant's text for training; here it only passes its body on."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as an instance attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    """One per template: a render sets `deadline`, and renders of one template do not overlap."""

    intercepted_binops = frozenset({"*", "**"})
    deadline = float("inf")

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise _TooMuch(f"it takes longer than {MAX_RENDER_SECONDS:g} s")

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.check_time()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.check_time()
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.check_time()
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        size = max(len(x) if isinstance(x, str | list | tuple) else 1 for x in (left, right))
        times = max((x for x in (left, right) if isinstance(x, int)), default=1)
        if size * times > MAX_PROMPT_CHARS or (operator == "**" and times > 64):
            raise _TooMuch("it multiplies to more than a prompt may have")
        return super().call_binop(context, operator, left, right)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: jinja2's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """A compiled template of one model. `accepts_system` is found out by trying."""

    def __init__(self, source: str, bos_token: str, eos_token: str) -> None:
        extensions = ["jinja2.ext.loopcontrols", _GenerationTag]
        self._env = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        self._env.filters["tojson"] = _tojson
        self._env.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        try:
            self._template = self._env.from_string(source)
        except (jinja2.TemplateError, RecursionError) as exc:
            raise ServiceError(f"the model's chat template does not compile: {exc}") from exc
        self.accepts_system = self._probe_system()

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt up to where the assistant's answer begins."""
        prepared = [_prepared(m) for m in messages]
        if not self.accepts_system:
            prepared = fold_system(prepared)
        try:
            return self._run(prepared)
        except (jinja2.TemplateError, *_ERRORS_OF_TEMPLATE_CODE) as exc:
            message = f"the model's chat template refuses these messages: {exc}"
            raise BadRequest(message, param="messages") from exc

    def _run(self, messages: list[Message]) -> str:
        self._env.deadline = time.monotonic() + MAX_RENDER_SECONDS
        pieces, num_chars = [], 0
        variables = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
        for piece in self._template.generate(**variables, **self._tokens):
            num_chars += len(piece)
            if num_chars > MAX_PROMPT_CHARS:
                raise _TooMuch(f"the prompt has more than {MAX_PROMPT_CHARS:,} characters")
            self._env.check_time()
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
