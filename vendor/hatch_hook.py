"""Puts the native libraries into a wheel: `pip install .` builds them by vendor/build.py first."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))


class NativeLibraries(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # a clone builds by scripts/build, with its progress on show
        import build

        jobs = len(os.sched_getaffinity(0))
        directory = build.build(build.Plan(build.chosen_flavour(), stock=False, jobs=jobs))
        build_data["pure_python"] = False
        build_data["infer_tag"] = False
        build_data["tag"] = f"py3-none-{build.platform_tag()}"
        for path in directory.iterdir():
            if is_wanted(path.name):
                build_data["force_include"][str(path)] = f"axion_llm/lib/{path.name}"


def is_wanted(name: str) -> bool:
    """A wheel has no links: each library goes in as libX.so (to open) and libX.so.N (what the others ask for)."""
    return not name.count(".") > 2
