"""`axion-llm serve` up to where the servers begin: options, settings, mistakes, what it says."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from axion_llm.cli import serve_cmd
from axion_llm.cli.serve_cmd import _Announcer, serve
from axion_llm.config import Settings
from axion_llm.errors import ConfigError
from axion_llm.pool.interface import ModelStatus
from tests.fakes.fake_pool import FakePool, spec


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("uvicorn", "asyncio")}
    yield
    root.handlers[:], root.level = handlers, level
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, list[str]]]:
    """Instead of running, notes with what it would."""
    calls: list[tuple[Settings, list[str]]] = []

    async def note(settings: Settings, kinds: list[str]) -> None:
        calls.append((settings, kinds))

    monkeypatch.setattr(serve_cmd, "_serve", note)
    return calls


def run(*arguments: str, **environ: str) -> None:
    result = CliRunner().invoke(serve, arguments, env=environ, catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception


def test_defaults(started: list[tuple[Settings, list[str]]]) -> None:
    run()
    assert started == [(Settings.load(), ["standard", "streaming", "consensus"])]


def test_options_are_settings(started: list[tuple[Settings, list[str]]], tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    options: dict[str, Any] = {
        "host": "0.0.0.0",
        "standard_port": 1,
        "streaming_port": 2,
        "consensus_port": 3,
        "warm": 0,
        "max_loaded": 4,
        "threads": 5,
        "log_level": "debug",
    }
    arguments = [a for name, value in options.items() for a in (f"--{name.replace('_', '-')}", str(value))]
    run(*arguments, "--models", str(models))
    [(settings, _)] = started
    assert settings == replace(Settings.load(), models_file=models, **options)


def test_options_go_before_the_environment(started: list[tuple[Settings, list[str]]]) -> None:
    run("--standard-port", "7", AXION_STANDARD_PORT="5", AXION_WARM="1")
    [(settings, _)] = started
    assert (settings.standard_port, settings.warm) == (7, 1)


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (["--only", "standard"], ["standard"]),
        (["--only", "streaming"], ["streaming"]),
        (["--only", "consensus"], ["consensus"]),
        (["--only", "streaming", "--only", "standard"], ["standard", "streaming"]),
    ],
)
def test_only(started: list[tuple[Settings, list[str]]], arguments: list[str], kinds: list[str]) -> None:
    run(*arguments)
    assert started[0][1] == kinds


def test_hosts_and_origins(started: list[tuple[Settings, list[str]]]) -> None:
    run("--allowed-host", "a.example", "--allowed-host", ".lan", "--cors-origin", "https://my.app", "--log-prompts")
    [(settings, _)] = started
    assert settings.allowed_hosts == ("a.example", ".lan")
    assert settings.cors_origins == ("https://my.app",)
    assert settings.log_prompts and not settings.tracing


@pytest.mark.parametrize(("options", "warns"), [({}, False), ({"host": "::1"}, False), ({"host": "0.0.0.0"}, True)])
@pytest.mark.parametrize("keys", ["", "k" * 20])
async def test_a_service_that_is_open_to_all_says_so(
    options: dict[str, str], warns: bool, keys: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def nothing(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr("axion_llm.servers.run.serve", nothing)
    await serve_cmd._serve(Settings(api_keys=keys, **options), ["standard"])  # type: ignore[arg-type]
    assert ("axion-llm keys new" in caplog.text) == (warns and not keys)


def test_a_log_level_of_the_environment_is_checked() -> None:
    with pytest.raises(ConfigError, match="log_level"):
        run(AXION_LOG_LEVEL="loud")


@pytest.mark.parametrize("arguments", [["--standard-port", "70000"], ["--warm", "-1"], ["--only", "x"]])
def test_wrong_usage(arguments: list[str]) -> None:
    result = CliRunner().invoke(serve, arguments)
    assert result.exit_code == 2


def test_a_port_in_use_is_said_before_anything_loads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = str(sock.getsockname()[1])
        with pytest.raises(ConfigError, match="--standard-port"):
            run("--standard-port", port, "--streaming-port", "0", "--warm", "0")


def test_help_teaches() -> None:
    text = CliRunner().invoke(serve, ["--help"]).output
    for part in ("axion-llm serve --only streaming", "AXION_STANDARD_PORT", "base_url", "[8082]", "Ctrl-C"):
        assert part in text


def test_what_it_says() -> None:
    pool = FakePool(specs=[spec("one"), spec("two")])
    announcer = _Announcer(pool)
    announcer._console = Console(file=io.StringIO(), soft_wrap=True)
    announcer.listening({"standard": "http://127.0.0.1:8082", "streaming": "http://127.0.0.1:8083"})
    announcer.ready()
    announcer.stopped()
    said = announcer._console.file
    assert isinstance(said, io.StringIO)
    lines = said.getvalue().splitlines()
    assert lines[:3] == [
        "standard   http://127.0.0.1:8082/v1",
        "streaming  http://127.0.0.1:8083/v1",
        "ready      one",
    ]
    assert lines[3].startswith("try        curl http://127.0.0.1:8082/v1/chat/completions -H 'Content-Type:")
    assert '{"model": "one", "messages": [{"role": "user", "content": "Hello"}]}' in lines[3]
    assert lines[4:] == ["stopped"]


def test_a_warm_model_that_failed_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakePool()
    monkeypatch.setattr(pool, "models", lambda: [ModelStatus(spec("bad"), "failed", "its file is [truncated]")])
    announcer = _Announcer(pool)
    announcer._console = Console(file=io.StringIO(), soft_wrap=True)
    announcer.listening({"standard": "http://127.0.0.1:1"})
    announcer.ready()
    said = announcer._console.file
    assert isinstance(said, io.StringIO)
    assert "failed     bad: its file is [truncated]\n" in said.getvalue()
    assert "no model loaded yet" in said.getvalue()
