"""docs/compatibility.md: each statement, each port, and the tests that hold it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.behaviour.statements import COLUMNS, MODEL, Statement, load

HEAD = """# What OpenAI clients rely on, and where it holds

Written by `scripts/compatibility` from a run of the tests: change `tests/behaviour/statements.toml` or a test, not this
page. Each cell stands for tests that ran against that port, with the official `openai` SDK or with raw HTTP where the
SDK hides what is stated. On 8084 the experts are asked by their own names; the last column is the model `consensus`,
where several models answer together.

✓ holds · ◦ something else holds there, explained below · – says nothing about a model · ✗ does not hold · ? not tested

"""

Outcomes = Mapping[tuple[str, str], Mapping[str, str]]


def render(outcomes: Outcomes) -> str:
    statements = load()
    sections = list(dict.fromkeys(s.section for s in statements.values()))
    parts = [_section(name, [s for s in statements.values() if s.section == name], outcomes) for name in sections]
    return (
        HEAD
        + "\n".join(parts)
        + "\n"
        + _notes(list(statements.values()))
        + "\n"
        + _tests(list(statements.values()), outcomes)
    )


def _section(name: str, statements: list[Statement], outcomes: Outcomes) -> str:
    head = f"## {name.capitalize()}\n\n| | {' | '.join(COLUMNS.values())} |\n|---|{':-:|' * len(COLUMNS)}\n"
    return head + "".join(_row(s, outcomes) for s in statements)


def _row(statement: Statement, outcomes: Outcomes) -> str:
    cells = [_cell(statement, column, outcomes) for column in COLUMNS]
    return f"| {statement.text} | {' | '.join(cells)} |\n"


def _cell(statement: Statement, column: str, outcomes: Outcomes) -> str:
    if column == MODEL and statement.is_of_port:
        return "–"
    ends = set(outcomes.get((statement.id, column), {}).values())
    if "failed" in ends:
        return "✗"
    if ends != {"passed"}:
        return "?"
    return "◦" if column == MODEL and statement.consensus else "✓"


def _notes(statements: list[Statement]) -> str:
    lines = [f"- {s.text}: {s.consensus}.\n" for s in statements if s.consensus]
    return "## Explained: the model `consensus`\n\n" + "".join(lines)


def _tests(statements: list[Statement], outcomes: Outcomes) -> str:
    lines = []
    for statement in statements:
        names = sorted({name for column in COLUMNS for name in outcomes.get((statement.id, column), {})})
        lines.append(f"- {statement.text}: {', '.join(f'`{name}`' for name in names)}\n")
    return "## The tests\n\n" + "".join(lines)
