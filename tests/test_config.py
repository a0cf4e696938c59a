"""Settings: where each value may come from, and what a bad one says."""

from __future__ import annotations

import pytest

from axion_llm.config import Settings, parse_size
from axion_llm.errors import ConfigError


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
