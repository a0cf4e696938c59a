"""Every statement is held by a test on every port, and docs/compatibility.md is what the tests last said."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.behaviour.statements import COLUMNS, MODEL, Statement, load
from tests.behaviour.table import render

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "compatibility.md"
SUITES = ["tests/servers", "tests/e2e", "tests/api"]


def collected(tmp_path: Path) -> str:
    """The table of a run that only collects: what is tested is known, how it ended is not."""
    path = tmp_path / "table.md"
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *SUITES]
    found = subprocess.run([*command, "--compatibility", path], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-2000:]
    return path.read_text()


def test_the_document_is_of_these_tests_and_all_is_green_or_explained(tmp_path: Path) -> None:
    document = DOCUMENT.read_text()
    assert re.sub(r"(?<=\| )[✓◦✗](?= \|)", "?", document) == collected(tmp_path), "run scripts/compatibility"
    rows = [line for line in document.splitlines() if line.startswith("|")]
    assert len(rows) > len(load())
    assert not [row for row in rows if "✗" in row or "?" in row.partition("|")[2].split("|", 1)[1]]


def test_how_a_cell_comes_about() -> None:
    some = next(s for s in load().values() if s.consensus is None and not s.is_of_port)

    def cells(*ends: str) -> str:
        outcomes = {(some.id, column): {f"test_{i}": end for i, end in enumerate(ends)} for column in COLUMNS}
        row = next(line for line in render(outcomes).splitlines() if line.startswith(f"| {some.text} |"))
        return row.removeprefix(f"| {some.text} | ")[0]

    assert cells("passed", "passed") == "✓"
    assert cells("passed", "failed") == "✗"
    assert cells("passed", "skipped") == "?"
    assert cells("passed", "") == "?"
    assert cells() == "?"


def test_statements_are_whole() -> None:
    for statement in load().values():
        assert isinstance(statement, Statement) and statement.text and "|" not in statement.text
        assert not (statement.consensus and statement.is_of_port)
    assert MODEL in COLUMNS
