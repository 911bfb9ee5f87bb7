"""List, locate and download SAM2's released checkpoints.

Only `download` uses the network. Interrupted downloads are resumed; a file gets its name only when
it is complete and its checksum is right.

Addresses: facebookresearch/sam2, ``checkpoints/download_ckpts.sh``. Meta publishes neither sizes
nor checksums. Those here are given by programs that pin these addresses (micro-sam, an extension of
3D Slicer and others), at least two independent ones per file; they were not verified on a download.
"""

from __future__ import annotations

import difflib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from napari_coseg.core.errors import Cancelled, CheckpointError
from napari_coseg.core.locks import held
from napari_coseg.models.checkpoints.native import file_sha256

FOLDER_VARIABLE = "NAPARI_COSEG_CACHE"
"""Environment variable that names the folder of downloaded checkpoints."""

Progress = Callable[[float, str], None]
ShouldCancel = Callable[[], bool]

_BLOCK = 2**18
_SPARE_BYTES = 64 * 2**20  # a full disk breaks other programs
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/072824"
_SAM2_1 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A published file.

    Parameters
    ----------
    name
        Name for users.
    url
        Ends with the file name.
    size_bytes, sha256
        Of the whole file; lower-case hexadecimal checksum.
    """

    name: str
    url: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def size_mb(self) -> float:
        return self.size_bytes / 1e6


_RELEASED = (
    RemoteCheckpoint(
        "sam2.1-tiny",
        f"{_SAM2_1}/sam2.1_hiera_tiny.pt",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    RemoteCheckpoint(
        "sam2.1-small",
        f"{_SAM2_1}/sam2.1_hiera_small.pt",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    RemoteCheckpoint(
        "sam2.1-base-plus",
        f"{_SAM2_1}/sam2.1_hiera_base_plus.pt",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    RemoteCheckpoint(
        "sam2.1-large",
        f"{_SAM2_1}/sam2.1_hiera_large.pt",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
    RemoteCheckpoint(
        "sam2-tiny",
        f"{_SAM2}/sam2_hiera_tiny.pt",
        155_906_050,
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
    ),
    RemoteCheckpoint(
        "sam2-small",
        f"{_SAM2}/sam2_hiera_small.pt",
        184_309_650,
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    ),
    RemoteCheckpoint(
        "sam2-base-plus",
        f"{_SAM2}/sam2_hiera_base_plus.pt",
        323_493_298,
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    ),
    RemoteCheckpoint(
        "sam2-large",
        f"{_SAM2}/sam2_hiera_large.pt",
        897_952_466,
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
    ),
)
SAM2_CHECKPOINTS: dict[str, RemoteCheckpoint] = {entry.name: entry for entry in _RELEASED}
"""By name: SAM2 version and a size of `models.nn.encoders.hiera.HIERA_SIZES`."""


def find(name: str) -> RemoteCheckpoint:
    """Find a checkpoint by name or file name; the error suggests similar names."""
    for checkpoint in SAM2_CHECKPOINTS.values():
        if name in (checkpoint.name, checkpoint.file_name):
            return checkpoint
    near = difflib.get_close_matches(name, SAM2_CHECKPOINTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise CheckpointError(
        f"no checkpoint {name!r} is known; {hint}There are {', '.join(SAM2_CHECKPOINTS)}"
    )


def checkpoint_folder() -> Path:
    """Folder of downloads: `FOLDER_VARIABLE` if set, else the user's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("napari-coseg", appauthor=False) / "checkpoints"


def place_of(checkpoint: RemoteCheckpoint, folder: Path | None = None) -> Path:
    """Path of the downloaded file, in `folder` or `checkpoint_folder()`."""
    return (folder or checkpoint_folder()) / checkpoint.file_name


def downloaded(checkpoint: RemoteCheckpoint, folder: Path | None = None) -> Path | None:
    """Path of the verified file; None if it was not downloaded.

    Raises
    ------
    CheckpointError
        If the file exists but is not the released one.
    """
    path = place_of(checkpoint, folder)
    if not path.exists():
        return None
    flaw = _flaw(path, checkpoint)
    if flaw:
        raise CheckpointError(
            f"{path} is not the released {checkpoint.file_name}: {flaw}; move it away, then run "
            f"`napari-coseg models download {checkpoint.name}`"
        )
    return path


def download(
    checkpoint: RemoteCheckpoint,
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
    should_cancel: ShouldCancel | None = None,
    timeout_s: float = 30.0,
) -> Path:
    """Download a checkpoint, resuming an earlier attempt; returns its path.

    Parameters
    ----------
    progress
        Called with the fraction done (0 to 1) and a message; the first gives the size, confirmed
        by the server's headers, before the body is read.
    should_cancel
        Called before each block of 256 KiB. The partial download is kept and resumed later.
    timeout_s
        Network timeout in seconds.

    Raises
    ------
    CheckpointError
        If the server cannot be reached or offers another file, the connection breaks, the checksum
        is wrong, or the folder is full or not writable. It explains the manual download.
    Cancelled
        If `should_cancel` returned True.
    """
    tell = progress or (lambda fraction, message: None)
    stop = should_cancel or (lambda: False)
    target = place_of(checkpoint, folder)
    partial = target.with_name(f"{target.name}.part")
    try:
        if (there := downloaded(checkpoint, folder)) is not None:
            return there
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_name(f".{target.name}.lock"), tell, stop):
            if (there := downloaded(checkpoint, folder)) is not None:
                return there  # another process downloaded it meanwhile
            _Fetch(checkpoint, partial, tell, stop, timeout_s).run()
            tell(1.0, "checking the checksum")
            flaw = _flaw(partial, checkpoint)
            if flaw:
                partial.unlink()
                _fail(checkpoint, target, f"the download is not the released file: {flaw}")
            os.replace(partial, target)
    except OSError as error:
        _fail(checkpoint, target, f"{target.parent} cannot be written ({error.strerror or error})")
    return target


class _Fetch:
    """Make one attempt to complete `partial`."""

    def __init__(
        self,
        checkpoint: RemoteCheckpoint,
        partial: Path,
        tell: Progress,
        stop: ShouldCancel,
        timeout_s: float,
    ) -> None:
        self.checkpoint, self.partial = checkpoint, partial
        self.tell, self.stop, self.timeout_s = tell, stop, timeout_s

    def run(self) -> None:
        size = self.checkpoint.size_bytes
        offset = self.partial.stat().st_size if self.partial.exists() else 0
        if offset > size:
            self.partial.unlink()
            offset = 0
        if offset < size:
            self._check_space(size - offset)
            self._continue(offset)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.partial.parent).free
        if free < needed + _SPARE_BYTES:
            self._fail(
                f"{self.partial.parent} has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB "
                f"more are needed; free some space, or set another folder in {FOLDER_VARIABLE}"
            )

    def _check_length(self, length: str | None, offset: int) -> None:
        expected = self.checkpoint.size_bytes - offset
        if length is None or not length.isdecimal() or int(length) != expected:
            self._fail(
                f"the server offers {f'{length} bytes' if length else 'a file of unknown size'}, "
                f"where {expected} bytes were expected; is it the page of a proxy?"
            )

    def _continue(self, offset: int) -> None:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._open(headers) as response:
            if response.status != http.client.PARTIAL_CONTENT:
                offset = 0  # the server starts over
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                self._fail("the server continued at another offset than requested")
            self._check_length(response.headers.get("Content-Length"), offset)
            self.tell(offset / self.checkpoint.size_bytes, self._amount(offset))
            with self.partial.open("ab" if offset else "wb") as file:
                done = offset
                while block := self._block(response):
                    file.write(block)
                    done += len(block)
                    self.tell(done / self.checkpoint.size_bytes, self._amount(done))
        if done < self.checkpoint.size_bytes:
            self._fail(f"the connection ended at {self._amount(done)}; run it again to continue")

    def _block(self, response: http.client.HTTPResponse) -> bytes:
        if self.stop():
            raise Cancelled(
                f"download of {self.checkpoint.file_name} stopped; {self.partial} is kept, and "
                f"the next attempt continues it"
            )
        try:
            return response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            self._fail(f"the connection broke ({error}); run it again to continue")

    @contextmanager
    def _open(self, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        request = urllib.request.Request(self.checkpoint.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            self._fail(f"the server answers {error.code} {error.reason}")
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            self._fail(f"no connection to its server ({reason})")
        with response:
            yield response

    def _amount(self, done: int) -> str:
        return f"{done / 1e6:,.0f} of {self.checkpoint.size_mb:,.0f} MB"

    def _fail(self, reason: str) -> NoReturn:
        _fail(self.checkpoint, self.partial.with_name(self.checkpoint.file_name), reason)


def _fail(checkpoint: RemoteCheckpoint, target: Path, reason: str) -> NoReturn:
    raise CheckpointError(
        f"{checkpoint.file_name} was not downloaded: {reason}. To do it manually, download "
        f"{checkpoint.url} ({checkpoint.size_mb:,.0f} MB) and save it as {target}, or anywhere and "
        f"give its path"
    )


def _flaw(path: Path, checkpoint: RemoteCheckpoint) -> str:
    """Describe what is wrong with a file; empty if valid."""
    size = path.stat().st_size
    if size != checkpoint.size_bytes:
        return f"it has {size:,} bytes and should have {checkpoint.size_bytes:,}"
    found = file_sha256(path)
    if found != checkpoint.sha256:
        return f"its SHA-256 is {found} and should be {checkpoint.sha256}"
    return ""


def _alone(lock: Path, tell: Progress, stop: ShouldCancel) -> AbstractContextManager[bool]:
    """Lock against other processes; `torchrun` starts several that need the same file."""

    def waiting() -> None:
        tell(0.0, "another program is downloading it")
        if stop():
            raise Cancelled("stopped waiting for another program's download")

    return held(lock, 0.5, waiting, needed=True)
