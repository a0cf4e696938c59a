"""Files that we change: written as a whole or not at all, and read, changed and written by one process at a time."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE = 0o600


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Around the reading, changing and writing of a file: others wait. For processes and threads; raises OSError.

    The lock is a file beside it, since the file itself is another one after each `replace`. It stays: whoever deletes
    a lock takes it from the one who has just opened it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # ends with the handle, also when the process is killed
        yield
    finally:
        os.close(handle)


def replace(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Nobody sees half of it, not even after a power cut. Raises OSError, and leaves the old one then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync(path.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def append(path: Path, line: str) -> None:
    """One line, whole, whoever else appends."""
    with locked(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def sync(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
