"""A conversation and what its /commands do to it. No terminal, no network: text in, text out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Message = dict[str, str]

HELP = """\
/model [NAME]     talk to another model; without a name: which there are
/system [TEXT]    what the model is told first; without a text: none
/set NAME VALUE   temperature, top_p, max_tokens or seed for what follows; off: the model's default
/retry            another answer to your last message
/undo             take back your last message and its answer
/new              a new conversation
/save FILE        write the conversation: Markdown, or JSON for *.json
/stats            tokens and speed of the last answer
/help             this
/exit             the end; or Ctrl-D

Ctrl-C stops an answer. End a line with \\ to go on in the next one, or put several between lines of \"\"\".
"""

_NUMBERS: dict[str, tuple[Callable[[str], float], float, float]] = {
    "temperature": (float, 0, 2),
    "top_p": (float, 0, 1),
    "max_tokens": (int, 1, 2**31 - 1),
    "seed": (int, -(2**63), 2**63 - 1),
}


class CommandError(Exception):
    """What a person typed cannot be done."""


@dataclass
class Session:
    model: str
    known_models: list[str]
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    history: list[Message] = field(default_factory=list)
    last_stats: str = "no answer yet"
    is_over: bool = False

    def messages(self) -> list[Message]:
        system: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.history]

    def ask(self, text: str) -> None:
        self.history.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Also part of an answer that was stopped: the model is to know what it has said."""
        if text:
            self.history.append({"role": "assistant", "content": text})
        else:
            self.history.pop()  # nothing came: the question is not asked

    @property
    def wants_answer(self) -> bool:
        return bool(self.history) and self.history[-1]["role"] == "user"

    def command(self, line: str) -> str:
        """Do it; what to tell. Raises CommandError. After /retry the session wants an answer."""
        name, _, argument = line[1:].partition(" ")
        do = _COMMANDS.get(name)
        if do is None:
            raise CommandError(f"there is no command /{name}; /help tells which there are")
        return do(self, argument.strip())

    # ---- the commands

    def _model(self, name: str) -> str:
        if not name:
            return "\n".join(f"{'*' if m == self.model else ' '} {m}" for m in self.known_models)
        if name not in self.known_models:
            raise CommandError(f"there is no model {name!r}; known: {', '.join(self.known_models)}")
        self.model = name
        return f"now talking to {name}"

    def _system(self, text: str) -> str:
        self.system = text or None
        return "system prompt set" if text else "no system prompt"

    def _set(self, argument: str) -> str:
        name, _, value = argument.partition(" ")
        if not name:
            return "\n".join(f"{n} = {v}" for n, v in self.options.items()) or "all as the model's defaults"
        if name not in _NUMBERS:
            raise CommandError(f"cannot set {name!r}; there are {', '.join(_NUMBERS)}")
        if value.strip() in ("", "off"):
            self.options.pop(name, None)
            return f"{name}: the model's default"
        convert, low, high = _NUMBERS[name]
        try:
            number = convert(value)
        except ValueError:
            raise CommandError(f"{name}: {value!r} is no number") from None
        if not low <= number <= high:
            raise CommandError(f"{name}: {value} is not between {low} and {high}")
        self.options[name] = number
        return f"{name} = {number}"

    def _undo(self, _: str) -> str:
        if not self.history:
            raise CommandError("there is nothing to take back")
        while self.history and self.history.pop()["role"] != "user":
            pass
        return "taken back"

    def _retry(self, _: str) -> str:
        if not self.history:
            raise CommandError("there is nothing to answer yet")
        while self.history[-1]["role"] != "user":
            self.history.pop()
        return ""

    def _new(self, _: str) -> str:
        self.history.clear()
        return "a new conversation"

    def _save(self, name: str) -> str:
        if not name:
            raise CommandError("where to? /save FILE")
        path = Path(name).expanduser()
        try:
            path.write_text(self._as_json() if path.suffix == ".json" else self._as_markdown(), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None
        return f"saved to {path}"

    def _as_json(self) -> str:
        document = {"model": self.model, "options": self.options, "messages": self.messages()}
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def _as_markdown(self) -> str:
        return "\n\n".join(f"## {m['role']}\n\n{m['content'].strip()}" for m in self.messages()) + "\n"

    def _exit(self, _: str) -> str:
        self.is_over = True
        return ""


_COMMANDS: dict[str, Callable[[Session, str], str]] = {
    "model": Session._model,
    "models": Session._model,
    "system": Session._system,
    "set": Session._set,
    "retry": Session._retry,
    "undo": Session._undo,
    "new": Session._new,
    "clear": Session._new,
    "save": Session._save,
    "stats": lambda session, _: session.last_stats,
    "help": lambda session, _: HELP,
    "exit": Session._exit,
    "quit": Session._exit,
    "bye": Session._exit,
}
COMMAND_NAMES = sorted(f"/{name}" for name in _COMMANDS)
