"""The slices of the DICOM series that labels were made of, and where the labels lie in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import OutputError
from napari_coseg.core.geometry import SAME_SIZE, Geometry

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_FILES = 20_000
"""Most files of a folder that are looked at."""
SAME_AXIS = 1e-3
"""How far parts of unit vectors that are the same may differ: files round them."""
PART_OF_A_PIXEL = 0.1
"""How far labels may lie from the pixels of a slice, and from the slice, in pixels and spacings."""
INSTEAD = "write nifti or seg-nrrd"
_BROKEN = (ValueError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True, eq=False)
class Slice:
    """Header of a slice, and its numbers.

    Parameters
    ----------
    header
        All but the pixels.
    axes
        (3, 3): unit vectors of the normal, down a column and along a row, as rows; each is left,
        back, head.
    spacing
        Distance of two rows and of two columns, mm.
    position
        Of the first pixel, mm: left, back, head.
    shape
        Rows and columns.
    """

    header: Dataset
    axes: np.ndarray
    spacing: np.ndarray
    position: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def from_header(cls, header: Dataset) -> Slice:
        """Raises one of `_BROKEN` where a number is missing or cannot be right."""
        along, across = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        spacing, position = (
            np.array(header[key].value, float) for key in ("PixelSpacing", "ImagePositionPatient")
        )
        axes = np.stack([np.cross(along, across), across, along])
        is_right_angled = np.allclose(axes @ axes.T, np.eye(3), atol=1e-3)
        is_placed = (spacing > 0).all() and np.isfinite(position).all()
        if not (is_right_angled and is_placed and header.FrameOfReferenceUID):
            raise ValueError(f"axes {axes.tolist()}, spacing {spacing}, position {position}")
        axes /= np.linalg.norm(axes, axis=1, keepdims=True)
        return cls(header, axes, spacing, position, (int(header.Rows), int(header.Columns)))

    def is_like(self, other: Slice) -> bool:
        """Whether both may be of one volume."""
        return (
            self.header.SeriesInstanceUID == other.header.SeriesInstanceUID
            and self.shape == other.shape
            and np.allclose(self.axes, other.axes, atol=SAME_AXIS)
            and np.allclose(self.spacing, other.spacing, rtol=SAME_SIZE, atol=0)
        )


@dataclass(frozen=True, eq=False)
class Placement:
    """Where labels lie in slices.

    Parameters
    ----------
    headers
        Of the slices that planes of the labels lie on, in the order of `planes`.
    planes
        Numbers of these planes along the first of `order`. Others have no slice, and no label.
    shape
        Rows and columns of a slice.
    corner
        Row and column at which the labels begin.
    order, flipped
        For slices, rows and columns: the axis of the labels, and whether it runs against them.
    """

    headers: list[Dataset]
    planes: list[int]
    shape: tuple[int, int]
    corner: tuple[int, int]
    order: list[int]
    flipped: list[bool]

    def in_slices(self, labels: np.ndarray, dtype: type[np.unsignedinteger[Any]]) -> np.ndarray:
        """(slices, rows, columns) of whole slices; 0 beyond the labels."""
        turned = turn(labels, self.order, self.flipped)[self.planes]
        _, rows, columns = turned.shape
        top, left = self.corner
        whole = np.zeros((len(turned), *self.shape), dtype)
        whole[:, top : top + rows, left : left + columns] = turned
        return whole


def find_slices(
    path: Path, is_labelled: np.ndarray, geometry: Geometry, series: str = ""
) -> Placement:
    """Find the slice of each plane of labels.

    Parameters
    ----------
    path
        Folder that holds the series, or one of its files, which names the series.
    is_labelled, geometry
        Bool (Z, Y, X): the voxels of any label, and where they lie.
    series
        UID of the series, where the source says it.

    Raises
    ------
    OutputError
        Where there is no series, or not exactly one, on whose pixels the labels lie.
    """
    if (geometry.ndim, geometry.space, geometry.unit) != (3, "patient", "mm"):
        raise OutputError(
            f"the labels of {path.name} have no position in a patient, and dicom-seg refers to the "
            f"slices of a DICOM series; {INSTEAD}"
        )
    stacks = _stacks(path)
    stacks = [one for one in stacks if one[0].header.SeriesInstanceUID == series] or stacks
    fitting, reasons = [], []
    for slices in stacks:
        try:
            fitting.append(_placement(slices, is_labelled, geometry))
        except OutputError as reason:
            reasons.append(str(reason))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise OutputError(
            f"the labels lie on {len(fitting)} series of {path}; give one file of the series that "
            "they were made of"
        )
    raise OutputError(f"the labels do not lie on the slices in {path}: {reasons[0]}; {INSTEAD}")


# ---------------------------------------------------------------------------------------------
# Files


def _stacks(path: Path) -> list[list[Slice]]:
    """Slices that may be one volume each; of the file's own series where `path` is a file."""
    stacks: list[list[Slice]] = []
    known: set[str] = set()
    for header in _headers(_files_of(path)):
        try:
            one = Slice.from_header(header)
        except _BROKEN:  # a report or a scout beside the slices
            continue
        if header.SOPInstanceUID in known:
            continue
        known.add(header.SOPInstanceUID)
        place = next((stack for stack in stacks if one.is_like(stack[0])), None)
        if place is None:
            stacks.append([one])
        else:
            place.append(one)
    if path.is_file():
        own = {str(header.SeriesInstanceUID) for header in _headers([path])}
        stacks = [stack for stack in stacks if stack[0].header.SeriesInstanceUID in own]
    if not stacks:
        raise OutputError(
            f"{path} has no DICOM slices with positions, one in a file, and dicom-seg refers to "
            f"those of the image; {INSTEAD}"
        )
    return stacks


def _files_of(path: Path) -> list[Path]:
    """Those in the folder and below; those beside a file."""
    try:
        inside = path.rglob("*") if path.is_dir() else path.parent.iterdir()
        files = sorted(one for one in inside if one.is_file())
    except OSError as error:
        raise OutputError(f"{path} cannot be read ({error}); {INSTEAD}") from error
    if len(files) > MAX_FILES:
        raise OutputError(
            f"{path} has {len(files):,} files, and at most {MAX_FILES:,} are looked at; put those "
            "of the series into a folder of their own"
        )
    return files


def _headers(files: Sequence[Path]) -> Iterator[Dataset]:
    """Of those that are DICOM images of one frame; others are passed over."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError, EOFError, *_BROKEN):
            continue
        if "SeriesInstanceUID" in header and "Rows" in header and "NumberOfFrames" not in header:
            yield header


# ---------------------------------------------------------------------------------------------
# Positions


def _placement(slices: Sequence[Slice], is_labelled: np.ndarray, geometry: Geometry) -> Placement:
    """`OutputError` where the labels do not lie on these slices."""
    first = slices[0]
    order, flipped = _axes(first, geometry)
    turned = turn(is_labelled, order, flipped)
    backwards = [axis for axis, flip in enumerate(flipped) if flip]
    geometry = geometry.permuted(order).flipped(backwards, turned.shape)
    if not np.allclose(geometry.spacing[1:], first.spacing, rtol=SAME_SIZE, atol=0):
        raise OutputError(
            f"their pixels measure {_words(first.spacing)} mm, those of the labels "
            f"{_words(geometry.spacing[1:])}"
        )
    planes, chosen, inside = _nearest(slices, np.asarray(turned.any(axis=(1, 2))), geometry)
    corner = np.rint(inside[0]).astype(int)
    is_inside = (corner >= 0).all() and (corner + turned.shape[1:] <= first.shape).all()
    if not is_inside or np.abs(inside - corner).max() > PART_OF_A_PIXEL:
        raise OutputError("the labels lie between their pixels, or beyond them")
    return Placement(
        headers=[one.header for one in chosen],
        planes=planes,
        shape=first.shape,
        corner=(int(corner[0]), int(corner[1])),
        order=order,
        flipped=flipped,
    )


def _axes(one: Slice, geometry: Geometry) -> tuple[list[int], list[bool]]:
    """For slices, rows and columns: the labels' axis, and whether it runs against them."""
    cosines = one.axes[:, ::-1] @ geometry.directions  # both in the order head, back, left
    rows, columns = (int(np.abs(cosines[axis]).argmax()) for axis in (1, 2))
    smallest = np.abs([cosines[1, rows], cosines[2, columns]]).min()
    if rows == columns or smallest < 1 - SAME_AXIS**2:
        raise OutputError("their axes are not those of the labels")
    order = [3 - rows - columns, rows, columns]
    return order, [bool(cosines[axis, order[axis]] < 0) for axis in range(3)]


def _nearest(
    slices: Sequence[Slice], needs_slice: np.ndarray, geometry: Geometry
) -> tuple[list[int], list[Slice], np.ndarray]:
    """Planes that have a slice, their slices, and where in these their first pixels lie.

    The last is (planes, 2): row and column, with fractions.
    """
    starts = geometry.world(np.arange(len(needs_slice))[:, None] * [1, 0, 0])[:, ::-1]
    positions = np.array([one.position for one in slices])
    normal, across, along = slices[0].axes
    distances = np.abs((starts @ normal)[:, None] - positions @ normal)  # (planes, slices)
    is_near = distances <= PART_OF_A_PIXEL * geometry.spacing[0]
    lost = np.flatnonzero(needs_slice & ~is_near.any(axis=1))
    if len(lost):
        raise OutputError(
            f"plane {lost[0]} of the labels is {distances[lost[0]].min():.3g} mm away from the "
            "nearest"
        )
    if (is_near.sum(axis=1) > 1).any():
        raise OutputError("several of them are at one position")
    planes = np.flatnonzero(is_near.any(axis=1))
    if not len(planes):
        raise OutputError("none of them is where the labels are")
    found = is_near[planes].argmax(axis=1)
    moved = starts[planes] - positions[found]
    inside = np.stack([moved @ across, moved @ along], axis=1) / slices[0].spacing
    return planes.tolist(), [slices[index] for index in found], inside


def turn(array: np.ndarray, order: Sequence[int], flipped: Sequence[bool]) -> np.ndarray:
    """A view with the axes in this order, some reversed."""
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in flipped)
    return array.transpose(order)[steps]


def _words(values: Any) -> str:
    return " x ".join(f"{float(value):g}" for value in values)
