"""SAM2's released checkpoints: which there are, where they lie, and fetching one when asked to.

Nothing is fetched but by `download`. What was fetched before an interruption is kept and continued;
a file appears under its own name only whole and with the right checksum.

Addresses: facebookresearch/sam2, ``checkpoints/download_ckpts.sh``. Meta publishes neither sizes
nor checksums beside the files. Those here are what programs that pin these addresses (micro-sam, an
extension of 3D Slicer and others) give independently of each other, at least two for each file;
they have not been measured on a download of our own.
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
_SPARE_BYTES = 64 * 2**20  # a disk filled to the last byte breaks other programs
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/072824"
_SAM2_1 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824"


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A file that someone else publishes.

    Parameters
    ----------
    name
        What a person types.
    url
        Its last part is the name of the file.
    size_bytes, sha256
        Of the whole file; the checksum as lower-case hexadecimal digits.
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
"""By name: SAM2's version, and a size's name in `models.nn.encoders.hiera.HIERA_SIZES`."""


def find(name: str) -> RemoteCheckpoint:
    """The checkpoint of that name or file name; an unknown one is refused with the nearest."""
    for checkpoint in SAM2_CHECKPOINTS.values():
        if name in (checkpoint.name, checkpoint.file_name):
            return checkpoint
    near = difflib.get_close_matches(name, SAM2_CHECKPOINTS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise CheckpointError(
        f"no checkpoint {name!r} is known; {hint}There are {', '.join(SAM2_CHECKPOINTS)}"
    )


def checkpoint_folder() -> Path:
    """Where downloads go: `FOLDER_VARIABLE` where it is set, else the user's cache folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("napari-coseg", appauthor=False) / "checkpoints"


def place_of(checkpoint: RemoteCheckpoint, folder: Path | None = None) -> Path:
    """Where the file lies once it is there; `folder` instead of `checkpoint_folder()`."""
    return (folder or checkpoint_folder()) / checkpoint.file_name


def downloaded(checkpoint: RemoteCheckpoint, folder: Path | None = None) -> Path | None:
    """The file in its place, checked; None where there is none.

    Raises
    ------
    CheckpointError
        If a file of that name is there, but is not the released one.
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
    """Fetch a checkpoint, or go on where an earlier try stopped; its place.

    Parameters
    ----------
    progress
        Called with the part done (0 to 1) and a message; the first says the size, which the
        server's headers have confirmed by then, and no byte of the body is read yet.
    should_cancel
        Asked before each block of 256 KiB. What was fetched so far stays, to be continued.
    timeout_s
        Longest silence of the server, in seconds.

    Raises
    ------
    CheckpointError
        If the server cannot be reached or offers something else, the connection breaks, the
        checksum is wrong, or the folder is full or cannot be written. It tells how to put the file
        there by hand.
    Cancelled
        If `should_cancel` said so.
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
                return there  # another process fetched it meanwhile
            _Fetch(checkpoint, partial, tell, stop, timeout_s).run()
            tell(1.0, "checking the checksum")
            flaw = _flaw(partial, checkpoint)
            if flaw:
                partial.unlink()
                _fail(checkpoint, target, f"what came is not the released file: {flaw}")
            os.replace(partial, target)
    except OSError as error:
        _fail(checkpoint, target, f"{target.parent} cannot be written ({error.strerror or error})")
    return target


class _Fetch:
    """One try at making `partial` as long as the file is."""

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
        begun = self.partial.stat().st_size if self.partial.exists() else 0
        if begun > size:
            self.partial.unlink()
            begun = 0
        if begun < size:
            self._check_space(size - begun)
            self._continue(begun)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.partial.parent).free
        if free < needed + _SPARE_BYTES:
            self._fail(
                f"{self.partial.parent} has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB "
                f"more are needed; make room, or name another folder in {FOLDER_VARIABLE}"
            )

    def _check_length(self, told: str | None, begun: int) -> None:
        expected = self.checkpoint.size_bytes - begun
        if told is None or not told.isdecimal() or int(told) != expected:
            self._fail(
                f"the server offers {f'{told} bytes' if told else 'something of unknown size'}, "
                f"where {expected} bytes were expected; is it the page of a proxy?"
            )

    def _continue(self, begun: int) -> None:
        headers = {"Range": f"bytes={begun}-"} if begun else {}
        with self._open(headers) as response:
            if response.status != http.client.PARTIAL_CONTENT:
                begun = 0  # the server begins anew, and so do we
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {begun}-"):
                self._fail("the server goes on at another place than where it was asked to")
            self._check_length(response.headers.get("Content-Length"), begun)
            self.tell(begun / self.checkpoint.size_bytes, self._amount(begun))
            with self.partial.open("ab" if begun else "wb") as file:
                done = begun
                while block := self._block(response):
                    file.write(block)
                    done += len(block)
                    self.tell(done / self.checkpoint.size_bytes, self._amount(done))
        if done < self.checkpoint.size_bytes:
            self._fail(f"the connection ended at {self._amount(done)}; run it again to go on there")

    def _block(self, response: http.client.HTTPResponse) -> bytes:
        if self.stop():
            raise Cancelled(
                f"download of {self.checkpoint.file_name} stopped; {self.partial} keeps what came, "
                f"and another try goes on there"
            )
        try:
            return response.read(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            self._fail(f"the connection broke ({error}); run it again to go on where it stopped")

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
        f"{checkpoint.file_name} was not downloaded: {reason}. To do it by hand, fetch "
        f"{checkpoint.url} ({checkpoint.size_mb:,.0f} MB) and save it as {target}, or anywhere and "
        f"give its path"
    )


def _flaw(path: Path, checkpoint: RemoteCheckpoint) -> str:
    """What is wrong with a file, or nothing."""
    size = path.stat().st_size
    if size != checkpoint.size_bytes:
        return f"it has {size:,} bytes and should have {checkpoint.size_bytes:,}"
    found = file_sha256(path)
    if found != checkpoint.sha256:
        return f"its SHA-256 is {found} and should be {checkpoint.sha256}"
    return ""


def _alone(lock: Path, tell: Progress, stop: ShouldCancel) -> AbstractContextManager[bool]:
    """One process at a time; `torchrun` starts several that want the same file."""

    def waiting() -> None:
        tell(0.0, "another program is downloading it")
        if stop():
            raise Cancelled("stopped waiting for another program's download")

    return held(lock, 0.5, waiting, needed=True)
