"""Markdown that is still being written, on a terminal: what is complete is printed once, only its tail is redrawn."""

from __future__ import annotations

import re
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def settled_length(text: str) -> int:
    """How much of `text` no further text can change: all up to the last blank line that is in no code block."""
    fence, at, settled = "", 0, 0
    for line in text.splitlines(keepends=True):
        at += len(line)
        if found := _FENCE.match(line):
            if not fence:
                fence = found[1]
            elif found[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
        elif not fence and not line.strip() and line.endswith("\n"):
            settled = at
    return settled


class MarkdownStream:
    """A context: `add` pieces as they come. On anything but a terminal pieces are printed as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tail = ""
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> MarkdownStream:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.update(Text(""), refresh=True)
            self._live.stop()
            if self._tail.strip():
                self._console.print(Markdown(self._tail))
        else:
            self._console.print()

    def add(self, piece: str) -> None:
        if not self._live:
            self._console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
            return
        self._tail += piece
        if length := settled_length(self._tail):
            settled, self._tail = self._tail[:length], self._tail[length:]
            if settled.strip():
                self._live.console.print(Markdown(settled))
                self._live.console.print()
        self._live.update(self._shown(), refresh=True)

    def _shown(self) -> RenderableType:
        """The tail, or its last lines when it is higher than the screen: Live could not redraw more."""
        height = max(3, self._console.height - 3)
        lines = self._console.render_lines(Markdown(self._tail))
        if len(lines) <= height:
            return Markdown(self._tail)
        return Text("\n".join("".join(segment.text for segment in line).rstrip() for line in lines[-height:]))
