"""Where settings come from, which of them counts, and what is wrong with a file or a variable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from axion_llm.config import Settings, layers, parse_size, unknown_variables
from axion_llm.errors import ConfigError
from axion_llm.models.registry import load_registry
from axion_llm.security import keys_file


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """With a file of its own, empty at first."""
    path = tmp_path / "config.toml"
    path.write_text("")
    return {"AXION_CONFIG_FILE": str(path)}


def write(environ: dict[str, str], text: str) -> None:
    Path(environ["AXION_CONFIG_FILE"]).write_text(text)


def test_the_later_source_counts(environ: dict[str, str]) -> None:
    write(environ, "warm = 1\nstandard_port = 1\nhost = '::1'")
    environ |= {"AXION_STANDARD_PORT": "2", "AXION_HOST": "127.0.0.2"}
    settings = Settings.load({"host": "127.0.0.3", "threads": None}, environ)
    assert (settings.warm, settings.standard_port, settings.host) == (1, 2, "127.0.0.3")
    assert settings.streaming_port == 8083
    assert [layer.source for layer in layers(environ)] == [environ["AXION_CONFIG_FILE"], "environment"]


def test_each_type(environ: dict[str, str]) -> None:
    write(environ, 'memory_limit = "8GB"')
    assert Settings.load(environ=environ).memory_limit == 8_000_000_000
    write(environ, 'step_ms = 5\nshare_cores = false\ntls_cert = "~/c"\ntls_key = "k"\ncors_origins = ["a", "b"]')
    settings = Settings.load(environ=environ)
    assert (settings.step_ms, settings.share_cores, settings.cors_origins) == (5.0, False, ("a", "b"))
    assert settings.tls_cert == Path.home() / "c"
    environ |= {"AXION_SHARE_CORES": "on", "AXION_CORS_ORIGINS": "c, d,", "AXION_STEP_MS": "6.5"}
    settings = Settings.load(environ=environ)
    assert (settings.step_ms, settings.share_cores, settings.cors_origins) == (6.5, True, ("c", "d"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("wram = 1", r"config.toml: wram: there is no such setting"),
        ("warm = '1'", r"warm = '1': not a valid int"),
        ("warm = true", "not a valid int"),
        ("share_cores = 1", "not a valid bool"),
        ("cors_origins = 'x'", "not a valid tuple"),
        ("cors_origins = [1]", "not a valid tuple"),
        ("models_dir = 3", "not a valid Path"),
        ("memory_limit = 'much'", "not a valid int"),
        ("warm = -1", "must not be negative"),
        ("log_level = 'loud'", "one of debug"),
        ("tls_key = 'k'", "both or neither"),
        ("warm =", "not valid TOML"),
    ],
)
def test_what_is_wrong_with_a_file(environ: dict[str, str], text: str, problem: str) -> None:
    write(environ, text)
    with pytest.raises(ConfigError, match=problem):
        Settings.load(environ=environ)


def test_a_chosen_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Settings.load(environ={"AXION_CONFIG_FILE": str(tmp_path / "nothing.toml")})


def test_variables_that_nothing_reads() -> None:
    given = {"AXION_WRAM": "1", "AXION_WARM": "1", "AXION_KERNELS": "off", "AXION_KEY": "k", "PATH": ""}
    assert unknown_variables(given) == ["AXION_WRAM"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_hosts_that_only_this_machine_reaches(host: str) -> None:
    assert Settings(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "my.host", ""])
def test_hosts_that_others_reach(host: str) -> None:
    assert not Settings(host=host).is_loopback


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("0", 0),
        ("1500", 1500),
        ("800MB", 800_000_000),
        ("16GiB", 16 << 30),
        ("16 gib", 16 << 30),
        ("0.5TiB", 1 << 39),
        ("64k", 64_000),
    ],
)
def test_sizes(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.2.3", "12 XB", "0x10"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_the_environment_is_read_by_type_and_overridden() -> None:
    environ = {"AXION_MEMORY_LIMIT": "2GiB", "AXION_SHARE_CORES": "off", "AXION_TURN_SECONDS": "5", "AXION_WARM": "1"}
    settings = Settings.load({"warm": 3, "threads": None}, environ)
    assert settings.memory_limit == 2 << 30
    assert (settings.share_cores, settings.turn_seconds, settings.warm, settings.threads) == (False, 5.0, 3, 0)


@pytest.mark.parametrize(
    ("variable", "text"),
    [("MEMORY_LIMIT", "much"), ("PIN_CORES", "maybe"), ("WARM", "-1"), ("HANG_SECONDS", "0"), ("TURN_SECONDS", "x")],
)
def test_a_bad_value_names_itself(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=variable.lower() if text in ("-1", "0") else f"AXION_{variable}"):
        Settings.load(None, {f"AXION_{variable}": text})


NO_HOME = """
import os, pwd
pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))
os.environ.pop("HOME", None)
from axion_llm.config import Settings
from axion_llm.errors import ConfigError
try:
    print(Settings.load({}).models_dir)
except ConfigError as error:
    print(error.message)
"""


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ({}, "this user has no home folder: set HOME or XDG_DATA_HOME"),
        ({"XDG_DATA_HOME": "/data"}, "this user has no home folder: set HOME or XDG_CONFIG_HOME"),
        ({"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": "/config"}, "/data/axion-llm/models"),
        (
            {
                "XDG_DATA_HOME": "/data",
                "AXION_KEYS_FILE": "/keys.toml",
                "AXION_USER_MODELS_FILE": "/models.toml",
            },
            "/data/axion-llm/models",
        ),
    ],
)
def test_a_user_without_a_home(given: dict[str, str], printed: str) -> None:
    """A container with any user id: what is given is enough, or one line says what to set."""
    environ = {"PATH": os.environ["PATH"], **given}
    done = subprocess.run([sys.executable, "-c", NO_HOME], env=environ, capture_output=True, text=True)
    assert done.stdout.strip() == printed, done.stderr


@pytest.mark.parametrize("name", ["config.toml", "keys.toml", "models.toml"])
def test_a_byte_order_mark_is_read_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    body = {
        "config.toml": "warm = 1\n",
        "keys.toml": "[keys.a]\nsha256 = '" + "0" * 64 + "'\n",
        "models.toml": "[models.m]\npath = 'm.gguf'\nchat_template_file = 't.jinja'\n",
    }
    (tmp_path / "t.jinja").write_bytes(b"\xef\xbb\xbf{{ 1 }}")
    path.write_bytes(b"\xef\xbb\xbf" + body[name].encode())
    match name:
        case "config.toml":
            assert Settings.load(environ={"AXION_CONFIG_FILE": str(path)}).warm == 1
        case "keys.toml":
            assert keys_file.read(path)[0].name == "a"
        case _:
            settings = Settings(models_file=path, user_models_file=tmp_path / "none")
            assert load_registry(settings).get("m").chat_template == "{{ 1 }}"
