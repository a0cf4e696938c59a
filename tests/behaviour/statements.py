"""The statements of statements.toml, and the columns of the table they are held on."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).with_name("statements.toml")
MODEL = "model consensus"  # the column of the model of that name
COLUMNS = {"standard": "8082", "streaming": "8083", "consensus": "8084", MODEL: "model `consensus`"}


@dataclass(frozen=True)
class Statement:
    section: str
    name: str
    text: str
    consensus: str | None = None  # what holds instead for the model of that name, and why
    is_of_port: bool = False  # it says nothing about a model

    @property
    def id(self) -> str:
        return f"{self.section}.{self.name}"


def load() -> dict[str, Statement]:
    found = {}
    for section, entries in tomllib.loads(FILE.read_text()).items():
        for name, entry in entries.items():
            fields = {"text": entry} if isinstance(entry, str) else entry
            statement = Statement(section, name, **fields)
            found[statement.id] = statement
    return found
