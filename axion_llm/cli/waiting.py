"""What a person sees while something takes its time: a spinner, what it is, how long it has taken so far.

Not a bar: a model's file is mapped, so llama.cpp's own progress runs from 0 to 1 in some milliseconds of a load of
seconds, whatever the disk and the rest have still to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """On stderr, gone when it is over; nothing at all when that is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task(what, total=None)
        yield
