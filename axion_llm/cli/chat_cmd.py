"""`axion-llm chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.console import Console

from axion_llm import files
from axion_llm.cli.chat_client import Answer, ChatClient, chat_client
from axion_llm.cli.chat_session import COMMAND_NAMES, CommandError, Session
from axion_llm.cli.completion_cmd import complete_model
from axion_llm.cli.markdown_stream import MarkdownStream
from axion_llm.cli.options import generation_options, given
from axion_llm.cli.run_cmd import summary
from axion_llm.cli.service_client import service_options
from axion_llm.cli.waiting import waiting
from axion_llm.config import default_data_dir
from axion_llm.errors import ServiceError

PROMPT, GOES_ON = ">>> ", "... "
MAX_HISTORY_LINES = 2000

_READY_FIRST = {"ready": 0, "loading": 1, "available": 2}  # of the states, for the choice of a model


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.option("--system", help="What the model is told first.")
@generation_options
@click.option("--plain", is_flag=True, help="Print the text as it comes, without rendering Markdown.")
@service_options
def chat(model: str | None, system: str | None, plain: bool, url: str | None, key: str | None, **options: Any) -> None:
    """Talk to MODEL in the terminal; without a name, to one that is loaded.

    \b
    axion-llm chat
    axion-llm chat qwen_coder --system "Answer with code only"
    axion-llm chat --url http://10.0.0.5:8084 consensus

    /help tells what else can be typed. Ctrl-C stops an answer, not the program; Ctrl-D ends it. A service that
    runs on this machine answers; without one the model is loaded for as long as the conversation lasts. Lines
    that you type are kept for the arrow keys in ~/.local/share/axion-llm/chat_history.
    """
    console = Console(highlight=False)
    with chat_client(url, key) as client:
        session = Session("", [m["id"] for m in client.models()], system, given(options))
        session.model = _choose(client.models(), model)
        where = "loaded for this conversation" if client.is_own else client.url
        console.print(f"[bold]{session.model}[/] [dim]{where} · /help · Ctrl-D ends[/]")
        with _line_editing():
            _converse(session, client, console, is_plain=plain or not console.is_terminal)


def _choose(models: list[dict[str, Any]], asked: str | None) -> str:
    names = [str(m["id"]) for m in models]
    if asked is not None:
        if asked not in names:
            raise ServiceError(f'There is no model "{asked}". Known: {", ".join(names)}.')
        return asked
    here = [m for m in models if m.get("state") in _READY_FIRST]
    if not here:
        raise ServiceError("no model is on this machine; get one with: axion-llm pull NAME")
    return str(min(here, key=lambda m: _READY_FIRST[m["state"]])["id"])


def _converse(session: Session, client: ChatClient, console: Console, *, is_plain: bool) -> None:
    while not session.is_over:
        try:
            text = _read(input)
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print("\n[dim]Ctrl-D or /exit ends[/]")
            continue
        try:
            if text.startswith("/"):
                console.print(session.command(text).rstrip(), markup=False, soft_wrap=True)
            elif text.strip():
                session.ask(text)
        except CommandError as error:
            console.print(f"[red]{error}[/]")
        if session.wants_answer:
            _answer(session, client, console, is_plain=is_plain)


def _answer(session: Session, client: ChatClient, console: Console, *, is_plain: bool) -> None:
    answer = Answer()
    pieces = client.stream(session.model, session.messages(), answer, **session.options)
    try:
        with waiting(session.model):
            first = next(pieces, "")
        _show(first, pieces, console, is_plain=is_plain)
    except KeyboardInterrupt:
        console.print("[dim]stopped[/]")
    except ServiceError as error:
        Console(stderr=True, highlight=False).print(f"error: {error.message}", markup=False)
    finally:
        pieces.close()  # ends the request at the service
    session.answered(answer.text)
    session.last_stats = summary(answer)


def _show(first: str, pieces: Iterator[str], console: Console, *, is_plain: bool) -> None:
    if is_plain:
        for piece in chain([first], pieces):
            console.out(piece, end="", highlight=False)
        console.print()
        return
    with MarkdownStream(console) as shown:
        for piece in chain([first], pieces):
            shown.add(piece)


def _read(read_line: Callable[[str], str]) -> str:
    '''One message: a line, lines that end with a backslash, or what stands between two lines of """.'''
    line = read_line(PROMPT if sys.stdin.isatty() else "")
    prompt = GOES_ON if sys.stdin.isatty() else ""
    if line.strip() == '"""':
        lines = []
        while (line := read_line(prompt)).strip() != '"""':
            lines.append(line)
        return "\n".join(lines)
    text = line
    while text.endswith("\\"):
        text = text[:-1] + "\n" + read_line(prompt)
    return text


@contextmanager
def _line_editing() -> Iterator[None]:
    """Arrow keys, search and completion, where Python has readline; the lines are kept between conversations."""
    readline: ModuleType | None = None
    with suppress(ImportError):
        import readline
    if readline is None or not sys.stdin.isatty():
        yield
        return
    path = default_data_dir() / "chat_history"
    with suppress(OSError):
        readline.read_history_file(path)
    num_known = readline.get_current_history_length()
    readline.set_completer_delims(" ")
    readline.set_completer(_complete)
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        _keep_history(readline, path, num_known)


def _keep_history(readline: ModuleType, path: Path, num_known: int) -> None:
    """The lines of this conversation behind those that others have kept meanwhile."""
    new = [readline.get_history_item(i + 1) for i in range(num_known, readline.get_current_history_length())]
    with suppress(OSError), files.locked(path):
        kept = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        lines = [*kept, *filter(None, new)][-MAX_HISTORY_LINES:]
        files.replace(path, "".join(f"{line}\n" for line in lines), mode=files.PRIVATE)


def _complete(text: str, number: int) -> str | None:
    found = [name for name in COMMAND_NAMES if name.startswith(text)] if text.startswith("/") else []
    return found[number] if number < len(found) else None
