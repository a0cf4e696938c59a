"""The account of each model: sums over all processes it has had."""

from __future__ import annotations

from axion_llm.pool.ledger import Ledger
from axion_llm.worker.messages import EngineStats


def test_a_load_after_a_crash_is_a_restart_and_one_after_an_unload_is_not() -> None:
    ledger = Ledger()
    ledger.loaded("a", 1.0)
    ledger.crashed("a")
    ledger.loaded("a", 3.0)
    ledger.unloaded("a", "idle")
    ledger.loaded("a", 2.0)
    account = ledger.accounts()["a"]
    assert (account.num_loads, account.num_crashes, account.num_restarts) == (3, 1, 1)
    assert (account.load_seconds, account.last_load_seconds) == (6.0, 2.0)


def test_counters_of_processes_that_ended_add_up() -> None:
    ledger = Ledger()
    ledger.ended("a", EngineStats(num_steps=5, decode_seconds=0.5))
    ledger.ended("a", EngineStats(num_steps=7, decode_seconds=0.25))
    ended = ledger.accounts()["a"].ended
    assert (ended.num_steps, ended.decode_seconds) == (12, 0.75)


def test_models_have_accounts_of_their_own_and_what_was_given_out_does_not_change() -> None:
    ledger = Ledger()
    ledger.failed("a")
    before = ledger.accounts()
    ledger.failed("a")
    ledger.unloaded("b", "evicted")
    assert before["a"].num_failed_loads == 1 and "b" not in before
    assert ledger.accounts()["a"].num_failed_loads == 2 and ledger.accounts()["b"].num_unloads == {"evicted": 1}
