"""Reads a TOML file and remembers on which line each key stands, so that an error can point at it."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axion_llm.errors import ConfigError

tomllib: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

Keys = tuple[str, ...]

_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*', re.DOTALL
)
_KEY = r'(?:[\w-]+|"(?:\\.|[^"\\])*"|\'[^\']*\')'
_DOTTED = rf"({_KEY}(?:\s*\.\s*{_KEY})*)"
_TABLE = re.compile(rf"\s*\[\[?\s*{_DOTTED}\s*\]")
_ASSIGNMENT = re.compile(rf"\s*{_DOTTED}\s*=")


@dataclass(frozen=True)
class Entry:
    """A value and where it was written."""

    file: Path
    line: int
    key: str  # dotted, from the file's top
    value: Any

    def error(self, problem: str) -> ConfigError:
        value = "" if isinstance(self.value, dict) else f" = {_short(self.value)}"
        return ConfigError(f"{self.file}:{self.line}: {self.key}{value}: {problem}", param=self.key)


class TomlFile:
    """A parsed file; raises ConfigError when it cannot be read or is not TOML."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8-sig")
            self.data: dict[str, Any] = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(_syntax_error(path, text, str(error))) from None
        self._lines = _scan(text)

    def entry(self, keys: Keys, value: Any) -> Entry:
        return Entry(self.path, self._line(keys), ".".join(keys), value)

    def _line(self, keys: Keys) -> int:
        """Of the key, or of the table or inline table it is in."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)


def _syntax_error(path: Path, text: str, message: str) -> str:
    """tomllib puts the place at the end of its message; we put it at the start, where editors look."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if found is None:
        return f"{path}: not valid TOML: {message}"
    line = found[2] or str(text.count("\n") + 1)
    return f"{path}:{line}: not valid TOML: {found[1]}"


def _scan(text: str) -> dict[Keys, int]:
    """Line of each table header and each assignment. The text is known to be valid TOML."""
    lines: dict[Keys, int] = {}
    table: Keys = ()
    for number, line in enumerate(_STRING_OR_COMMENT.sub(_blank, text).splitlines(), start=1):
        if found := _TABLE.match(line):
            table = tuple(_parts(found[1]))
            lines.setdefault(table, number)
        elif found := _ASSIGNMENT.match(line):
            lines.setdefault(table + tuple(_parts(found[1])), number)
    return lines


def _blank(found: re.Match[str]) -> str:
    """Comments and the text of long strings could look like keys; short strings can be keys and stay."""
    text = found[0]
    if text.startswith("#"):
        return ""
    return '""' + "\n" * text.count("\n") if text.startswith(('"""', "'''")) else text


def _parts(dotted: str) -> Iterator[str]:
    table = tomllib.loads(f"{dotted} = 0")
    while isinstance(table, dict):
        [(key, table)] = table.items()
        yield key


def _short(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
