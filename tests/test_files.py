"""Our own files: changed by one at a time, whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from axion_llm import files
from axion_llm.security import keys_file

NEW_KEY = "from axion_llm.cli.main import main; import sys; sys.argv[1:] = ['keys', 'new', {name!r}]; main()"
COUNT = """
import sys, pathlib
from axion_llm import files
path = pathlib.Path(sys.argv[1])
for _ in range(50):
    with files.locked(path):
        files.replace(path, str(int(path.read_text()) + 1))
"""


def test_eight_new_keys_at_once_are_eight(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    environ = {**os.environ, "AXION_KEYS_FILE": str(path)}
    commands = [[sys.executable, "-c", NEW_KEY.format(name=f"k{i}")] for i in range(8)]
    made = [subprocess.Popen(c, env=environ, stdout=subprocess.PIPE) for c in commands]
    assert [process.wait(120) for process in made] == [0] * 8
    assert sorted(key.name for key in keys_file.read(path)) == [f"k{i}" for i in range(8)]
    for process in made:
        assert process.stdout
        process.stdout.close()


def test_no_change_is_lost_between_processes(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    counting = [subprocess.Popen([sys.executable, "-c", COUNT, str(path)]) for _ in range(3)]
    assert [process.wait(120) for process in counting] == [0] * 3
    assert path.read_text() == "150"


def test_no_line_is_lost_between_threads(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: files.append(path, f"{i} " + "x" * 20_000), range(40)))
    assert sorted(int(line.split()[0]) for line in path.read_text().splitlines()) == list(range(40))


def test_what_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    files.replace(path, "old", mode=files.PRIVATE)
    with pytest.raises(UnicodeEncodeError):
        files.replace(path, "\ud800")
    assert path.read_text() == "old"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_change_that_fails_changes_nothing_and_lets_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    with pytest.raises(RuntimeError), keys_file.changing(path) as keys:
        keys.clear()
        raise RuntimeError
    assert not path.exists()
    with keys_file.changing(path):
        pass
    assert keys_file.read(path) == []
