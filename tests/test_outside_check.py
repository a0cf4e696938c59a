"""What scripts/outside-check takes for a fault: a failure without a reason, and one of a case that passed before."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).parent.parent / "scripts" / "outside" / "check.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("outside_check", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["outside_check"] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_faults(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "reasons", lambda: {"test_a": {"test_known*": "another server"}})
    then = [check.Case("test_a.py", "test_known[1]", "failed"), check.Case("test_a.py", "test_known[2]", "passed")]
    page = check.page(then)
    assert check.faults(then, page) == []
    now = [check.Case("test_a.py", f"test_known[{i}]", "failed", "why") for i in (1, 2)]
    assert check.faults(now, page) == ["has passed before: test_a.py test_known[2]: why"]
    new = check.Case("test_a.py", "test_new", "failed", "why")
    assert check.faults([new], page) == ["not explained: test_a.py test_new: why"]
    assert check.faults([check.Case("test_b.py", "test_known[1]", "failed", "why")], page)


def test_a_suite_that_did_not_run_is_no_success(check: ModuleType) -> None:
    assert "no case of clients has run" in check.empty_suites([])


def test_the_page_is_of_these_suites(check: ModuleType) -> None:
    text = check.DOCUMENT.read_text()
    for suite in check.SUITES:
        assert f"### {suite.removeprefix('unit/')}: " in text
