"""A stand-in hub and settings that touch nothing outside the test's folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from axion_llm.config import Settings
from tests.models.standin_hub import StandInHub, reached_from_here, running_hub


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models", user_models_file=tmp_path / "config" / "models.toml")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    with running_hub() as standin, reached_from_here(standin, monkeypatch):
        yield standin
