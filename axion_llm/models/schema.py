"""Which keys a model may have in models.toml, and what each may hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from axion_llm.models.toml_file import Entry
from axion_llm.ranges import SAMPLING
from axion_llm.worker.messages import KvType, Speculation

Converter = Callable[[Entry], Any]

SOURCES = ("repo", "package", "path")

_MAX_CONTEXT = 16 * 1024 * 1024
_MIN_CONTEXT = 256  # llama.cpp rounds up to it
_MAX_PARALLEL = 256  # LLAMA_MAX_SEQ
_MAX_THREADS = 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]*(/[A-Za-z0-9_][A-Za-z0-9._:-]*)*")
_MAX_NAME = 128


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean "…"?` when something known is close, else nothing."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f' Did you mean "{close[0]}"?' if close else ""


def check_name(entry: Entry, name: str) -> None:
    """A name is used in URLs, in file names and on the command line."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise entry.error(
            f'"{name}" cannot be a model\'s name: letters, digits and . _ - / : are allowed, {_MAX_NAME} at '
            "most, and each part between slashes begins with a letter, a digit or _"
        )
    if name == "consensus" or name.startswith("consensus/"):
        raise entry.error(f'"{name}" cannot be a model\'s name: port 8084 has models of its own under it')


def convert_model(entry: Entry, key: str) -> Entry:
    """The entry with its value as a ModelSpec wants it; ConfigError for an unknown key or a bad value."""
    return _convert(entry, key, _MODEL_KEYS)


def convert_sampling(entry: Entry, key: str) -> Entry:
    """The same for a key of the model's sampling table."""
    return _convert(entry, key, _SAMPLING_KEYS)


def _convert(entry: Entry, key: str, converters: Mapping[str, Converter]) -> Entry:
    if key not in converters:
        hint = did_you_mean(key, converters)
        raise entry.error(f"unknown key.{hint} Allowed: {', '.join(sorted(converters))}")
    return replace(entry, value=converters[key](entry))


# ---- converters: each returns the value or raises


def _text(entry: Entry) -> str:
    if not isinstance(entry.value, str):
        raise entry.error("must be a text in quotes")
    return entry.value


def _public_prompt(entry: Entry) -> str:
    if not (text := _text(entry).strip()):
        raise entry.error("must be a system message's text, word for word as the clients send it")
    return text


def _matching(pattern: str, meaning: str) -> Converter:
    def converter(entry: Entry) -> str:
        if not re.fullmatch(pattern, _text(entry)):
            raise entry.error(f"must be {meaning}")
        return str(entry.value)

    return converter


def _integer(low: int, high: int, *, zero: str = "") -> Converter:
    """`zero` says what 0 means where it is allowed beside low to high."""
    allowed = f"a whole number from {low} to {high}" + (f", or 0 ({zero})" if zero else "")

    def converter(entry: Entry) -> int:
        value = entry.value
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if not is_integer or not (low <= value <= high or (zero and value == 0)):
            raise entry.error(f"must be {allowed}")
        return int(value)

    return converter


def _number(low: float, high: float) -> Converter:
    def converter(entry: Entry) -> float:
        value = entry.value
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise entry.error(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return converter


def _drawing(name: str) -> Converter:
    """A number that says how tokens are drawn."""
    allowed = SAMPLING[name]
    number = _number(allowed.low, allowed.high)
    return lambda entry: allowed.settle(number(entry))


def _flag(entry: Entry) -> bool:
    if not isinstance(entry.value, bool):
        raise entry.error("must be true or false")
    return entry.value


def _kv_type(entry: Entry) -> str:
    """llama.cpp has no 8-bit float; whoever asks for fp8 wants the 8-bit cache, and that is q8_0."""
    allowed = get_args(KvType)
    value = "q8_0" if entry.value == "fp8" else entry.value
    if value not in allowed:
        hint = did_you_mean(value, allowed) if isinstance(value, str) else ""
        raise entry.error(f"no such cache type.{hint} Allowed: {', '.join(allowed)}, and fp8 (taken as q8_0)")
    return str(value)


def _speculation(entry: Entry) -> str:
    allowed = get_args(Speculation)
    if entry.value not in allowed:
        raise entry.error(f"must be one of {', '.join(allowed)}")
    return str(entry.value)


def _file(entry: Entry) -> str:
    """A name or a relative path that cannot leave the folder it is put in."""
    value = _text(entry)
    parts = value.split("/")
    if "\\" in value or any(part.startswith(".") or not part for part in parts):
        raise entry.error("must be a file's name inside the repo or package, such as model-Q4_K_M.gguf")
    return value


def _path(entry: Entry) -> Path:
    """Absolute; ~ is the home folder, and a relative path starts at the TOML file."""
    if not _text(entry):
        raise entry.error("must be the path of a GGUF file")
    try:
        return (entry.file.parent / Path(entry.value).expanduser()).absolute()
    except RuntimeError:
        raise entry.error("~ means nothing for a user without a home folder: set HOME") from None


def _template_file(entry: Entry) -> str:
    try:
        return _path(entry).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise entry.error(f"the template cannot be read: {error}") from None


def _sha256(entry: Entry) -> str:
    return str(_matching(r"[0-9a-fA-F]{64}", "a SHA-256 checksum: 64 hexadecimal digits")(entry)).lower()


def _roles(entry: Entry) -> tuple[str, ...]:
    value = entry.value
    if not isinstance(value, list) or not all(
        isinstance(role, str) and re.fullmatch(r"[a-z][a-z0-9_-]*", role) for role in value
    ):
        raise entry.error('must be a list of lower-case words, such as ["chat", "fast"]')
    if len(set(value)) < len(value):
        raise entry.error("names a role twice")
    return tuple(value)


def _languages(entry: Entry) -> tuple[str, ...]:
    value = entry.value
    if not isinstance(value, list) or not all(isinstance(x, str) and re.fullmatch(r"[a-z]{2}", x) for x in value):
        raise entry.error('must be a list of ISO 639-1 codes, such as ["en", "fr"]')
    if len(set(value)) < len(value):
        raise entry.error("names a language twice")
    return tuple(value)


_SAMPLING_KEYS: dict[str, Converter] = {
    **{name: _drawing(name) for name in SAMPLING if name != "logit_bias"},
    "top_k": _integer(0, 1_000_000),
    "seed": _integer(0, 2**32 - 1),
}


def _sampling(entry: Entry) -> dict[str, Any]:
    if not isinstance(entry.value, dict):
        raise entry.error("must be a table, such as {temperature = 0.7, top_p = 0.9}")
    return entry.value  # its keys are entries of their own


_MODEL_KEYS: dict[str, Converter] = {
    "repo": _matching(r"[\w.-]+(/[\w.-]+)?", "a hub repository, OWNER/NAME"),
    "revision": _matching(r"\S+", "a branch, a tag or a commit of the repository"),
    "package": _matching(r"[A-Za-z][A-Za-z0-9_-]*", "the name of a Python package"),
    "path": _path,
    "file": _file,
    "mmproj": _file,
    "description": _text,
    "size_bytes": _integer(1, 2**53),
    "sha256": _sha256,
    "context": _integer(_MIN_CONTEXT, _MAX_CONTEXT, zero="as much as the model was trained for"),
    "parallel": _integer(1, _MAX_PARALLEL),
    "threads": _integer(1, _MAX_THREADS, zero="shared out by the pool"),
    "kv_type": _kv_type,
    "speculation": _speculation,
    "chat_template": _text,
    "chat_template_file": _template_file,
    "public_prompt": _public_prompt,
    "sampling": _sampling,
    "roles": _roles,
    "pin": _flag,
    "languages": _languages,
    "expert_weight": _number(0, 3),
    "expert_first_token_seconds": _number(0.1, 86400),
    "expert_deadline_seconds": _number(0.1, 86400),
}
