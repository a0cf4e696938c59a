"""`keys new`, `list` and `revoke`: the key is shown once, the file holds its hash only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from axion_llm.cli.main import cli
from axion_llm.errors import AxionError
from axion_llm.security import keys_file
from axion_llm.security.keys import find


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def call(path: Path, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments], env={"AXION_KEYS_FILE": str(path)}, input=stdin)


def test_new(path: Path) -> None:
    result = call(path, "new", "alice")
    assert result.exit_code == 0
    secret = result.stdout.strip()
    assert secret not in path.read_text()
    found = find(keys_file.read(path), secret)
    assert found is not None and (found.name, found.scopes) == ("alice", {"use"})
    assert secret not in result.stderr


def test_new_with_scopes_and_limits_as_json(path: Path) -> None:
    result = call(path, "new", "b", "--scope", "use", "--scope", "metrics", "--rpm", "9", "--tpm", "99", "--json")
    document = json.loads(result.stdout)
    assert document["scopes"] == ["use", "metrics"]
    found = find(keys_file.read(path), document["key"])
    assert found is not None and (found.requests_per_minute, found.tokens_per_minute) == (9, 99)


@pytest.mark.parametrize("name", ["alice", "a b", "", "ä"])
def test_names_that_will_not_do(path: Path, name: str) -> None:
    call(path, "new", "alice")
    assert isinstance(call(path, "new", name).exception, AxionError)
    assert [key.name for key in keys_file.read(path)] == ["alice"]


def test_list(path: Path) -> None:
    assert "axion-llm keys new" in call(path, "list").output
    call(path, "new", "alice", "--rpm", "5")
    shown = call(path, "list").output
    assert "alice" in shown and "use" in shown and "5" in shown
    assert json.loads(call(path, "list", "--json").output)[0]["name"] == "alice"


def test_revoke(path: Path) -> None:
    for name in ("alice", "bob"):
        call(path, "new", name)
    assert call(path, "revoke", "alice", stdin="n\n").exit_code == 1
    assert len(keys_file.read(path)) == 2
    assert call(path, "revoke", "alice", stdin="y\n").exit_code == 0
    assert [key.name for key in keys_file.read(path)] == ["bob"]
    last = call(path, "revoke", "bob", "--yes")
    assert "nobody gets in" in last.stderr
    error = call(path, "revoke", "bob", "--yes").exception
    assert isinstance(error, AxionError) and "Known: none" in error.message
