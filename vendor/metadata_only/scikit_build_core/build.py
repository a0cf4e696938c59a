"""The two hooks of PEP 517 that a download needs."""

from __future__ import annotations

import os
from pathlib import Path


def get_requires_for_build_wheel(config_settings: object = None) -> list[str]:
    return []


def prepare_metadata_for_build_wheel(directory: str, config_settings: object = None) -> str:
    version = os.environ["AXION_LOCKED_VERSION"]
    folder = Path(directory) / f"llama_cpp_python-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {version}\n")
    return folder.name
