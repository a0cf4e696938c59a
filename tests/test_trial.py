"""The judgement of the trials on emulated CPUs (scripts/trial), and that a wrapped python stays wrapped."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TRIAL = Path(__file__).parents[1] / "scripts" / "trial"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TRIAL))
    for own in ("server", "questions", "x86", "arm"):
        monkeypatch.delitem(sys.modules, own, raising=False)
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"chat": "The capital of France is London."}, "chat: 'The capital of France is London.'"),
        ({"story": "One, two, three."}, "story: 'One, two, three.'"),
        ({"embedding": [0.6, 0.79]}, None),  # other last digits
        ({"embedding": [0.8, 0.6]}, "cosine with the stored one is 0.96"),
    ],
)
def test_what_a_cpu_says_is_held_against_the_stored_run(
    change: dict[str, Any], word: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = module("questions", monkeypatch)
    wanted = {"chat": "Paris.", "story": "One, two.", "embedding": [0.6, 0.8]}
    wrong = questions.differences(questions.Answers(**wanted | change), questions.Answers(**wanted))
    assert wrong == [] if word is None else len(wrong) == 1 and word in wrong[0]


@pytest.mark.skipif(shutil.which("qemu-x86_64-static") is None, reason="no qemu-user-static")
def test_a_python_on_another_cpu_starts_its_children_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x86 = module("x86", monkeypatch)
    monkeypatch.setattr(x86, "WORK", tmp_path)
    python = x86.interpreter("Nehalem")
    code = "import sys; sys.stdout.write(sys.executable); import click"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == str(python)
