"""How much memory the chunks of a Zarr array (version 2) take unpacked, looked at beforehand.

What unpacks a chunk takes as much memory as the chunk asks for: a few kilobytes of zeros that were
packed ask for gigabytes. Here the sizes that a chunk's header tells are compared with the size that
a chunk of the array has; a stream that tells none (zlib, gzip) is unpacked piece by piece.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from napari_coseg.core.errors import ImageError

_PIECE = 2**20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_NO_STATEMENT = -1
_CHUNK = re.compile(r"\d+(\.\d+)*")
"""Name of a chunk's file; where its numbers are folders, of the last one."""


def check_chunks(folder: Path, codec: str | None, expected: int) -> None:
    """See that no chunk unpacks to more than a chunk's bytes.

    Parameters
    ----------
    folder
        Of the array; the file of every chunk below it is looked at.
    codec
        One of "blosc", "zlib", "gzip", "zstd", "lz4"; None for chunks that are stored as they are.
    expected
        Bytes of a chunk of the array.

    Raises
    ------
    ImageError
        Naming the first chunk that would take more, or that does not say.
    OSError
        Where a file cannot be read.
    """
    for file in _chunks(folder):
        size = file.stat().st_size
        size_stated = size if codec is None else _unpacked(file, codec, expected)
        if size_stated == _NO_STATEMENT:
            raise ImageError(
                f"{file} does not say how much it unpacks to; write it with blosc, zlib or gzip"
            )
        if size_stated > expected or size > 2 * expected + 4096:
            raise ImageError(
                f"{file} cannot be read: it unpacks to more than the {expected:,} bytes that a "
                "chunk of this array has; it is damaged, or was made to fill the memory"
            )


def _chunks(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ImageError(f"{path} is a link or no plain file; put the file itself there")
        yield from (Path(parent, name) for name in files if _CHUNK.fullmatch(name))


def _unpacked(file: Path, codec: str, enough: int) -> int:
    """Bytes, as far as stated or counted: counting ends above `enough`."""
    with file.open("rb") as opened:
        if codec == "zlib":
            return _zlib(opened, enough)
        if codec == "gzip":
            return _gzip(opened, enough)
        header = opened.read(18)
    if codec == "blosc":
        return int.from_bytes(header[4:8], "little")
    if codec == "lz4":
        return int.from_bytes(header[:4], "little")
    return _zstd(header)


def _zlib(opened: BinaryIO, enough: int) -> int:
    stream, total = zlib.decompressobj(), 0
    while total <= enough and not stream.eof:
        packed = stream.unconsumed_tail or opened.read(_PIECE)
        if not packed:
            break
        try:
            total += len(stream.decompress(packed, _PIECE))
        except zlib.error:
            break  # what unpacks it next tells that it is damaged
    return total


def _gzip(opened: BinaryIO, enough: int) -> int:
    total = 0
    with gzip.GzipFile(fileobj=opened) as stream:
        while total <= enough:
            try:
                piece = stream.read(_PIECE)
            except (OSError, EOFError, zlib.error):
                break  # as above
            if not piece:
                break
            total += len(piece)
    return total


def _zstd(header: bytes) -> int:
    """The content size in the header of a frame (RFC 8878, section 3.1.1.1)."""
    if len(header) < 5 or not header.startswith(_ZSTD_MAGIC):
        return _NO_STATEMENT
    descriptor = header[4]
    is_one_segment = bool(descriptor & 0b0010_0000)
    length = (1 if is_one_segment else 0, 2, 4, 8)[descriptor >> 6]
    if not length:
        return _NO_STATEMENT
    start = 5 + (not is_one_segment) + (0, 1, 2, 4)[descriptor & 0b11]
    return int.from_bytes(header[start : start + length], "little") + 256 * (length == 2)
