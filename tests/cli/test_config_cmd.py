"""`config check` and `config list`, `completion`: what they print and how they end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from axion_llm.cli.main import cli
from axion_llm.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "axion-llm"
    folder.mkdir()
    return folder


def call(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, arguments, env=environ)


def test_a_configuration_that_is_right(home: Path) -> None:
    (home / "config.toml").write_text("warm = 1")
    result = call("config", "check")
    assert (result.exit_code, result.output) == (0, "the configuration is right\n")


def test_warnings_do_not_fail() -> None:
    result = call("config", "check", AXION_WRAM="1", AXION_HOST="0.0.0.0", AXION_CORS_ORIGINS="*")
    assert result.exit_code == 0
    for part in ("AXION_WRAM: no such setting", "without API keys", "without TLS", "cors_origins *"):
        assert part in result.stderr


def test_keys_take_the_warning_away() -> None:
    assert "without API keys" not in call("config", "check", AXION_HOST="::", AXION_API_KEYS="k" * 20).stderr


def test_all_that_is_wrong_at_once(home: Path) -> None:
    (home / "models.toml").write_text("[models.x]\nwrong = 1")
    (home / "keys.toml").write_text("[keys.x]")
    result = call("config", "check", "--json", AXION_TLS_CERT="/no/cert", AXION_TLS_KEY="/no/key")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert not document["ok"]
    assert len(document["errors"]) == 3
    with pytest.raises(ConfigError, match=r"models\.toml"):
        CliRunner().invoke(cli, ["config", "check"], catch_exceptions=False, standalone_mode=False)


def test_list(home: Path) -> None:
    (home / "config.toml").write_text("warm = 1")
    environ = {"AXION_STANDARD_PORT": "9", "AXION_API_KEYS": "very-secret-key-of-mine"}
    result = call("config", "list", "--json", **environ)
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert rows["warm"] == {"name": "warm", "value": 1, "from": str(home / "config.toml")}
    assert rows["standard_port"] == {"name": "standard_port", "value": 9, "from": "environment"}
    assert rows["host"]["from"] == "default"
    assert rows["api_keys"]["value"] == "(hidden)"
    shown = call("config", "list", **environ).output
    assert "very-secret" not in shown and "standard_port" in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    result = call("completion", shell)
    assert result.exit_code == 0
    assert "_AXION_LLM_COMPLETE" in result.output and "axion-llm" in result.output
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=result.output, text=True, check=True)


def test_what_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    def complete(line: str) -> str:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        environ = {**words, "_AXION_LLM_COMPLETE": "bash_complete"}
        return CliRunner().invoke(cli, [], prog_name="axion-llm", env=environ).output

    assert complete("axion-llm comp") == "plain,completion\n"
    assert complete("axion-llm run smol") == "plain,smollm2\n"
    assert complete("axion-llm run --max-t") == "plain,--max-tokens\n"
