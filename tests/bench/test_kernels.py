"""bench kernels and bench quality on their smallest cases: right figures in the right places, not their size."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from axion_llm import native
from axion_llm.bench.cases import all_cases
from axion_llm.bench.kernels import select
from axion_llm.bench.quality import default_text
from axion_llm.cli.main import cli


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["bench", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_both_sides_their_ratio_and_who_computed_it() -> None:
    report = json.loads(run("kernels", "--op", "rms_norm", "--quick", "--rounds", "1", "--json"))
    assert set(report["peaks"]) == set(native.PEAKS + native.TILES) and report["peaks"]["f32"] > 1e9
    for row in report["rows"]:
        assert {"rms_norm", "fuse_rope"} & set(row["kernels"].split(", ")), "alone, or as a chain of one"
        assert row["agrees"] and row["difference"] < 1e-10
        assert row["ratio"] == pytest.approx(row["ours"] / row["stock"])
    assert len(report["rows"]) + len(report["not_taken"]) == len(select("rms_norm", None, quick=True))


def test_a_table_line_for_attention() -> None:
    text = run("kernels", "--filter", "decode q8_0 D=128 32/8 heads, context 512", "--quick", "--rounds", "1")
    assert re.search(r"flash_attn .* context 512 .*%", text)


def test_kernels_that_are_off_leave_nothing_to_measure() -> None:
    library = native.load()
    names = {kernel.name for kernel in library.kernels() if kernel.enabled}
    library.enable(set())
    try:
        report = json.loads(run("kernels", "--op", "rms_norm", "--quick", "--json"))
    finally:
        library.enable(names)
    assert report["rows"] == [] and len(report["not_taken"]) == len(select("rms_norm", None, quick=True))


def test_rivals_are_measured_too() -> None:
    report = json.loads(run("kernels", "--filter", "1 thread", "--rounds", "1", "--json"))
    rivals = {row["op"]: row["rival"] for row in report["rows"]}
    assert rivals["soft_max"] == "libm soft_max" and rivals["mul_mat"] in ("OpenBLAS", "")
    assert all(row["to_rival"] > 0 for row in report["rows"] if row["rival"])


def test_an_unknown_operation_is_named_as_a_mistake() -> None:
    done = CliRunner().invoke(cli, ["bench", "kernels", "--op", "nonsense"])
    assert done.exit_code == 2 and "without --op" in done.stderr


def test_every_case_of_the_quick_run_has_a_peer_in_the_whole_run() -> None:
    whole = {f"{c.op} {c.name}" for c in all_cases(False)}
    assert {f"{c.op} {c.name}" for c in all_cases(True)} <= whole


def test_the_default_text_is_long_enough() -> None:
    assert len(default_text()) > 4 * 4096


def test_quality_of_a_short_text(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The river ran past the old mill and under the bridge. " * 20)
    done = CliRunner().invoke(cli, ["bench", "quality", "--text", str(text), "--tokens", "120", "--json"])
    rows = json.loads(done.stdout)
    assert [(r["kernels"], r["kv_type"]) for r in rows] == [
        ("stock", "f16"),
        ("ours", "f16"),
        ("stock", "q8_0"),
        ("ours", "q8_0"),
    ]
    assert rows[0]["kl_mean"] == 0 and rows[0]["by_kernels"] is None and rows[0]["by_cache"] is None
    assert all(0 <= r["kl_mean"] < 0.05 and r["same_choice"] > 0.8 for r in rows)
