"""A conversation's /commands, without terminal or network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from axion_llm.cli.chat_session import COMMAND_NAMES, CommandError, Session


@pytest.fixture
def session() -> Session:
    session = Session("one", ["one", "two"])
    session.ask("Hi")
    session.answered("Hello")
    return session


def roles(session: Session) -> list[str]:
    return [m["role"] for m in session.messages()]


def test_a_conversation(session: Session) -> None:
    assert not session.wants_answer
    session.ask("And?")
    assert session.wants_answer
    assert roles(session) == ["user", "assistant", "user"]


def test_what_was_never_answered_is_not_part_of_it(session: Session) -> None:
    session.ask("And?")
    session.answered("")
    assert roles(session) == ["user", "assistant"]


def test_system(session: Session) -> None:
    session.command("/system Be brief.")
    assert session.messages()[0] == {"role": "system", "content": "Be brief."}
    session.command("/system")
    assert roles(session) == ["user", "assistant"]


def test_model(session: Session) -> None:
    assert session.command("/model") == "* one\n  two"
    session.command("/model two")
    assert session.model == "two"
    with pytest.raises(CommandError, match="known: one, two"):
        session.command("/model three")


def test_set(session: Session) -> None:
    session.command("/set temperature 0.5")
    session.command("/set max_tokens 7")
    assert session.options == {"temperature": 0.5, "max_tokens": 7}
    assert session.command("/set") == "temperature = 0.5\nmax_tokens = 7"
    session.command("/set temperature off")
    assert session.options == {"max_tokens": 7}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("/set temperature hot", "no number"),
        ("/set temperature 3", "between 0 and 2"),
        ("/set temperature nan", "between"),
        ("/set max_tokens 1.5", "no number"),
        ("/set colour red", "temperature, top_p"),
        ("/nonsense", "/help"),
        ("/", "/help"),
        ("/save", "/save FILE"),
        ("/save /no/such/folder/x.md", "No such file"),
    ],
)
def test_what_cannot_be_done(session: Session, line: str, problem: str) -> None:
    with pytest.raises(CommandError, match=problem):
        session.command(line)


def test_undo_retry_new(session: Session) -> None:
    session.command("/retry")
    assert session.wants_answer and roles(session) == ["user"]
    session.answered("Hey")
    session.command("/undo")
    assert roles(session) == []
    for line in ("/undo", "/retry"):
        with pytest.raises(CommandError):
            session.command(line)
    session.ask("x")
    session.command("/new")
    assert roles(session) == []


def test_save(session: Session, tmp_path: Path) -> None:
    session.command("/system Be brief.")
    session.command(f"/save {tmp_path}/a.md")
    session.command(f"/save {tmp_path}/a.json")
    assert (tmp_path / "a.md").read_text() == "## system\n\nBe brief.\n\n## user\n\nHi\n\n## assistant\n\nHello\n"
    assert json.loads((tmp_path / "a.json").read_text())["messages"] == session.messages()


def test_help_names_every_command(session: Session) -> None:
    shown = session.command("/help")
    synonyms = {"/models", "/clear", "/quit", "/bye"}
    assert [name for name in COMMAND_NAMES if name not in shown and name not in synonyms] == []


def test_exit(session: Session) -> None:
    session.command("/exit")
    assert session.is_over
