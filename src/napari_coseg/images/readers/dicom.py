"""Read a DICOM series, from a folder, one of its files or a zip archive, as a volume.

Slices are sorted by their position along the normal of the planes, never by name or number. Values
are rescaled (Hounsfield units for CT). What is irregular is refused, or warned of and noted in
`ImageSource.assumed`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry, ImageSource
from napari_coseg.core.types import Image
from napari_coseg.images.readers import dicom_files
from napari_coseg.images.readers.dicom_files import BROKEN, Slice, Stack
from napari_coseg.images.readers.registry import stem_of
from napari_coseg.images.volumes import MAX_VOLUME_BYTES, upright

SAME_POSITION = 0.01
"""Of the usual distance: slices closer than this lie at one position."""
ROUNDING_MM = 1e-4
IRREGULAR = 0.1
"""Of the usual distance: slices farther than this from their place are refused."""
TOLD_MM = 1e-3
"""Smaller deviations from equal distances are rounding."""
TILT_DEGREES = 0.05
SHOWN = 5
INTEGERS = ("uint8", "int16", "uint16", "int32")
CODECS = {
    **dict.fromkeys(("50", "51", "57", "70"), "jpeg"),
    **dict.fromkeys(("80", "81"), "jpegls"),
    **dict.fromkeys(("90", "91", "201", "202", "203"), "jpeg2k"),
}
"""Last part of a compressed transfer syntax: which of imagecodecs' decoders reads it."""
COMPRESSED = "1.2.840.10008.1.2.4."


def read(path: Path, series: str | int | None = None, fill_gaps: bool = False) -> Image:
    """Read a stack (Z, Y, X) towards head, back and left, with its geometry in mm.

    Parameters
    ----------
    path
        A folder, a zip archive, or a file, which stands for its whole series in its folder.
    series
        Number (from 1, as the error lists them) or UID of the series, where there are several.
    fill_gaps
        Read a series with missing or doubled slices: missing ones have the smallest value of the
        volume, of doubled ones the first is kept, and both are noted.

    Raises
    ------
    SeriesChoiceError
        Where there are several series, and none is chosen.
    ImageError
        Where there is no series, a file is damaged, or the slices make no regular volume.
    """
    with dicom_files.members(path) as files:
        stack = _stack(path, files, series)
        if stack[0].frames > 1:
            return _read_frames(path, stack[0])
        if len(stack) == 1 and (stack[0].position is None or stack[0].orientation is None):
            return _read_plane(path, stack[0])
        arranged = _arrange(path, stack, fill_gaps)
        _refuse_large(path, len(arranged.slices), stack[0].size)
        volume = _volume(arranged.slices)
    for note in arranged.notes:
        warnings.warn(f"{path.name}: {note}", stacklevel=2)
    return _image(path, volume, arranged.affine, _source(path, stack[0], arranged.notes))


def _stack(path: Path, files: Sequence[dicom_files.Member], series: str | int | None) -> Stack:
    slices = dicom_files.scan(files)
    if path.is_file() and not path.name.lower().endswith(".zip"):
        own = next((one for one in slices if one.member.name == path.name), None)
        stacks = dicom_files.stacks_of(slices)
        if own is not None and series is None:
            return next(stack for stack in stacks if own in stack)
        slices = [] if own is None else slices
    if not slices:
        raise ImageError(
            f"{path} holds no DICOM image ({len(files)} files were looked at); name the folder or "
            "zip archive of a scan"
        )
    return dicom_files.choose(path, dicom_files.stacks_of(slices), series)


# ---------------------------------------------------------------------------------------------
# Where slices lie


@dataclass(frozen=True)
class _Arranged:
    """Slices in order along their normal, None where one is missing.

    `affine` is (4, 4), from index x, y, z to LPS; `notes` say what was assumed.
    """

    slices: tuple[Slice | None, ...]
    affine: np.ndarray
    notes: tuple[str, ...]


def _arrange(path: Path, stack: Stack, fill_gaps: bool) -> _Arranged:
    first, notes = stack[0], []
    if first.orientation is None or first.spacing is None:
        raise ImageError(
            f"the {len(stack)} images of {path} have no orientation or no pixel spacing: they make "
            "no volume"
        )
    along_row, along_column = np.array(first.orientation).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    if not np.allclose([np.linalg.norm(along_row), np.linalg.norm(normal)], 1, atol=1e-2):
        raise ImageError(f"{path} has an orientation of {first.orientation}, which is none")
    slices, copies = _without_copies(stack)
    if copies:
        notes.append(f"{copies} files are copies of other slices and were left out")
    positions = np.array([_position(path, one) for one in slices])
    heights = positions @ normal
    order = np.lexsort([np.array([one.number for one in slices]), heights])
    slices, positions, heights = [slices[i] for i in order], positions[order], heights[order]
    if len(slices) > 1:
        keep, places, irregular = _places(path, heights, fill_gaps)
        notes += irregular
        slices, positions = [slices[i] for i in keep], positions[keep]
        step, more = _step(path, positions, places, normal)
        notes += more
    else:
        places = np.zeros(1, int)
        step = normal * (first.thickness or 1.0)
        notes.append(f"the thickness of the only slice: {first.thickness or 1.0:g} mm")
    _refuse_large(path, int(places[-1]) + 1, first.size)
    slots: list[Slice | None] = [None] * (int(places[-1]) + 1)
    for place, one in zip(places, slices, strict=True):
        slots[place] = one
    rows, columns = first.spacing
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_row * columns, along_column * rows, step, positions[0]])
    return _Arranged(tuple(slots), affine, (*first.notes, *notes))


def _without_copies(stack: Stack) -> tuple[list[Slice], int]:
    unique = {one.uid: one for one in reversed(stack)}
    return list(unique.values()), len(stack) - len(unique)


def _position(path: Path, one: Slice) -> tuple[float, ...]:
    if one.position is None:
        raise ImageError(
            f"{one.member.name!r} of {path} has no ImagePositionPatient: the order of the slices "
            "is not known"
        )
    return one.position


def _places(
    path: Path, heights: np.ndarray, fill_gaps: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Which slices to keep, their places in a regular stack, and what was irregular."""
    gaps = np.diff(heights)
    apart = gaps[gaps > ROUNDING_MM]
    usual = float(np.median(apart)) if apart.size else 0.0
    if usual <= 0:
        raise ImageError(f"all {len(heights)} images of {path} lie at one position: no volume")
    notes = []
    is_new = np.concatenate([[True], gaps > SAME_POSITION * usual])
    if not is_new.all():
        notes.append(_listed("doubled slices", heights[~is_new]) + "; the first of each was kept")
    keep = np.flatnonzero(is_new)
    steps = np.diff(heights[keep]) / usual
    whole = np.maximum(np.rint(steps), 1)
    if (np.abs(steps - whole) > IRREGULAR * whole).any():
        raise ImageError(
            f"the slices of {path} lie {apart.min():g} to {apart.max():g} mm apart, at irregular "
            "distances; resample the series to equal distances"
        )
    if (whole > 1).any():
        before = heights[keep][:-1][whole > 1]
        text = f"{int((whole - 1).sum())} missing slices, " + _listed("above", before)
        notes.append(f"{text}; they have the smallest value of the volume")
    if notes and not fill_gaps:
        raise ImageError(
            f"{path} has {' and '.join(notes)}. This was refused: export the series again, or "
            "accept it by --fill-gaps (fill_gaps=True)"
        )
    return keep, np.concatenate([[0], np.cumsum(whole)]).astype(np.int64), notes


def _listed(what: str, heights: np.ndarray) -> str:
    shown = ", ".join(f"{height:g}" for height in heights[:SHOWN])
    more = f" and {len(heights) - SHOWN} more" if len(heights) > SHOWN else ""
    return f"{what} at {shown}{more} mm along the normal"


def _step(
    path: Path, positions: np.ndarray, places: np.ndarray, normal: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """From a slice to the next in LPS, and what is to be said of it."""
    step = (positions[-1] - positions[0]) / places[-1]
    distance = float(np.linalg.norm(step))
    away = np.linalg.norm(positions - positions[0] - places[:, None] * step, axis=1).max()
    if away > IRREGULAR * distance:
        raise ImageError(
            f"the slices of {path} lie up to {away:g} mm beside a straight line of equal steps; "
            "resample the series"
        )
    notes = []
    if away > TOLD_MM:
        notes.append(f"equal distances of the slices, which deviate by up to {away:.3g} mm")
    tilt = math.degrees(math.acos(min(1.0, abs(float(step @ normal)) / distance)))
    if tilt > TILT_DEGREES:
        notes.append(
            f"gantry tilt of {tilt:.1f} degrees: the volume is sheared; positions and volumes are "
            "right, angles in views across the slices are not"
        )
    return step, notes


# ---------------------------------------------------------------------------------------------
# Values


def _volume(slices: Sequence[Slice | None]) -> np.ndarray:
    """(slice, row, column): whole numbers in the smallest type that holds them, else float32."""
    size = next(one.size for one in slices if one is not None)
    volume = np.empty((len(slices), *size), np.uint8)
    low, high = math.inf, -math.inf
    for k, one in enumerate(slices):
        if one is None:
            continue
        plane = _plane(one)
        low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        volume = volume.astype(_kind(low, high, (plane, volume)), copy=False)
        volume[k] = plane
    volume[[one is None for one in slices]] = low
    return volume


def _kind(low: float, high: float, arrays: Sequence[np.ndarray] = ()) -> np.dtype:
    if any(array.dtype.kind == "f" for array in arrays):
        return np.dtype(np.float32)
    limits = (np.iinfo(kind) for kind in INTEGERS)
    fitting = (one for one in limits if one.min <= low and high <= one.max)
    return next(fitting).dtype


def _plane(one: Slice) -> np.ndarray:
    """Rescaled values of an image, int32 or float32."""
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut

    try:
        with one.member.open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(file)
            stored = _stored(data)
            if "ModalityLUTSequence" in data:
                return np.asarray(apply_modality_lut(stored, data), np.int32)
            slope, intercept = (
                float(data.get(name, default) or default)
                for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
            )
    except BROKEN as error:
        raise ImageError(f"{one.member.name!r} cannot be read: {error!r:.300}") from error
    if stored.shape != one.size:
        raise ImageError(f"{one.member.name!r} has {stored.shape} pixels, its header {one.size}")
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise ImageError(f"{one.member.name!r} scales its values by {slope} and {intercept}")
    largest = float(np.abs(stored, dtype=float).max()) * abs(slope) + abs(intercept)
    is_whole = stored.dtype.kind in "iub" and slope.is_integer() and intercept.is_integer()
    if is_whole and largest < 2**31:
        return stored.astype(np.int32) * np.int32(slope) + np.int32(intercept)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _stored(data: Any) -> np.ndarray:
    """Stored values (row, column)."""
    syntax = str(data.file_meta.TransferSyntaxUID)
    codec = CODECS.get(syntax.removeprefix(COMPRESSED)) if syntax.startswith(COMPRESSED) else None
    if codec is None:
        found: np.ndarray = data.pixel_array
        return found
    import imagecodecs
    from pydicom.encaps import get_frame

    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    stored = np.asarray(getattr(imagecodecs, f"{codec}_decode")(frame))
    if int(data.PixelRepresentation) == 1:  # decoders leave the sign bit of fewer bits in place
        unused = stored.dtype.itemsize * 8 - int(data.BitsStored)
        stored = (stored << unused).view(f"i{stored.dtype.itemsize}") >> unused
    return stored


# ---------------------------------------------------------------------------------------------
# Other images


def _read_frames(path: Path, one: Slice) -> Image:
    """A file of many frames (enhanced CT or MR); highdicom arranges them and checks distances."""
    import highdicom

    _refuse_large(path, one.frames, one.size, bytes_per_voxel=4)
    try:
        with one.member.open() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = highdicom.imread(file).get_volume(
                dtype=np.float32,
                apply_real_world_transform=False,
                apply_presentation_lut=False,
            )
    except BROKEN as error:
        raise ImageError(
            f"the {one.frames} frames of {one.member.name!r} make no regular volume: {error!s:.300}"
        ) from error
    values = np.asarray(volume.array)
    if np.isfinite(values).all() and np.array_equal(values, np.rint(values)):
        low, high = float(values.min()), float(values.max())
        if abs(low) < 2**24 and abs(high) < 2**24:  # exact in float32
            values = values.astype(_kind(low, high))
    affine = np.array(volume.affine)[:, [2, 1, 0, 3]]
    return _image(path, values, affine, _source(path, one, ()))


def _read_plane(path: Path, one: Slice) -> Image:
    """An image without a place in the patient, such as a radiograph."""
    _refuse_large(path, 1, one.size)
    source = _source(path, one, one.notes)
    geometry = Geometry.unknown(2, source)
    if one.spacing is not None:
        geometry = Geometry.from_spacing(one.spacing, unit="mm", source=source)
    return Image(_volume([one])[0], "YX", name=stem_of(path), geometry=geometry)


def _image(path: Path, volume: np.ndarray, affine: np.ndarray, source: ImageSource) -> Image:
    turned, geometry = upright(volume, Geometry.from_lps(affine, source=source))
    return Image(turned, "ZYX", name=stem_of(path), geometry=geometry)


def _source(path: Path, one: Slice, notes: Sequence[str]) -> ImageSource:
    known = ImageSource(path.name, f"{one.title} {one.series}", one.window)
    return replace(known, assumed=tuple(notes))


def _refuse_large(path: Path, count: int, size: tuple[int, int], bytes_per_voxel: int = 2) -> None:
    """Before anything is allocated."""
    voxels = count * size[0] * size[1]
    if min(count, *size) < 1 or voxels * bytes_per_voxel > MAX_VOLUME_BYTES:
        raise ImageError(
            f"{path} has {count} images of {size[1]} x {size[0]}; at least one voxel and at most "
            f"{MAX_VOLUME_BYTES / 2**30:.0f} GiB are read"
        )
