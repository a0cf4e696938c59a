"""One page from results of different shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from axion_llm.bench.client import BenchError
from axion_llm.bench.report import page


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_lists_become_tables_and_sides_stand_beside_each_other(tmp_path: Path) -> None:
    rows = [
        {"scenario": "cold", "what": "first token", "side": side, "value": value, "unit": "s", "better": "lower"}
        for side, value in (("axion", 0.2), ("stock", 0.8))
    ]
    pool = write(tmp_path / "pool.json", rows)
    latency = write(tmp_path / "latency.json", {"kind": "latency", "results": [{"side": "a|b", "mean": 1.23456}]})
    text = page([pool, latency], "Measured", {"cores": 2})
    assert text.startswith("# Measured\n\ncores: 2\n\n## pool\n")
    assert "| scenario | figure | axion | stock | axion / stock |" in text
    assert "| cold | first token | 0.2 s | 0.8 s | 0.25 |" in text
    assert "kind latency\n\n### results\n\n| side | mean |\n| --- | --- |\n| a/b | 1.235 |" in text


@pytest.mark.parametrize("text", ["", "{", "[]", "5"])
def test_a_file_with_nothing_to_show(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(BenchError, match=r"x\.json"):
        page([file], "t", {})
