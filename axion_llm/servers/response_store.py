"""Responses kept for `previous_response_id` and for reading them again: SQLite, a time to live, an owner.

A row has what one request brought and what it got; a conversation is the chain of its rows. Calls come from threads
(asyncio.to_thread), one at a time. Only the API key that stored a response sees it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, PreviousResponseNotFound, ResponseNotFound

Json = dict[str, Any]

MAX_TURNS = 1000  # of one conversation
MAX_ROWS = 100_000  # the oldest go first
MAX_BYTES = 2 * 1024**3  # of all rows, images too; then the oldest of them go as well
PURGE_SECONDS = 60.0  # between two looks at what has expired

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
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._purge_at = 0.0
        self._num_bytes: int = self._db.execute(f"SELECT coalesce(sum({_SIZE}), 0) FROM responses").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            self._db.close()

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


def open_store(settings: Settings) -> ResponseStore | None:
    """None: responses are not kept. Raises ConfigError for a file that cannot be had."""
    if not settings.store_responses:
        return None
    try:
        return ResponseStore(settings.responses_file, settings.responses_ttl_seconds)
    except (OSError, sqlite3.Error) as error:
        message = f"responses_file = {str(settings.responses_file)!r}: {error}; or store_responses = off"
        raise ConfigError(message, param="responses_file") from error
