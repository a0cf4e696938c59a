"""What happened to each model since the service began: loads, ends, failures. It outlives the model's process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

UnloadReason = Literal["evicted", "idle", "asked", "removed"]
"""evicted: another model needed the room; idle: not used for long; asked: an administrator's order; removed: it is
no longer in the registry."""


@dataclass(frozen=True)
class Account:
    """Of one model; totals that only grow."""

    num_loads: int = 0  # that succeeded
    num_failed_loads: int = 0
    load_seconds: float = 0.0  # of those that succeeded, from the start of its process to the first possible token
    last_load_seconds: float | None = None
    num_crashes: int = 0  # ends of its process that nobody asked for
    num_restarts: int = 0  # loads that followed a crash
    num_unloads: dict[UnloadReason, int] = field(default_factory=dict)


class Ledger:
    """Written by the pool, read by /metrics and the status."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._crashed: set[str] = set()  # and not loaded since

    def accounts(self) -> dict[str, Account]:
        return dict(self._accounts)

    def loaded(self, name: str, seconds: float) -> None:
        was = self._of(name)
        self._accounts[name] = replace(
            was,
            num_loads=was.num_loads + 1,
            load_seconds=was.load_seconds + seconds,
            last_load_seconds=seconds,
            num_restarts=was.num_restarts + (name in self._crashed),
        )
        self._crashed.discard(name)

    def failed(self, name: str) -> None:
        was = self._of(name)
        self._accounts[name] = replace(was, num_failed_loads=was.num_failed_loads + 1)

    def crashed(self, name: str) -> None:
        was = self._of(name)
        self._accounts[name] = replace(was, num_crashes=was.num_crashes + 1)
        self._crashed.add(name)

    def unloaded(self, name: str, reason: UnloadReason) -> None:
        was = self._of(name)
        counts = {**was.num_unloads, reason: was.num_unloads.get(reason, 0) + 1}
        self._accounts[name] = replace(was, num_unloads=counts)

    def _of(self, name: str) -> Account:
        return self._accounts.get(name, Account())
