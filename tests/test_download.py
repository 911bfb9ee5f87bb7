"""Downloads of checkpoints, from a server on this machine that misbehaves in every way it can."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_coseg.core.errors import Cancelled, CheckpointError
from napari_coseg.models.checkpoints import download as module
from napari_coseg.models.checkpoints.download import (
    FOLDER_VARIABLE,
    SAM2_CHECKPOINTS,
    RemoteCheckpoint,
    checkpoint_folder,
    download,
    downloaded,
    find,
    place_of,
)
from napari_coseg.models.nn.encoders.hiera import HIERA_SIZES

BODY = bytes(range(256)) * 4096  # 1 MiB
HALF = len(BODY) // 2


@dataclass
class Server:
    """A loopback server of one file; what is set here is how it behaves.

    Parameters
    ----------
    cut_at
        The connection ends after so many bytes of the body.
    ranges, shifted
        Whether Range is heeded, and whether the answer begins a byte too late.
    told_length
        Content-Length, where it is not the true one; None leaves it out.
    asked
        The Range header of each request so far, None where there was none.
    """

    url: str = ""
    body: bytes = BODY
    status: int = 200
    cut_at: int | None = None
    ranges: bool = True
    shifted: bool = False
    told_length: int | None = -1
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    behaviour = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, behaviour)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        behaviour.url = f"http://127.0.0.1:{running.server_port}/models/net.pt"
        yield behaviour
        running.shutdown()
        thread.join()


def answer(request: http.server.BaseHTTPRequestHandler, how: Server) -> None:
    wanted = request.headers.get("Range")
    how.asked.append(wanted)
    if how.status != 200:
        return request.send_error(how.status)
    begun = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and how.ranges else 0
    rest = how.body[begun:]
    request.send_response(206 if begun else 200)
    if begun:
        first = begun + how.shifted
        request.send_header("Content-Range", f"bytes {first}-{len(how.body) - 1}/{len(how.body)}")
    if how.told_length is not None:
        told = len(rest) if how.told_length < 0 else how.told_length
        request.send_header("Content-Length", str(told))
    request.end_headers()
    request.wfile.write(rest if how.cut_at is None else rest[: how.cut_at])


@pytest.fixture
def checkpoint(server: Server) -> RemoteCheckpoint:
    return RemoteCheckpoint("net", server.url, len(BODY), hashlib.sha256(BODY).hexdigest())


def begin(folder: Path, content: bytes) -> Path:
    """What an earlier try left."""
    partial = folder / "net.pt.part"
    partial.write_bytes(content)
    return partial


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# ---------------------------------------------------------------------------------------------
# What goes well


def test_a_whole_file_tells_its_size_first(
    checkpoint: RemoteCheckpoint, tmp_path: Path, server: Server
) -> None:
    told: list[tuple[float, str]] = []
    path = download(checkpoint, tmp_path / "new" / "folder", progress=lambda *t: told.append(t))
    assert path == tmp_path / "new" / "folder" / "net.pt"
    assert path.read_bytes() == BODY
    assert visible(path.parent) == ["net.pt"]
    assert told[0] == (0.0, "0 of 1 MB")
    assert told[-1] == (1.0, "checking the checksum")
    assert [t[0] for t in told] == sorted(t[0] for t in told)
    assert server.asked == [None]


@pytest.mark.parametrize(
    ("begun", "ranges", "asked"),
    [
        (HALF, True, [f"bytes={HALF}-"]),
        (HALF, False, [f"bytes={HALF}-"]),
        (len(BODY) - 1, True, [f"bytes={len(BODY) - 1}-"]),
        (len(BODY), True, []),
        (0, True, [None]),
    ],
    ids=["half", "half, range ignored", "all but one byte", "all, not checked", "empty"],
)
def test_a_partial_file_is_continued(
    begun: int,
    ranges: bool,
    asked: list[str | None],
    checkpoint: RemoteCheckpoint,
    server: Server,
    tmp_path: Path,
) -> None:
    server.ranges = ranges
    begin(tmp_path, BODY[:begun])
    assert download(checkpoint, tmp_path).read_bytes() == BODY
    assert server.asked == asked
    assert visible(tmp_path) == ["net.pt"]


def test_a_partial_file_longer_than_the_whole_is_begun_anew(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    begin(tmp_path, BODY + b"more")
    assert download(checkpoint, tmp_path).read_bytes() == BODY
    assert server.asked == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    server.cut_at = HALF
    with pytest.raises(CheckpointError, match=r"connection .*run it again to continue"):
        download(checkpoint, tmp_path)
    kept = (tmp_path / "net.pt.part").stat().st_size
    assert 0 < kept <= HALF
    server.cut_at = None
    assert download(checkpoint, tmp_path).read_bytes() == BODY
    assert server.asked == [None, f"bytes={kept}-"]


def test_a_cancelled_download_goes_on_where_it_stopped(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    blocks = iter([False, True])
    with pytest.raises(Cancelled, match="the next attempt continues it"):
        download(checkpoint, tmp_path, should_cancel=lambda: next(blocks))
    assert visible(tmp_path) == ["net.pt.part"]
    assert download(checkpoint, tmp_path).read_bytes() == BODY
    assert server.asked[1] == f"bytes={module._BLOCK}-"


def test_what_is_there_is_not_fetched_again(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "net.pt").write_bytes(BODY)
    assert download(checkpoint, tmp_path) == downloaded(checkpoint, tmp_path)
    assert server.asked == []


def test_two_at_once_fetch_once(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    found: list[Path] = []

    def fetch() -> None:
        found.append(download(checkpoint, tmp_path))

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "net.pt"] * 3
    assert server.asked == [None]


# ---------------------------------------------------------------------------------------------
# What goes wrong


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"status": 404}, "the server answers 404 Not Found"),
        ({"status": 503}, "the server answers 503"),
        ({"body": BODY + b"!"}, r"offers 1048577 bytes, where 1048576 bytes were expected"),
        ({"body": b"<html>"}, r"offers 6 bytes.*page of a proxy"),
        ({"told_length": None}, "a file of unknown size"),
        ({"body": BODY[:-1] + b"!"}, r"is not the released file: its SHA-256 is [0-9a-f]{64} and"),
    ],
    ids=["404", "503", "too large", "too small", "no length", "wrong checksum"],
)
def test_a_wrong_answer_leaves_nothing_and_says_how_to_do_it_by_hand(
    behaviour: dict[str, object],
    message: str,
    checkpoint: RemoteCheckpoint,
    server: Server,
    tmp_path: Path,
) -> None:
    vars(server).update(behaviour)
    with pytest.raises(CheckpointError, match=message) as caught:
        download(checkpoint, tmp_path)
    by_hand = f"download {server.url} (1 MB) and save it as {tmp_path / 'net.pt'}, or anywhere"
    assert by_hand in str(caught.value)
    assert visible(tmp_path) == []


def test_the_end_of_another_file_is_told_by_the_checksum(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    begin(tmp_path, b"?" * HALF)
    with pytest.raises(CheckpointError, match="SHA-256"):
        download(checkpoint, tmp_path)
    assert visible(tmp_path) == []  # or every further try would fail as well
    assert download(checkpoint, tmp_path).read_bytes() == BODY


def test_a_server_that_goes_on_elsewhere_is_refused(
    checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    server.shifted = True
    partial = begin(tmp_path, BODY[:HALF])
    with pytest.raises(CheckpointError, match="continued at another offset"):
        download(checkpoint, tmp_path)
    assert partial.read_bytes() == BODY[:HALF]


def test_offline_names_the_file_its_address_and_its_place(
    checkpoint: RemoteCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]  # free again, so nobody answers there
    url = f"http://127.0.0.1:{port}/net.pt"
    partial = begin(tmp_path, BODY[:HALF])
    with pytest.raises(CheckpointError, match="no connection to its server") as caught:
        download(replace(checkpoint, url=url), tmp_path)
    assert f"download {url} (1 MB) and save it as {tmp_path / 'net.pt'}" in str(caught.value)
    assert partial.read_bytes() == BODY[:HALF]


def test_a_silent_server_is_given_up(checkpoint: RemoteCheckpoint, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net.pt"
        with pytest.raises(CheckpointError, match="timed out"):
            download(replace(checkpoint, url=url), tmp_path, timeout_s=0.1)


def test_a_full_disk_is_told_before_anything_is_asked(
    checkpoint: RemoteCheckpoint,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=len(BODY)))
    with pytest.raises(
        CheckpointError, match=rf"has 1 MB free.*another folder in {FOLDER_VARIABLE}"
    ):
        download(checkpoint, tmp_path)
    assert server.asked == []


def in_the_way(folder: Path) -> None:
    folder.write_text("a file")


def read_only(folder: Path) -> None:
    if sys.platform == "win32" or os.geteuid() == 0:
        pytest.skip("whoever runs this may write everywhere")
    folder.mkdir()
    folder.chmod(0o500)


@pytest.mark.parametrize("spoil", [in_the_way, read_only])
def test_a_folder_that_cannot_be_written(
    spoil, checkpoint: RemoteCheckpoint, server: Server, tmp_path: Path
) -> None:
    spoil(tmp_path / "cache")
    with pytest.raises(CheckpointError, match=r"cache cannot be written \(.*manually"):
        download(checkpoint, tmp_path / "cache")
    assert server.asked == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"mine", "has 4 bytes and should have"), (BODY[::-1], "its SHA-256 is")],
    ids=["another size", "another content"],
)
def test_another_file_of_that_name_is_neither_used_nor_overwritten(
    content: bytes,
    message: str,
    checkpoint: RemoteCheckpoint,
    server: Server,
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{message}.*move it away"):
        download(checkpoint, tmp_path)
    assert path.read_bytes() == content
    assert server.asked == []


# ---------------------------------------------------------------------------------------------
# Names and places


@pytest.mark.parametrize("version", ["sam2", "sam2.1"])
@pytest.mark.parametrize("size", ["tiny", "small", "base-plus", "large"])
def test_every_released_checkpoint_is_known(version: str, size: str) -> None:
    checkpoint = find(f"{version}-{size}")
    assert size in HIERA_SIZES
    assert checkpoint.file_name == f"{version}_hiera_{size.replace('-', '_')}.pt"
    assert find(checkpoint.file_name) is checkpoint
    assert checkpoint.url.startswith("https://dl.fbaipublicfiles.com/segment_anything_2/")


def test_no_two_checkpoints_share_a_checksum() -> None:
    sums = {checkpoint.sha256 for checkpoint in SAM2_CHECKPOINTS.values()}
    assert len(sums) == len(SAM2_CHECKPOINTS) == 8
    assert all(len(bytes.fromhex(total)) == 32 for total in sums)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match=r"'sam2.1-larg' is known; did you mean 'sam2.1-la"):
        find("sam2.1-larg")


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    assert checkpoint_folder().parts[-2:] == ("napari-coseg", "checkpoints")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    assert place_of(find("sam2-tiny")) == tmp_path / "mine" / "sam2_hiera_tiny.pt"
    assert downloaded(find("sam2-tiny")) is None
