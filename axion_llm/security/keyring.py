"""The keys that a running service knows: of the environment, and of a file that is read anew when it changes.

Once a service asks for keys it never stops asking: a file that is deleted, emptied or broken while it runs
does not open it. Without a file and without keys in the environment it asks for none.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from axion_llm.config import Settings
from axion_llm.errors import ConfigError
from axion_llm.security import keys_file
from axion_llm.security.keys import Key, find, from_setting

LOOK_SECONDS = 1.0  # how soon a new or revoked key counts

_log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class KeyRing:
    """Raises ConfigError when made from keys that are not right."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.keys_file
        self._fixed = [
            *from_setting("api_keys", settings.api_keys, ["use"]),
            *from_setting("admin_keys", settings.admin_keys, ["admin"]),
        ]
        self._stamp = _stamp(self._path)
        if self._stamp is None and settings.is_keys_file_chosen:
            raise ConfigError(f"keys_file = {self._path}: there is no such file; axion-llm keys new makes it")
        self._keys = self._fixed + (keys_file.read(self._path) if self._stamp else [])
        self._is_asking = bool(self._fixed) or self._stamp is not None
        self._next_look = time.monotonic() + LOOK_SECONDS

    @property
    def is_asking(self) -> bool:
        """Whether a request needs a key."""
        self._look()
        return self._is_asking

    def find(self, secret: str) -> Key | None:
        self._look()
        return find(self._keys, secret)

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._read_anew()

    def _read_anew(self) -> None:
        if self._stamp is None:
            _log.warning("%s is gone: its keys are no longer taken", self._path)
            self._keys = self._fixed
            return
        try:
            self._keys = self._fixed + keys_file.read(self._path)
            self._is_asking = True
            _log.info("%s has changed: %d keys", self._path, len(self._keys))
        except ConfigError as error:
            _log.error("%s; the keys stay as they were", error.message)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
