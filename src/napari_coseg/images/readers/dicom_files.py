"""Find the DICOM images in a folder or zip archive, and the series that they make.

Headers alone are read here, and nothing is unpacked to disk. Files that hold no image are skipped.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.images.volumes import DEFLATE_LIMIT, MAX_VOLUME_BYTES

MAX_FILES = 20_000
"""Most files of a folder or archive that are looked at."""
MAX_FILE_BYTES = MAX_VOLUME_BYTES
HEAD_BYTES = 1024
MARK = b"DICM"
DEFLATED = b"1.2.840.10008.1.2.1.99"
"""Transfer syntax whose header is packed as well; it could unpack to any size."""
PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
TAGS = (
    *("SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality"),
    *("InstanceNumber", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"),
    *("PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SliceThickness", "WindowCenter", "WindowWidth", "PhotometricInterpretation"),
)
SAME_ORIENTATION, SAME_SPACING = 1e-3, 1e-4
BROKEN = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError),
    *(NotImplementedError, RuntimeError, ArithmeticError, MemoryError, RecursionError),
    zipfile.BadZipFile,
)
"""Errors of pydicom, its codecs and zipfile on damaged files."""


class SeriesChoiceError(ImageError):
    """There are several series; `choices` describes them, in the order of their numbers."""

    def __init__(self, message: str, choices: Sequence[str]) -> None:
        super().__init__(message)
        self.choices = tuple(choices)


@dataclass(frozen=True)
class Member:
    """A file of a folder or archive: its name, and a function that opens it."""

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class Slice:
    """What the header of one DICOM image says.

    Parameters
    ----------
    spacing
        Millimetres between rows and between columns.
    position
        LPS of the first pixel, in millimetres.
    orientation
        Direction along a row, then along a column.
    thickness
        Millimetres.
    """

    member: Member
    uid: str
    series: str
    title: str
    number: int
    size: tuple[int, int]
    frames: int
    spacing: tuple[float, ...] | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    thickness: float | None
    window: tuple[float, float] | None
    notes: tuple[str, ...]

    def is_like(self, other: Slice) -> bool:
        """Whether both may be slices of one volume."""
        same = (self.series, self.size, self.frames) == (other.series, other.size, other.frames)
        return (
            same
            and _alike(self.spacing, other.spacing, SAME_SPACING)
            and _alike(self.orientation, other.orientation, SAME_ORIENTATION)
        )


Stack = list[Slice]


def describe(stack: Stack) -> str:
    """One line, to choose by."""
    first = stack[0]
    count = first.frames if first.frames > 1 else len(stack)
    rows, columns = first.size
    return f"{first.title}: {count} images of {columns} x {rows}, {first.series}"


@contextmanager
def members(path: Path) -> Iterator[list[Member]]:
    """The files of a folder (and those in it), of a zip archive, or beside a file."""
    if path.is_dir():
        yield _in_folder(path, path.rglob("*"))
    elif path.name.lower().endswith(".zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                yield _in_archive(path, archive)
        except zipfile.BadZipFile as error:
            raise ImageError(f"{path} cannot be read as a zip archive: {error}") from error
    else:
        yield _in_folder(path.parent, path.parent.iterdir())


def _in_folder(folder: Path, files: Iterator[Path]) -> list[Member]:
    found: list[Member] = []
    for file in files:
        if file.is_file() and not file.name.startswith("."):
            found.append(Member(str(file.relative_to(folder)), partial(_open_file, file)))
            _refuse_many(folder, len(found))
    return sorted(found, key=lambda member: member.name)


def _open_file(file: Path) -> BinaryIO:
    return file.open("rb")


def _in_archive(path: Path, archive: zipfile.ZipFile) -> list[Member]:
    """Members are read in memory under their declared sizes, which are checked here."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _refuse_many(path, len(entries))
    for entry in entries:
        if entry.flag_bits & 1:
            raise ImageError(f"{path} is encrypted; unpack it yourself and name the folder")
        if entry.compress_type not in PACKINGS:
            raise ImageError(f"{path}: {entry.filename!r} is packed in an unknown way")
        if entry.file_size > entry.compress_size * DEFLATE_LIMIT + HEAD_BYTES:
            raise ImageError(f"{path}: {entry.filename!r} claims more than it can hold")
    total = sum(entry.file_size for entry in entries)
    if total > 2 * MAX_VOLUME_BYTES:
        raise ImageError(
            f"{path} holds {total / 2**30:.1f} GiB; at most {MAX_VOLUME_BYTES >> 29} GiB are read"
        )
    ordered = sorted(entries, key=lambda entry: entry.filename)
    return [Member(e.filename, partial(_opened, archive, e)) for e in ordered]


def _opened(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> BinaryIO:
    with archive.open(entry) as stream:
        return BytesIO(stream.read(entry.file_size))


def _refuse_many(path: Path, count: int) -> None:
    if count > MAX_FILES:
        raise ImageError(f"{path} holds more than {MAX_FILES:,} files; name the folder of one scan")


def scan(files: Sequence[Member]) -> list[Slice]:
    """Headers of the DICOM images among the files."""
    found = []
    for member in files:
        try:
            one = read_slice(member)
        except BROKEN as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(
                f"{member.name!r} cannot be read as DICOM: {error!r:.300}; leave it out, or "
                "export the scan again"
            ) from error
        found += [] if one is None else [one]
    return found


def read_slice(member: Member) -> Slice | None:
    """The header of a file; None for files that are not DICOM or hold no image."""
    import pydicom

    with member.open() as file:
        head = file.read(HEAD_BYTES)
        if head[128:132] != MARK:
            return None
        if DEFLATED in head:
            raise ImageError(f"{member.name!r} is a deflated DICOM file, which is not read")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
            return _slice(member, data) if "Rows" in data and "Columns" in data else None


def _slice(member: Member, data: Any) -> Slice:
    if int(data.get("SamplesPerPixel", 1)) != 1:
        raise ImageError(f"{member.name!r} is a DICOM image in colour, which is not read")
    notes = []
    spacing = _numbers(data, "PixelSpacing", 2)
    if spacing is None and (spacing := _numbers(data, "ImagerPixelSpacing", 2)):
        notes.append("the size of a pixel: as at the detector, without magnification")
    if spacing is not None and min(spacing) <= 0:
        raise ImageError(f"{member.name!r} has a pixel spacing of {spacing} mm")
    title = f"{data.get('Modality', 'image')} {str(data.get('SeriesDescription') or '')[:64]!r}"
    thickness = _numbers(data, "SliceThickness", 1)
    return Slice(
        member,
        uid=str(data.get("SOPInstanceUID", member.name)),
        series=str(data.get("SeriesInstanceUID", "")),
        title=f"{title} (number {data.get('SeriesNumber', '?')})",
        number=int(data.get("InstanceNumber") or 0),
        size=(int(data.Rows), int(data.Columns)),
        frames=int(data.get("NumberOfFrames") or 1),
        spacing=spacing,
        position=_numbers(data, "ImagePositionPatient", 3),
        orientation=_numbers(data, "ImageOrientationPatient", 6),
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        window=_window(data),
        notes=tuple(notes),
    )


def _numbers(data: Any, name: str, count: int) -> tuple[float, ...] | None:
    """Finite numbers of an element; None where it is empty or has another count."""
    value = data.get(name)
    if value is None or value == "":
        return None
    found = tuple(float(part) for part in np.atleast_1d(np.asarray(value, float)))
    is_right = len(found) == count and all(map(math.isfinite, found))
    return found if is_right else None


def _window(data: Any) -> tuple[float, float] | None:
    """Ends of the first window (DICOM PS3.3, C.11.2.1.2)."""
    centre, width = data.get("WindowCenter"), data.get("WindowWidth")
    if centre is None or width is None or centre == "" or width == "":
        return None
    c, w = (float(np.atleast_1d(np.asarray(one, float))[0]) for one in (centre, width))
    return (c - w / 2, c + w / 2) if math.isfinite(c + w) and w > 1 else None


def stacks_of(slices: Sequence[Slice]) -> list[Stack]:
    """Slices that may be one volume each: of one series, size, spacing and orientation."""
    stacks: list[Stack] = []
    for one in slices:
        alone = one.frames > 1
        place = None if alone else next((s for s in stacks if one.is_like(s[0])), None)
        if place is None:
            stacks.append([one])
        else:
            place.append(one)
    return sorted(stacks, key=lambda stack: (stack[0].title, stack[0].series, -len(stack)))


def choose(path: Path, stacks: Sequence[Stack], series: str | int | None) -> Stack:
    """The one stack, or that of this number (from 1) or series UID.

    Raises
    ------
    SeriesChoiceError
        Where there are several, and `series` names none or more than one.
    """
    if series is None and len(stacks) == 1:
        return stacks[0]
    wanted = str(series)
    chosen = [stack for stack in stacks if stack[0].series == wanted]
    if not chosen and wanted.isdecimal() and 1 <= int(wanted) <= len(stacks):
        chosen = [stacks[int(wanted) - 1]]
    if len(chosen) == 1:
        return chosen[0]
    choices = [describe(stack) for stack in stacks]
    listed = "".join(f"\n  {i}: {text}" for i, text in enumerate(choices, 1))
    what = "" if series is None else f" and {wanted!r} names not exactly one of them"
    raise SeriesChoiceError(
        f"{path} holds {len(stacks)} series{what}; choose one by its number or UID "
        f"(--series, series=):{listed}",
        choices,
    )


def _alike(one: Sequence[float] | None, other: Sequence[float] | None, within: float) -> bool:
    if one is None or other is None:
        return one is other
    return all(abs(a - b) <= within for a, b in zip(one, other, strict=True))
