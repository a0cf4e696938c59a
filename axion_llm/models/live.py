"""The registry of a running service: read anew when a file of it changes, kept as it is when there is a mistake."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from axion_llm.config import Settings
from axion_llm.errors import ConfigError
from axion_llm.models.registry import Registry, load_registry, registry_files
from axion_llm.models.spec import ModelSpec

_log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int] | None  # modified, in nanoseconds; bytes; inode: an editor puts a new file in its place


class LiveRegistry:
    """A `Registry` in use. `has_changed` costs a few microseconds, `reload` some milliseconds for a small file."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError: a service does not start with a mistake in its registry."""
        self._settings = settings
        self._stamps = self._look()
        self._registry = load_registry(settings)
        self.error: str | None = None  # a mistake in the files as they are now

    def get(self, name: str) -> ModelSpec:
        return self._registry.get(name)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._registry)

    def __contains__(self, name: object) -> bool:
        return name in self._registry

    def has_changed(self) -> bool:
        """Whether a file is another one than at the last reading."""
        return self._look() != self._stamps

    def reload(self) -> None:
        """A mistake changes nothing: it is logged and kept as `error` until the files are right again."""
        self._stamps = self._look()  # before the files are read: what is written meanwhile is seen at the next look
        try:
            new = load_registry(self._settings)
        except ConfigError as error:
            self.error = error.message
            _log.error("models are as before, for there is a mistake: %s", error.message)
            return
        old, self._registry, self.error = self._registry, new, None
        _log.info("models read anew: %s", _difference(old, new))

    def _look(self) -> dict[Path, _Stamp]:
        return {path: _stamp(path) for path in registry_files(self._settings)}


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _difference(old: Registry, new: Registry) -> str:
    parts = {
        "added": [spec.name for spec in new if spec.name not in old],
        "removed": [spec.name for spec in old if spec.name not in new],
        "changed": [spec.name for spec in new if spec.name in old and old.get(spec.name) != spec],
    }
    words = [f"{what} {', '.join(names)}" for what, names in parts.items() if names]
    return "; ".join(words) or "nothing has changed"
