"""@pytest.mark.behaviour("section.name", ...): the test holds these statements, and its outcome goes into the table.

A test that runs once for each port is counted for that port; another says with columns=[...] what it runs on.
`also=[...]` adds a column.
With --compatibility PATH the table is written at the end, by scripts/compatibility.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.behaviour import table
from tests.behaviour.statements import COLUMNS, load


@dataclass
class Outcomes:
    """For each statement and column, the tests and how they ended: passed, failed, skipped, or "" not run."""

    found: dict[tuple[str, str], dict[str, str]] = field(default_factory=lambda: defaultdict(dict))


OUTCOMES = pytest.StashKey[Outcomes]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compatibility", type=Path, help="write the table of statements and ports to this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "behaviour(*statements, columns=None, also=()): holds these of tests/behaviour")
    config.stash[OUTCOMES] = Outcomes()


def marks(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """The statements that a test holds, with the columns it holds them for."""
    for mark in item.iter_markers("behaviour"):
        for column in _columns(item, mark):
            for statement in mark.args:
                yield statement, column


def _columns(item: pytest.Item, mark: pytest.Mark) -> list[str]:
    if "columns" in mark.kwargs:
        return list(mark.kwargs["columns"])
    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    own = [p for p in parameters if isinstance(p, str) and p in COLUMNS]
    if not own:
        raise pytest.UsageError(f"{item.nodeid}: runs on no port that it names; say which with columns=[...]")
    return [*own, *mark.kwargs.get("also", ())]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = load()
    for item in items:
        for statement, column in marks(item):
            if statement not in known or column not in COLUMNS:
                raise pytest.UsageError(f"{item.nodeid}: no statement {statement!r}, or no column {column!r}")
            config.stash[OUTCOMES].found[statement, column].setdefault(_name(item), "")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.when == "call" or not report.passed:
        for statement, column in marks(item):
            tests = item.config.stash[OUTCOMES].found[statement, column]
            tests[_name(item)] = _worse(tests.get(_name(item), ""), report.outcome)
    return report  # type: ignore[return-value]


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _worse(before: str, now: str) -> str:
    order = ["", "passed", "skipped", "failed"]
    return max(before, now, key=order.index)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption("--compatibility")
    if path is not None:
        path.write_text(table.render(session.config.stash[OUTCOMES].found))
