"""What is said while files are compiled, and of what fails."""

import io
import os
import stat
from pathlib import Path

import progress
import pytest

from tests.vendor.test_sources import ROOT  # noqa: F401  puts vendor/ on the path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_rewritten() -> None:
    out = Terminal()
    shown = progress.Progress(out, 100.0)
    shown.step(1, 40, 101.0)
    shown.step(10, 40, 130.0)
    shown.end()
    assert "\n" not in out.getvalue()
    assert "10 of 40 files, 30 s, about 90 s left" in out.getvalue().replace("2 min", "90 s")


def test_elsewhere_a_line_comes_now_and_then() -> None:
    out = io.StringIO()
    shown = progress.Progress(out, 100.0)
    for second in range(60):
        shown.step(second + 1, 60, 100.0 + second)
    assert 4 <= len(out.getvalue().splitlines()) <= 8
    assert "60 of 60 files" in out.getvalue()


@pytest.mark.parametrize("code", [0, 1])
def test_the_words_of_a_command_that_fails_are_shown(
    code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "ninja"
    program.write_text(f'#!/bin/sh\necho "@1/2@ CC a"; echo "a.c:1: error: no"; exit {code}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert progress.run_ninja([str(program)], dict(os.environ), tmp_path / "log") == (code == 0)
    assert ("a.c:1: error" in capfd.readouterr().err) == (code == 1)
    assert "a.c:1: error" in (tmp_path / "log").read_text()
