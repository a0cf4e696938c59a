"""The Jinja environment of chat templates: they come out of model files, so all they can do is bounded.

No way into Python and no change of what they are given (jinja2's own sandbox). Beyond that:

time       a deadline, looked at on each turn of a loop, look-up, call, filter and piece of output
numbers    no argument that says how wide or how deep is above MAX_NUMBER, so that no single step is long
memory     the size of a step's result is bounded before the step, from its arguments (also where lists hold the
           same text a thousand times), and an account is kept of all that the steps make; jinja2 bounds range()

Loops and `~` are not hooks of jinja2's; the parsed template is rewritten so that they pass through filters of ours.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE_CHARS = 512 * 1024
MAX_STEP = 32 * 1024 * 1024  # characters that one operator, call or filter may make
MAX_WORK = 64 * 1024 * 1024  # characters and items made in one render, beside the prompt itself
ITEM_CHARS = 16  # what an item of a list weighs beside characters
MAX_ITEMS = 1_000_000  # looked at to find out how large a value is as text
MAX_RENDER_SECONDS = 2.0
MAX_NUMBER = 10_000
MAX_BITS = 256

_LOOP = "axion_loop"
_JOIN = "axion_join"
_SLOW_FILTERS = ("urlize", "striptags", "wordwrap", "pprint")  # no template needs them
_PICKING = ("attr", "default", "first", "items", "last", "map", "reject", "rejectattr", "select", "selectattr")
_ARRANGING = ("batch", "count", "dictsort", "length", "list", "reverse", "slice", "sort", "sum", "unique")
_LAZY_FILTERS = frozenset({_LOOP, *_PICKING, *_ARRANGING})  # make no text of what they are given
_MULTIPLIERS = frozenset({"replace", "expandtabs", "translate", "join", "indent"})  # the result can be a product
_WIDE = re.compile(r"[0-9]{5,}|%[^a-zA-Z%]*\*|\{[^{}]*\{")  # wide fields, and widths that are arguments
_FORMATTERS = frozenset({"format", "format_map"})


class TooMuch(jinja2.TemplateError):
    """The template has run over one of the bounds."""


class GenerationTag(Extension):
    """{% generation %} marks the assistant's text for training; here it only passes its body on."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it as an instance attribute

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Account(threading.local):
    """Of the render that the thread is at."""

    deadline, work = float("inf"), 0


class Sandbox(ImmutableSandboxedEnvironment):
    """One per template: `begin` a render; in one thread renders do not overlap."""

    intercepted_binops = frozenset({"*", "**", "+", "%", "-", "//"})

    def __init__(self) -> None:
        extensions = ["jinja2.ext.loopcontrols", GenerationTag]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, optimized=False)
        self._account = _Account()
        self.filters |= {"tojson": _tojson, _LOOP: self._loop, _JOIN: self._join}
        self.filters = {n: self._bounded(n, f) for n, f in self.filters.items() if n not in _SLOW_FILTERS}
        self.finalize = _as_text
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        del self.globals["lipsum"]

    def begin(self) -> None:
        self._account.deadline, self._account.work = time.monotonic() + MAX_RENDER_SECONDS, 0

    def check(self) -> None:
        if time.monotonic() > self._account.deadline:
            raise TooMuch(f"it takes longer than {MAX_RENDER_SECONDS:g} s")

    # ---- what a template does, step by step

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.check()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.check()
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.check()
        method = getattr(__obj, "__wrapped__", __obj)  # jinja2's sandbox has wrapped str.format
        if isinstance(method, BuiltinMethodType):  # of a text, a number, a list
            _check_step(method.__name__, (method.__self__, *args), kwargs)
        return __self._made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.check()
        if operator == "*":
            _check_product(left, right)
        elif operator == "**" and _bits(left) * (right if isinstance(right, int) else 1) > MAX_BITS:
            raise TooMuch("a number becomes too large")
        elif operator == "%" and isinstance(left, str):
            _check_step("format", (left, right), {})
        return self._made(super().call_binop(context, operator, left, right))

    def _loop(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.check()
            yield item

    def _join(self, parts: Iterable[Any]) -> str:
        return "".join(map(str, parts))

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        num_passed = 1 if hasattr(function, "jinja_pass_arg") else 0  # a context or environment comes first

        @functools.wraps(function)  # which keeps jinja2's mark of those that want the context
        def bounded(*args: Any, **kwargs: Any) -> Any:
            self.check()
            if name not in _LAZY_FILTERS:
                _check_step(name, args[num_passed:], kwargs)
            return self._made(function(*args, **kwargs))

        return bounded

    def _made(self, value: Any) -> Any:
        if isinstance(value, str | list | tuple | dict):
            self._account.work += len(value) * (1 if isinstance(value, str) else ITEM_CHARS)
            if self._account.work > MAX_WORK:
                raise TooMuch("it makes more text on the way than a prompt may have")
        elif isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise TooMuch("a number becomes too large")
        return value

    # ---- the rewriting

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE_CHARS:
            raise jinja2.TemplateSyntaxError(f"longer than {MAX_SOURCE_CHARS:,} characters", 1)
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            loop.iter = _filter(loop.iter, _LOOP)
        _replace_concat(tree)
        tree.set_environment(self)
        return tree


def _filter(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _replace_concat(node: nodes.Node) -> None:
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Concat):
            value = _filter(nodes.Tuple(value.nodes, "load", lineno=value.lineno), _JOIN)
            setattr(node, field, value)
        elif isinstance(value, list):
            value[:] = [
                _filter(nodes.Tuple(v.nodes, "load", lineno=v.lineno), _JOIN) if isinstance(v, nodes.Concat) else v
                for v in value
            ]
    for child in node.iter_child_nodes():
        _replace_concat(child)


def _check_step(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Before a step that makes text of `args[0]`, which the others direct."""
    others = [*args[1:], *kwargs.values()]
    if any(isinstance(value, int) and abs(value) > MAX_NUMBER for value in others):
        raise TooMuch(f"{name}: a number above {MAX_NUMBER:,}")
    size = sum(text_size(value) for value in args) + sum(text_size(value) for value in kwargs.values())
    if name in _MULTIPLIERS:
        size = (text_size(args[0]) + 1) * max((v if isinstance(v, int) else text_size(v) for v in others), default=1)
    if size > MAX_STEP:
        raise TooMuch(f"{name}: it makes more text than a prompt may have")
    if name in _FORMATTERS and _WIDE.search(str(args[0])):
        raise TooMuch(f"{name}: too wide a field, or one whose width is an argument")


def text_size(value: Any) -> int:
    """About how many characters `value` has as text, without making it; stops counting above MAX_STEP."""
    if isinstance(value, str):
        return len(value)
    size, num_items, rest = 0, 0, [value]
    while rest and size <= MAX_STEP:
        item = rest.pop()
        if isinstance(item, str):
            size += len(item) + 2
            continue
        size, num_items = size + 4, num_items + 1
        if isinstance(item, dict):
            rest += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            rest += item
        if num_items + len(rest) > MAX_ITEMS:
            return MAX_STEP + 1
    return size


def _as_text(value: Any) -> Any:
    """Of everything that is printed."""
    if not isinstance(value, str) and text_size(value) > MAX_STEP:
        raise TooMuch("it prints more text than a prompt may have")
    return value


def _check_product(left: Any, right: Any) -> None:
    for some, times in ((left, right), (right, left)):
        limit = MAX_STEP if isinstance(some, str) else MAX_ITEMS
        if isinstance(some, str | list | tuple) and isinstance(times, int) and len(some) * times > limit:
            raise TooMuch("it multiplies to more than a prompt may have")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 1


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
    if indent is not None and indent > 16:
        raise TooMuch("tojson: an indent above 16")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
