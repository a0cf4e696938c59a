"""Talks to the model hub: what a file is, and its bytes. Every failure is a DownloadError with a next step.

huggingface_hub does the talking (address, token, redirects, retries). Its hf_hub_download is not used: it
begins anew after an interrupted process, and a model of some gigabytes must not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from axion_llm.errors import DownloadError
from axion_llm.models.spec import ModelSpec

_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub repository as it is now; `url` names the commit, so it cannot change on the way."""

    name: str
    url: str
    commit: str
    etag: str
    size_bytes: int

    @property
    def sha256(self) -> str | None:
        """The hub tags a large file with its SHA-256, a small one with a git hash."""
        return self.etag if re.fullmatch(r"[0-9a-f]{64}", self.etag) else None


def ask(spec: ModelSpec, name: str) -> RemoteFile:
    """What the hub says of one file of the model; raises DownloadError."""
    repo = spec.source.repo
    assert repo is not None
    with _explained(spec, name):
        found = get_hf_file_metadata(hf_hub_url(repo, name, revision=spec.source.revision))
    if found.commit_hash is None or found.etag is None or found.size is None:
        raise DownloadError(
            f"{spec.name}: {constants.ENDPOINT} answers, but not as a model hub does. Check HF_ENDPOINT, and "
            "whether a proxy or a log-in page stands between."
        )
    url = hf_hub_url(repo, name, revision=found.commit_hash)
    return RemoteFile(name, url, found.commit_hash, found.etag, found.size)


def download(spec: ModelSpec, remote: RemoteFile, file: BinaryIO, report: Callable[[int], None]) -> None:
    """Append to `file` what is missing of `remote`; `report` gets the bytes that are there.

    Short breaks are bridged by retries. Raises DownloadError or, from the disk, OSError; what came is kept.
    """
    with _explained(spec, remote.name), _smooth_progress():
        http_get(
            remote.url,
            file,
            resume_size=file.tell(),
            expected_size=remote.size_bytes,
            headers={**build_hf_headers(), "Accept-Encoding": "identity"},  # else a range may be refused
            displayed_filename=remote.name,
            tqdm_class=functools.partial(_Bar, report),
        )


class _Bar:
    """What huggingface_hub takes for a progress bar."""

    def __init__(self, report: Callable[[int], None], *, initial: int = 0, **_: Any) -> None:
        self.report, self.done = report, initial

    def update(self, num_bytes: int) -> None:
        self.done += num_bytes
        self.report(self.done)

    def __enter__(self) -> _Bar:
        self.report(self.done)
        return self

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def _smooth_progress() -> Iterator[None]:
    """Smaller pieces than the library's 10 MB: a slow line shows progress too, and a break costs less."""
    before = constants.DOWNLOAD_CHUNK_SIZE
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    try:
        yield
    finally:
        constants.DOWNLOAD_CHUNK_SIZE = before


@contextmanager
def _explained(spec: ModelSpec, file: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        raise DownloadError(f"{spec.name}: {_refusal(spec, file, error)}") from error
    except OfflineModeIsEnabled as error:
        raise DownloadError(f"{spec.name}: HF_HUB_OFFLINE is set. Unset it to download.") from error
    except (HTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's, not the line's
        raise DownloadError(
            f"{spec.name}: the connection to {constants.ENDPOINT} failed ({type(error).__name__}: {error}). "
            "Check the network (and HTTPS_PROXY, HF_ENDPOINT) and pull again; what has come is kept."
        ) from error


def _refusal(spec: ModelSpec, file: str, error: HfHubHTTPError) -> str:
    """The hub answered, but not with the file."""
    repo, status = spec.source.repo, error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {spec.source.revision}. Correct it in models.toml."
    if isinstance(error, EntryNotFoundError):
        return (
            f"{repo} has no file {file} at revision {spec.source.revision}. Look what there is at "
            f"{_page(spec)}/tree/{spec.source.revision} and correct the name in models.toml."
        )
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return (
            f"there is no repository {repo} at {constants.ENDPOINT}, or it is private (HTTP {status}). "
            "Correct the name in models.toml, or set HF_TOKEN to a token that may read it."
        )
    if status in (401, 403):
        return (
            f"access to {repo} is refused (HTTP {status}): it is gated, or the token is not valid. Accept "
            f"the licence at {_page(spec)}, then set HF_TOKEN to a token of that account."
        )
    return f"{constants.ENDPOINT} answered HTTP {status} for {file}. Try again later; what has come is kept."


def _page(spec: ModelSpec) -> str:
    return f"{constants.ENDPOINT}/{spec.source.repo}"
