"""Where a pulled model lies on the disk: which of its files are there, which half, and who wrote them.

    models_dir/NAME/FILE                 whole and checked: a file gets this name last, in one step
    models_dir/NAME/.partial/FILE.TAG    what has come so far; the next pull goes on from here
    models_dir/NAME/.pulled.json         what pull wrote: for a quick check, and for remove
    models_dir/.locks/NAME               held while a pull or a remove is at work

Nothing here talks to the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import msgspec
from huggingface_hub.utils import WeakFileLock

from axion_llm import files
from axion_llm.config import Settings
from axion_llm.errors import DownloadError
from axion_llm.models.hub import RemoteFile
from axion_llm.models.spec import ModelSpec

_LOCK_POLL_SECONDS = 0.5


class Pulled(msgspec.Struct, frozen=True):
    """What is known of a file that pull wrote."""

    size_bytes: int
    sha256: str
    repo: str
    revision: str
    commit: str


class Place:
    """The folder of one model that comes from a hub. Methods raise OSError as the disk does."""

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        self.spec = spec
        self.folder = settings.models_dir / spec.name
        self._models_dir = settings.models_dir
        self._lock = settings.models_dir / ".locks" / quote(spec.name, safe="")
        self._partials = self.folder / ".partial"
        self._record = self.folder / ".pulled.json"

    @contextmanager
    def locked(self, while_waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the model's lock; `while_waiting` is called now and then as long as another process has it."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(WeakFileLock(self._lock, timeout=_LOCK_POLL_SECONDS))
                    break
                except TimeoutError:
                    while_waiting()
            yield

    # ---- what is there

    def missing(self) -> list[str]:
        """The files to fetch. Judged by size and record; nothing is read."""
        pulled = self._pulled()
        files = [self.spec.file, *([self.spec.mmproj] if self.spec.mmproj else [])]
        return [name for name in files if not self._is_here(name, pulled.get(name))]

    def size_so_far(self, remote: RemoteFile) -> int:
        """Bytes of a file that need not come any more."""
        if remote.name not in self.missing():
            return remote.size_bytes
        with suppress(FileNotFoundError):
            return self._partial(remote).stat().st_size
        return 0

    def _is_here(self, name: str, pulled: Pulled | None) -> bool:
        spec, path = self.spec, self.folder / name
        if not path.is_file():
            return False
        size = path.stat().st_size
        fits = name != spec.file or spec.size_bytes in (None, size)
        if pulled is None:
            if not fits:
                raise DownloadError(
                    f"{spec.name}: {path} has {size:,} bytes, models.toml says {spec.size_bytes:,}, and pull "
                    "did not put it there. Move it away, or correct size_bytes."
                )
            return True
        is_whole = size == pulled.size_bytes
        is_same = (pulled.repo, pulled.revision) == (spec.source.repo, spec.source.revision)
        return fits and is_whole and is_same and (name != spec.file or spec.sha256 in (None, pulled.sha256))

    # ---- bringing a file in

    def partial(self, remote: RemoteFile) -> Path:
        """The file to download to. Its name has the content's tag, so pieces of two versions never mix."""
        path = self._partial(remote)
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in path.parent.iterdir():
            if other != path and other.name.rpartition(".")[0] == path.name.rpartition(".")[0]:
                other.unlink()
        return path

    def accept(self, remote: RemoteFile, partial: Path, sha256: str) -> None:
        """Give a whole and checked file its name. Recorded first: without a record it would not be ours."""
        source, final = self.spec.source, self.folder / remote.name
        pulled = Pulled(remote.size_bytes, sha256, str(source.repo), source.revision, remote.commit)
        self._write_record({**self._pulled(), remote.name: pulled})
        final.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(final)
        files.sync(final.parent)
        with suppress(OSError):  # not empty: the other file's piece
            self._partials.rmdir()

    def _partial(self, remote: RemoteFile) -> Path:
        tag = "".join(filter(str.isalnum, remote.etag))[:16]
        return self._partials / f"{quote(remote.name, safe='')}.{tag}"

    # ---- taking it away

    def pulled_files(self) -> list[Path]:
        """What pull wrote and is still there: whole files, and pieces of files."""
        names = [name for name in self._pulled() if not {"..", "/"} & set(Path(name).parts)]
        whole = [self.folder / name for name in names if (self.folder / name).is_file()]
        return whole + sorted(self._partials.glob("*"))

    def remove(self) -> list[Path]:
        """Delete what pull wrote, and the folders that are empty then. Returns the files."""
        files = self.pulled_files()
        for path in [*files, self._record]:
            path.unlink(missing_ok=True)
            self._remove_empty_folders(path.parent)
        return files

    def _remove_empty_folders(self, folder: Path) -> None:
        """From `folder` upwards, short of models_dir (a name with a slash has a folder above its own)."""
        while folder != self._models_dir and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent

    # ---- the record

    def _pulled(self) -> dict[str, Pulled]:
        """By file name; a record that cannot be read is none."""
        try:
            return msgspec.json.decode(self._record.read_bytes(), type=dict[str, Pulled])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}

    def _write_record(self, pulled: dict[str, Pulled]) -> None:
        files.replace(self._record, msgspec.json.format(msgspec.json.encode(pulled)))
