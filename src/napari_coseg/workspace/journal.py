"""The journal: records, each framed with its length and a digest, at the end of a file.

A record that was half written when the power failed, or the process was killed, is the last one and
incomplete; it is left out with a note. A broken record that others follow is damage: reading stops
there with an error.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.files import sync
from napari_coseg.workspace.files import checked_size, refusals
from napari_coseg.workspace.records import (
    FRAME,
    MARK,
    Record,
    header_checksum,
    pack,
    unpack,
)

START = b"napari-coseg journal 1\n"
LARGEST_JOURNAL = 2**40
_SEARCHED_AT_ONCE = 2**22


class DamagedJournal(WorkspaceError):
    """A record in the middle of a journal is broken; what comes before it is whole."""


class JournalFile:
    """The end of one file of the journal, for one writer.

    Raises
    ------
    OSError
        From every method, where the disk refuses; then the file is cut back to what was whole, at
        once or before the next record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = path.open("xb", buffering=0)
        self.size = 0
        try:
            self._write(START)
            sync(path.parent)
        except OSError:
            self.close()
            with suppress(OSError):
                path.unlink()
            raise

    def append_packed(self, data: bytes) -> None:
        """Write `framed` records and wait until they are on the disk: all of them, or none."""
        self._write(data)

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _write(self, data: bytes) -> None:
        file = self._file
        if file is None:
            raise ValueError("the journal's file is closed")
        try:
            file.seek(self.size)
            file.truncate()  # what a failure before has left
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(self.size)
            raise
        self.size += len(data)


def framed(record: Record) -> bytes:
    """A record as it stands in the file."""
    packed, size = pack(record)
    digest = hashlib.blake2b(packed, digest_size=16).digest()
    return FRAME.pack(MARK, len(packed), size, header_checksum(len(packed), size), digest) + packed


def read_journal(path: Path, dropped: Callable[[str], None]) -> Iterator[Record]:
    """The records of one file, one after another.

    Parameters
    ----------
    dropped
        A note where a half-written last record was left out.

    Raises
    ------
    DamagedJournal
        At a broken record that others follow.
    WorkspaceError
        Where it is no journal.
    """
    end = checked_size(path, LARGEST_JOURNAL, "a journal")
    with refusals(path, "read"), path.open("rb") as file:
        start = file.read(len(START))
        if start != START:
            if START.startswith(start):
                dropped(f"{path.name} had only been started; it held nothing")
                return
            raise WorkspaceError(f"{path} is no journal of napari-coseg; it is damaged")
        at, number = len(START), 0
        while at < end:
            try:
                found = _record_at(file, at, end)
            except WorkspaceError as error:
                raise DamagedJournal(f"{path} is damaged at byte {at:,}: {error}") from error
            if found is None:
                if _another_after(file, at + 1, end):
                    raise DamagedJournal(
                        f"{path} is damaged: its record {number + 1}, at byte {at:,}, is broken "
                        f"though others follow. The {number} before it are whole"
                    )
                dropped(f"the last change in {path.name} was half written and is left out")
                return
            record, at = found
            number += 1
            yield record


def _record_at(file: IO[bytes], at: int, end: int) -> tuple[Record, int] | None:
    """The record that starts there and where it ends; None where it is not whole."""
    file.seek(at)
    header = file.read(FRAME.size)
    if len(header) < FRAME.size:
        return None
    mark, packed, size, checksum, digest = FRAME.unpack(header)
    ends = at + FRAME.size + packed
    if mark != MARK or checksum != header_checksum(packed, size) or ends > end:
        return None
    data = file.read(packed)
    if hashlib.blake2b(data, digest_size=16).digest() != digest:
        return None
    return unpack(data, size), ends


def _another_after(file: IO[bytes], at: int, end: int) -> bool:
    """Whether a header stands anywhere behind a broken record."""
    while at < end:
        file.seek(at)
        data = file.read(_SEARCHED_AT_ONCE + FRAME.size)
        place = data.find(MARK)
        while place >= 0:
            header = data[place : place + FRAME.size]
            if len(header) == FRAME.size:
                _, packed, size, checksum, _ = FRAME.unpack(header)
                if checksum == header_checksum(packed, size):
                    return True
            place = data.find(MARK, place + 1)
        at += _SEARCHED_AT_ONCE
    return False
