"""Responses kept for `previous_response_id` and for reading them again: SQLite, a time to live, an owner.

A row has what one request brought and what it got; a conversation is the chain of its rows. `ask` runs calls in a
thread of their own, one at a time, so that a database which another process holds holds up nothing else. Only the API
key that stored a response sees it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, PreviousResponseNotFound, ResponseNotFound, StorageUnavailable
from axion_llm.files import PRIVATE

_log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

MAX_TURNS = 1000  # of one conversation
MAX_ROWS = 100_000  # the oldest go first
MAX_BYTES = 2 * 1024**3  # of all rows, images too; then the oldest of them go as well
PURGE_SECONDS = 60.0  # between two looks at what has expired

LOCK_SECONDS = 1.0  # for another process that holds the database
ASK_SECONDS = 3.0  # that an answer waits to be stored
REST_SECONDS = 5.0  # in which nothing is tried, after it could not

_SIZE = "length(response) + length(items)"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    previous TEXT,
    expires REAL NOT NULL,
    response BLOB NOT NULL,
    items BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_expiry ON responses (expires);
"""


@dataclass(frozen=True)
class Stored:
    response: Json
    items: list[Json]  # of this request's input


class ResponseStore:
    """`path`: the database, made with its folder, readable by its owner only; None keeps it in memory."""

    def __init__(self, path: Path | None, ttl_seconds: float) -> None:
        self._ttl_seconds = ttl_seconds
        self._path = path
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "responses")
        self._rests_until = 0.0
        self._purge_at = 0.0
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        path = self._path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=PRIVATE)
            tighten(path)
        db = sqlite3.connect(path or ":memory:", LOCK_SECONDS, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
        self._file = _identity(path)
        self._num_bytes: int = db.execute(f"SELECT coalesce(sum({_SIZE}), 0) FROM responses").fetchone()[0]
        return db

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._db.close()

    async def ask(self, work: Callable[..., T], *values: Any) -> T:
        """One of the methods below, beside the event loop. Raises StorageUnavailable, at once when it just has."""
        if time.monotonic() < self._rests_until:
            raise StorageUnavailable("stored responses cannot be read or written for the moment; try again later")
        job = self._thread.submit(self._checked, work, *values)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job), ASK_SECONDS)
        except (asyncio.TimeoutError, TimeoutError):
            problem: object = f"no answer in {ASK_SECONDS:g} s"
        except (OSError, sqlite3.Error) as error:
            problem = error
        self._rests_until = time.monotonic() + REST_SECONDS
        _log.error("%s: %s", self._path, problem)
        raise StorageUnavailable(f"stored responses cannot be read or written now: {problem}")

    def _checked(self, work: Callable[..., T], *values: Any) -> T:
        """A file that was deleted under us takes what is written to it along: a new one is made."""
        with self._lock:
            if self._path is not None and _identity(self._path) != self._file:
                _log.error("%s is gone, and with it the responses that were stored; it is made anew", self._path)
                self._db.close()
                self._db = self._open()
        return work(*values)

    def put(self, owner: str, response: Json, items: list[Json]) -> None:
        now = time.time()
        encode = msgspec.json.encode
        row = (response["id"], owner, response["previous_response_id"], now + self._ttl_seconds)
        blobs = (encode(response), encode(items))
        with self._lock:
            self._purge(now)
            self._db.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)", (*row, *blobs))
            self._num_bytes += sum(map(len, blobs))
            if self._num_bytes > MAX_BYTES:
                self._make_room()

    def get(self, owner: str, response_id: str) -> Stored:
        with self._lock:
            found = self._row(owner, response_id)
        if found is None:
            raise ResponseNotFound(f"Response with id '{response_id[:100]}' not found.")
        return Stored(msgspec.json.decode(found[1]), msgspec.json.decode(found[2]))

    def delete(self, owner: str, response_id: str) -> None:
        with self._lock:
            num_deleted = self._delete("id = ? AND owner = ?", response_id, owner)
        if not num_deleted:
            raise ResponseNotFound(f"Response with id '{response_id[:100]}' not found.")

    def conversation(self, owner: str, response_id: str) -> list[Json]:
        """All items up to and with that response, oldest first. Raises PreviousResponseNotFound, also for a gap."""
        turns: list[list[Json]] = []
        at: str | None = response_id
        while at is not None and len(turns) < MAX_TURNS:
            with self._lock:
                found = self._row(owner, at)
            if found is None:
                message = f"Previous response with id '{at[:100]}' not found: unknown, expired, deleted or not stored."
                raise PreviousResponseNotFound(message, param="previous_response_id")
            at, response, items = found[0], msgspec.json.decode(found[1]), msgspec.json.decode(found[2])
            turns.append([*items, *response["output"]])
        return [item for turn in reversed(turns) for item in turn]

    def _row(self, owner: str, response_id: str) -> tuple[str | None, bytes, bytes] | None:
        query = "SELECT previous, response, items FROM responses WHERE id = ? AND owner = ? AND expires > ?"
        row: tuple[str | None, bytes, bytes] | None = self._db.execute(
            query, (response_id, owner, time.time())
        ).fetchone()
        return row

    def _purge(self, now: float) -> None:
        if now < self._purge_at:
            return
        self._purge_at = now + PURGE_SECONDS
        self._delete("expires <= ?", now)
        self._delete("id IN (SELECT id FROM responses ORDER BY expires DESC LIMIT -1 OFFSET ?)", MAX_ROWS)

    def _make_room(self) -> None:
        """The oldest go until a quarter is free, so that this is rare."""
        sums = f"SELECT expires, sum({_SIZE}) OVER (ORDER BY expires DESC) AS newest FROM responses"
        query = f"SELECT max(expires) FROM ({sums}) WHERE newest > ?"
        (last,) = self._db.execute(query, (MAX_BYTES * 3 // 4,)).fetchone()
        self._delete("expires <= ?", last)

    def _delete(self, where: str, *values: Any) -> int:
        """How many rows went."""
        gone = self._db.execute(f"DELETE FROM responses WHERE {where} RETURNING {_SIZE}", values).fetchall()
        self._num_bytes -= sum(size for (size,) in gone)
        return len(gone)


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Of the file that has this name now."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def tighten(path: Path) -> None:
    """A database of before, and SQLite's files beside it, which take its mode: for the owner's eyes only."""
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if file.exists() and file.stat().st_mode & 0o077:
            try:
                file.chmod(PRIVATE)
                _log.warning("%s could be read by others than its owner: no longer", file)
            except OSError as error:
                _log.warning("%s can be read by others than its owner, and stays so: %s", file, error.strerror)


def open_store(settings: Settings) -> ResponseStore | None:
    """None: responses are not kept. Raises ConfigError for a file that cannot be had."""
    if not settings.store_responses:
        return None
    try:
        return ResponseStore(settings.responses_file, settings.responses_ttl_seconds)
    except (OSError, sqlite3.Error) as error:
        message = f"responses_file = {str(settings.responses_file)!r}: {error}; or store_responses = off"
        raise ConfigError(message, param="responses_file") from error
