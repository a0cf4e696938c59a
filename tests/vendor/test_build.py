"""The native build: rebuilds for a reason only, and says which patch does not apply."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "vendor"))

import build  # noqa: E402
import sources  # noqa: E402


def test_nothing_to_do_when_nothing_changed() -> None:
    assert build.is_current(build.Plan("native", stock=False, jobs=1))


@pytest.mark.parametrize("part", ["build_id", "digest", "cpu_features"])
def test_a_change_of_lock_patches_sources_or_machine_asks_for_a_build(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, part, lambda *_: "another")
    assert not build.is_current(build.Plan("native", stock=False, jobs=1))


def test_the_lock_is_the_one_that_the_requirements_pin() -> None:
    version, sha = sources.locked()
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert f"llama-cpp-python=={version}" in text and sha in text


def test_no_lock_names_an_index() -> None:
    for path in [ROOT / "vendor" / "llama.lock", *ROOT.glob("requirements*.lock")]:
        assert "://" not in path.read_text()


def test_a_patch_that_does_not_apply_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, patches = tmp_path / "source", tmp_path / "patches"
    source.mkdir()
    patches.mkdir()
    (source / "a.c").write_text("one\nthree\n")
    (patches / "0001-x.patch").write_text("--- a/a.c\n+++ b/a.c\n@@ -1,2 +1,3 @@\n one\n-two\n+2\n+2\n")
    monkeypatch.setattr(sources, "PATCHES", patches)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    with pytest.raises(build.BuildError, match=r"0001-x\.patch does not apply"):
        sources.apply_patches(source)
    assert (source / "a.c").read_text() == "one\nthree\n"


def test_a_download_that_is_not_the_locked_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "WORK", tmp_path)
    sdist = tmp_path / "download" / f"llama_cpp_python-{sources.locked()[0]}.tar.gz"
    sdist.parent.mkdir()
    sdist.write_bytes(b"something else")
    with pytest.raises(build.BuildError, match="sha256 differs"):
        sources.fetch()
    assert not sdist.exists()


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(build.BuildError, match=r"apt install g\+\+"):
        build.build(build.Plan("native", stock=False, jobs=1), force=True)


@pytest.mark.parametrize("name", ["CXX", "CXXFLAGS", "LDFLAGS"])
def test_other_flags_or_another_compiler_ask_for_a_build_from_the_first_file_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "WORK", tmp_path)
    plan = build.Plan("native", stock=False, jobs=1)
    build.start_anew_where_the_toolchain_changed(plan)
    (plan.build_dir / "CMakeCache.txt").write_text("")
    build.start_anew_where_the_toolchain_changed(plan)
    assert (plan.build_dir / "CMakeCache.txt").exists(), "nothing changed"
    before = plan.stamp()
    monkeypatch.setenv(name, {"CXX": "g++", "CXXFLAGS": "-O1", "LDFLAGS": "-s"}[name])
    assert plan.stamp() != before
    build.start_anew_where_the_toolchain_changed(plan)
    assert not (plan.build_dir / "CMakeCache.txt").exists()


def test_libraries_with_vision_serve_where_none_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "LIBRARIES", tmp_path)
    with_vision, without = (build.Plan("native", stock=False, jobs=1, vision=v) for v in (True, False))
    (tmp_path / build.STAMP).write_text(json.dumps(with_vision.stamp()))
    assert build.is_current(with_vision) and build.is_current(without)
    (tmp_path / build.STAMP).write_text(json.dumps(without.stamp()))
    assert not build.is_current(with_vision) and build.is_current(without)


def test_clean_leaves_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "WORK", tmp_path / "work")
    monkeypatch.setattr(build, "LIBRARIES", tmp_path / "lib")
    plan = build.Plan("native", stock=False, jobs=1)
    for directory in (plan.build_dir, plan.library_dir):
        directory.mkdir(parents=True)
        (directory / "x").write_text("")
    build.clean(plan)
    assert not plan.build_dir.exists() and not plan.library_dir.exists()


@pytest.mark.parametrize("flavour", [f for f in build.FLAVOURS if f != "native"])
def test_no_other_flavour_takes_the_place_of_this_machines_libraries(flavour: str) -> None:
    assert build.Plan("native", stock=False, jobs=1).library_dir == build.LIBRARIES
    assert build.Plan(flavour, stock=False, jobs=1).library_dir == build.WORK / flavour / "lib"


def test_what_was_cross_built_is_current_on_the_machine_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cross = build.Plan("aarch64-portable", stock=False, jobs=1).stamp()
    assert cross != build.Plan("portable", stock=False, jobs=1).stamp()
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert cross == build.Plan("portable", stock=False, jobs=1).stamp()


@pytest.mark.parametrize(
    ("words", "flavour"), [([], "portable"), (["--flavour", "aarch64"], "aarch64"), (["--stock"], "native")]
)
def test_the_environment_names_the_flavour_unless_the_command_does(
    words: list[str], flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[build.Plan] = []
    monkeypatch.setattr(build, "build", lambda plan, force: plans.append(plan))
    monkeypatch.setattr(sys, "argv", ["build.py", *words])
    monkeypatch.setenv("AXION_FLAVOUR", "portable")
    assert build.main() == 0
    assert [plan.flavour for plan in plans] == [flavour]


def test_a_flavour_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["build.py"])
    monkeypatch.setenv("AXION_FLAVOUR", "fast")
    assert build.main() == 1
    assert "AXION_FLAVOUR=fast: one of native, portable" in capsys.readouterr().err
