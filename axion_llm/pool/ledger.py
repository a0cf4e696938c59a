"""What happened to each model since the service began: loads, ends, failures. It outlives the model's process."""

from __future__ import annotations

from dataclasses import replace

from msgspec.structs import astuple

from axion_llm.pool.report import Account, UnloadReason
from axion_llm.worker.messages import EngineStats


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
        """An `ended` is due as well."""
        was = self._of(name)
        self._accounts[name] = replace(was, num_crashes=was.num_crashes + 1)
        self._crashed.add(name)

    def unloaded(self, name: str, reason: UnloadReason) -> None:
        was = self._of(name)
        counts = {**was.num_unloads, reason: was.num_unloads.get(reason, 0) + 1}
        self._accounts[name] = replace(was, num_unloads=counts)

    def ended(self, name: str, stats: EngineStats) -> None:
        """Its process is gone; these were its counters."""
        was = self._of(name)
        sums = (a + b for a, b in zip(astuple(was.ended), astuple(stats), strict=True))
        self._accounts[name] = replace(was, ended=EngineStats(*sums))

    def _of(self, name: str) -> Account:
        return self._accounts.get(name, Account())
