"""The registry of a running service follows its files, and no mistake in them harms it."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from axion_llm.config import Settings
from axion_llm.errors import ConfigError, ModelNotFound
from axion_llm.models.live import LiveRegistry


@pytest.fixture
def file(settings: Settings) -> Path:
    settings.user_models_file.parent.mkdir(parents=True, exist_ok=True)
    return settings.user_models_file


def write(path: Path, *names: str, context: int = 1024) -> None:
    path.write_text("".join(f'[models.{name}]\npath = "{name}.gguf"\ncontext = {context}\n' for name in names))


def test_a_file_that_appears_changes_or_goes_is_noticed(settings: Settings, file: Path) -> None:
    live = LiveRegistry(settings)
    assert not live.has_changed()
    for change in (lambda: write(file, "a"), lambda: write(file, "a", "b"), file.unlink):
        change()
        assert live.has_changed()
        live.reload()
        assert not live.has_changed()


def test_a_file_put_in_anothers_place_is_noticed_even_with_its_time_and_size(settings: Settings, file: Path) -> None:
    write(file, "a")
    live = LiveRegistry(settings)
    new = file.with_suffix(".new")
    write(new, "b")
    os.utime(new, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    new.rename(file)
    assert live.has_changed()


def test_models_come_change_and_go(settings: Settings, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="axion_llm.models.live")
    write(file, "a", "b")
    live = LiveRegistry(settings)
    write(file, "b", "c", context=2048)
    live.reload()
    assert live.get("b").n_ctx == 2048 and "c" in live and "smollm2" in live
    with pytest.raises(ModelNotFound):
        live.get("a")
    assert "added c; removed a; changed b" in caplog.text


def test_a_mistake_changes_nothing_and_is_told_until_it_is_mended(
    settings: Settings, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(file, "a")
    live = LiveRegistry(settings)
    file.write_text('[models.a]\npath = "a.gguf"\ncontxt = 5\n')
    live.reload()
    assert live.get("a").n_ctx == 1024
    assert live.error is not None and ":3: models.a.contxt" in live.error and live.error in caplog.text
    assert not live.has_changed()  # one complaint is enough
    write(file, "a", context=4096)
    assert live.has_changed()
    live.reload()
    assert live.error is None and live.get("a").n_ctx == 4096


def test_a_named_file_that_vanishes_is_such_a_mistake(settings: Settings, file: Path) -> None:
    named = file.with_name("named.toml")
    write(named, "a")
    live = LiveRegistry(replace(settings, models_file=named))
    named.unlink()
    assert live.has_changed()
    live.reload()
    assert live.error is not None and "no such file" in live.error and "a" in live


def test_a_service_does_not_start_with_a_mistake(settings: Settings, file: Path) -> None:
    file.write_text("[models.a]\n")
    with pytest.raises(ConfigError):
        LiveRegistry(settings)
