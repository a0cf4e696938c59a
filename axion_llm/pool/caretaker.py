"""What the pool does without being asked: unloads what is not used, what changed on disk, what left the registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Protocol

from axion_llm.config import Settings
from axion_llm.models.spec import ModelSpec
from axion_llm.pool import policy
from axion_llm.pool.loader import FileStamp
from axion_llm.pool.room import Room
from axion_llm.pool.slot import Slot

CHECK_SECONDS = 5.0
REGISTRY_CHECK_SECONDS = 2.0


class Models(Protocol):
    """What the pool asks of the registry."""

    def get(self, name: str) -> ModelSpec: ...

    def __iter__(self) -> Iterator[ModelSpec]: ...

    def __contains__(self, name: object) -> bool: ...

    @property
    def error(self) -> str | None: ...

    def has_changed(self) -> bool: ...

    def reload(self) -> None: ...


class Caretaker:
    """Its two rounds run as long as the pool does."""

    def __init__(self, registry: Models, slots: Mapping[str, Slot], room: Room, settings: Settings) -> None:
        self._registry = registry
        self._slots = slots
        self._room = room
        self._settings = settings

    async def look_after_models(self) -> None:
        idle_seconds = self._settings.idle_unload_seconds
        while True:
            await asyncio.sleep(min(CHECK_SECONDS, idle_seconds / 4 or CHECK_SECONDS))
            for name in policy.expired(self._room.residents(), time.monotonic(), idle_seconds):
                self._room.unload(self._slots[name], "idle", f"not used for {idle_seconds:g} s")
            for slot in list(self._slots.values()):
                if slot.file and slot.ready:
                    self._compare(slot, slot.file, await asyncio.to_thread(FileStamp.of, slot.file.path))

    def _compare(self, slot: Slot, opened: FileStamp, now: FileStamp | None) -> None:
        """A file that was replaced is still there for the worker; one that was written to has other weights now."""
        if now is None or now == opened or slot.file is not opened or not slot.ready:
            return
        if now.inode == opened.inode:
            self._room.unload(slot, "changed", "its file was written to while it was in use")
        elif slot.closing_since is None:
            slot.closing_since, slot.is_stale = time.monotonic(), True
            self._room.unload_closed(slot)
        elif time.monotonic() - slot.closing_since > self._settings.turn_seconds:
            self._room.unload(slot, "changed", "its file was replaced")

    async def follow_registry(self) -> None:
        while True:
            await asyncio.sleep(REGISTRY_CHECK_SECONDS)
            if await asyncio.to_thread(self._registry.has_changed):
                await asyncio.to_thread(self._registry.reload)
            self.retire()

    def retire(self) -> None:
        """What is no longer in the registry goes as soon as nobody uses it."""
        for name, slot in self._slots.items():
            if name not in self._registry and slot.ready and not slot.num_leases:
                self._room.unload(slot, "removed", "no longer in the registry")
