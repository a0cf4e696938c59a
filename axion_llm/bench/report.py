"""One page of everything measured: the JSON results of the other benchmarks as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from axion_llm.bench.client import BenchError

Record = dict[str, Any]

_ROW = {"scenario", "what", "side", "value", "unit"}  # of bench.scenarios.Row


def page(files: Sequence[Path], heading: str, facts: dict[str, Any]) -> str:
    """Raises BenchError for a file that is no JSON, or has nothing to show."""
    parts = [f"# {heading}", ", ".join(f"{key}: {value}" for key, value in facts.items())]
    for file in files:
        parts += [f"## {file.stem}", *_sections(file)]
    return "\n\n".join(parts) + "\n"


def _sections(file: Path) -> list[str]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{file}: no JSON result of a benchmark: {error}") from None
    sections = list(_walk(found, ""))
    if not sections:
        raise BenchError(f"{file}: nothing in it that could be shown as a table")
    return sections


def _walk(value: Any, name: str) -> Iterator[str]:
    """A table for each list of records, a line for what else there is."""
    if _is_records(value):
        yield (f"### {name}\n\n" if name else "") + (_sides(value) if value[0].keys() >= _ROW else _table(value))
    elif isinstance(value, dict):
        plain = {k: v for k, v in value.items() if not isinstance(v, dict | list)}
        if plain:
            yield f"{name}: " * bool(name) + ", ".join(f"{k} {_cell(v)}" for k, v in plain.items())
        for key, inner in value.items():
            yield from _walk(inner, key) if isinstance(inner, dict | list) else ()


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _table(records: list[Record]) -> str:
    columns = list(dict.fromkeys(key for record in records for key in record))
    return _lines(columns, [[_cell(record.get(column)) for column in columns] for record in records])


def _sides(records: list[Record]) -> str:
    """Sides beside each other, and the first as a ratio to the last."""
    sides = list(dict.fromkeys(record["side"] for record in records))
    has_ratio = len(sides) > 1
    rows = []
    for scenario, what in dict.fromkeys((r["scenario"], r["what"]) for r in records):
        found = {r["side"]: r for r in records if (r["scenario"], r["what"]) == (scenario, what)}
        cells = [f"{_cell(found[s]['value'])} {found[s]['unit']}" if s in found else "-" for s in sides]
        rows.append([scenario, what, *cells, *([_ratio(found, sides[0], sides[-1])] if has_ratio else [])])
    return _lines(["scenario", "figure", *sides, *([f"{sides[0]} / {sides[-1]}"] if has_ratio else [])], rows)


def _ratio(found: dict[str, Record], first: str, last: str) -> str:
    if first not in found or last not in found or not found[last]["value"]:
        return "-"
    return f"{found[first]['value'] / found[last]['value']:.2f}"


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
