"""Where the pixels of an image lie in the world: one frozen value that travels with every image.

Array axes are (Z,) Y, X; an index names the centre of a pixel. World axes stand in the same order:

* space "image" (microscopy, pictures): along the axes of the image as its file stores it, from the
  centre of its first pixel, or from where the file says that it lies on the stage;
* space "patient" (radiology): Z grows towards the head, Y towards the back, X towards the patient's
  left. These are the coordinates of DICOM and ITK (LPS) in the order z, y, x. NIfTI negates x and
  y (RAS); `Geometry.from_ras` and `Geometry.ras_affine` convert.

Lengths are in `Geometry.unit`. The unit "px" says that no size is known; positions are then counts
of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from napari_coseg.core.errors import ImageError

UNITS_UM = {"um": 1.0, "mm": 1000.0}
"""Micrometres in each unit of length."""
UNITS = (*UNITS_UM, "px")
SPACES = ("image", "patient")
SAME_SIZE = 1e-3
"""Pixel sizes that differ by less than this part are equal: files round them."""
ONLY_SIZE = "position and orientation: of these labels only the size of a pixel was kept"
"""What is assumed of labels that were written before geometries were."""
NOTE = "napari-coseg geometry"
"""Key under which a geometry is written as JSON into formats that hold notes."""
MAX_TEXT = 1000
"""Longest text read back from a file."""
_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


@dataclass(frozen=True)
class ImageSource:
    """What the source of an image says of itself.

    Parameters
    ----------
    file
        Name without folders.
    series
        Of several in the file or folder.
    window
        Values that the source shows as black and as white.
    assumed
        What was assumed where the source says nothing, one sentence each.
    axes, flipped
        For each axis of the array: which axis of the stored array it is (slowest first), and
        whether it runs against it. Empty where the array is as stored.
    """

    file: str = ""
    series: str = ""
    window: tuple[float, float] | None = None
    assumed: tuple[str, ...] = ()
    axes: tuple[int, ...] = ()
    flipped: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Geometry:
    """Position, orientation and size of the pixels of an image.

    Parameters
    ----------
    affine
        (N + 1, N + 1) of N = 2 or 3 spatial axes: from an index to a position, both homogeneous and
        in the order (z,) y, x, as described at the top of this module.
    unit
        "um" or "mm", of positions; "px" where sizes are not known.
    space
        What the world axes are: "image" or "patient".
    source
        What the image's source says of itself.

    Raises
    ------
    ImageError
        Where the matrix has another shape, cannot be inverted, or a word is not known.
    """

    affine: tuple[tuple[float, ...], ...]
    unit: str = "um"
    space: str = "image"
    source: ImageSource = ImageSource()

    def __post_init__(self) -> None:
        matrix = np.asarray(self.affine, float)
        if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
            raise ImageError(
                f"a geometry has 3 x 3 or 4 x 4 finite numbers, got {matrix.shape} of {self.affine}"
            )
        bottom = [0.0] * (len(matrix) - 1) + [1.0]
        sizes = np.linalg.norm(matrix[:-1, :-1], axis=0)
        with np.errstate(all="ignore"):
            volume = abs(np.linalg.det(matrix[:-1, :-1] / sizes)) if sizes.all() else 0.0
        if matrix[-1].tolist() != bottom or not volume > 1e-9:
            raise ImageError(f"the geometry {matrix.tolist()} cannot be inverted")
        if self.unit not in UNITS or self.space not in SPACES:
            raise ImageError(f"a geometry in {self.unit!r}, {self.space!r} is not understood")
        rows = tuple(tuple(float(value) + 0.0 for value in row) for row in matrix)
        object.__setattr__(self, "affine", rows)

    # -- making one ----------------------------------------------------------------------------

    @classmethod
    def from_parts(cls, linear: Any, origin: Any, **about: Any) -> Self:
        """From the steps of a pixel along each axis (columns of (N, N)) and the first position."""
        n = len(origin)
        matrix = np.eye(n + 1)
        matrix[:n, :n], matrix[:n, n] = linear, origin
        return cls(tuple(map(tuple, matrix.tolist())), **about)

    @classmethod
    def from_spacing(
        cls, spacing: Sequence[float], origin: Sequence[float] | None = None, **about: Any
    ) -> Self:
        """Axes along those of the world; `spacing` in ``unit`` per pixel, (z,) y, x."""
        if not all(math.isfinite(size) and size > 0 for size in spacing):
            raise ImageError(f"pixel size {tuple(spacing)} must be positive, in micrometres")
        start = [0.0] * len(spacing) if origin is None else origin
        return cls.from_parts(np.diag(np.asarray(spacing, float)), start, **about)

    @classmethod
    def unknown(cls, ndim: int, source: ImageSource = ImageSource()) -> Self:
        """Nothing is known but the order of the axes."""
        return cls.from_spacing([1.0] * ndim, unit="px", source=source)

    @classmethod
    def from_lps(cls, affine: np.ndarray, **about: Any) -> Self:
        """From DICOM's and ITK's convention: (x, y, z) index to left, posterior, superior.

        The array's axes are those of the file, slowest first (z, y, x).
        """
        linear, origin = affine[:3, :3][::-1, ::-1], affine[:3, 3][::-1]
        return cls.from_parts(linear, origin, **({"unit": "mm", "space": "patient"} | about))

    @classmethod
    def from_ras(cls, affine: np.ndarray, **about: Any) -> Self:
        """From NIfTI's convention: (x, y, z) index to right, anterior, superior."""
        return cls.from_lps(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, **about)

    # -- what it says --------------------------------------------------------------------------

    @property
    def ndim(self) -> int:
        return len(self.affine) - 1

    @property
    def axes(self) -> str:
        """Of the array: "YX" or "ZYX"."""
        return "ZYX"[-self.ndim :]

    @property
    def linear(self) -> np.ndarray:
        """(N, N): its columns are the steps of one pixel along each axis."""
        return np.array(self.affine)[:-1, :-1]

    @property
    def origin(self) -> np.ndarray:
        """(N,): position of the first pixel."""
        return np.array(self.affine)[:-1, -1]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Length of a pixel along each axis, in `unit`."""
        return tuple(math.hypot(*column) for column in self.linear.T.tolist())

    @property
    def directions(self) -> np.ndarray:
        """(N, N): its columns are the unit vectors of the axes."""
        return self.linear / np.array(self.spacing)

    @property
    def is_known(self) -> bool:
        """Whether the size of a pixel is known."""
        return self.unit != "px"

    @property
    def pixel_size_um(self) -> tuple[float, ...] | None:
        """Micrometres per pixel along each axis; None where it is not known."""
        if not self.is_known:
            return None
        factor = UNITS_UM[self.unit]
        return tuple(size * factor for size in self.spacing)

    @property
    def known_size_um(self) -> tuple[float, ...]:
        """As `pixel_size_um`; raises `ImageError` where it is not known."""
        size = self.pixel_size_um
        if size is None:
            raise ImageError("the size of a pixel is not known; give it in micrometres")
        return size

    @property
    def is_plain(self) -> bool:
        """Whether it says no more than the size of a pixel, if that."""
        if ONLY_SIZE in self.source.assumed:
            return True
        aligned = np.allclose(self.directions, np.eye(self.ndim), atol=1e-6)
        return self.space == "image" and aligned and not self.origin.any()

    @property
    def origin_along_axes(self) -> np.ndarray:
        """(N,): position of the first pixel along the image's own axes.

        For formats and programs without rotations. A crop and its whole still lie right beside each
        other; where the axes are those of the world, it is `origin`.
        """
        along: np.ndarray = np.linalg.solve(self.directions, self.origin)
        return along + 0.0

    @property
    def ras_affine(self) -> np.ndarray:
        """(4, 4) in NIfTI's convention, for the array in the order x, y, z; in `unit`."""
        geometry = self.expanded()
        matrix = np.eye(4)
        matrix[:3, :3] = geometry.linear[::-1, ::-1]
        matrix[:3, 3] = geometry.origin[::-1]
        found: np.ndarray = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
        return found + 0.0

    def world(self, index: Any) -> np.ndarray:
        """Positions of (..., N) indices, fractions included, in `unit`."""
        found: np.ndarray = np.asarray(index, float) @ self.linear.T + self.origin
        return found

    def index(self, position: Any) -> np.ndarray:
        """Indices of (..., N) positions; the inverse of `world`."""
        away = np.asarray(position, float) - self.origin
        found: np.ndarray = np.linalg.solve(self.linear, away[..., None])[..., 0]
        return found

    # -- what follows the pixels ---------------------------------------------------------------

    def crop(self, offset: Sequence[float]) -> Self:
        """Of the part whose first pixel is at the index `offset`."""
        return self.from_parts(self.linear, self.world(offset), **self._about)

    def resampled(self, factors: float | Sequence[float]) -> Self:
        """Of larger (above 1) or smaller pixels that cover the same field."""
        each = np.broadcast_to(np.asarray(factors, float), (self.ndim,))
        return self.from_parts(self.linear * each, self.world((each - 1) / 2), **self._about)

    def flipped(self, axes: Sequence[int], shape: Sequence[int]) -> Self:
        """Of the array of this shape with some axes reversed."""
        signs, corner = np.ones(self.ndim), np.zeros(self.ndim)
        for axis in axes:
            signs[axis], corner[axis] = -1, shape[axis] - 1
        order, before = self._stored
        turned = [was != (axis in axes) for axis, was in enumerate(before)]
        about = self._about | {"source": _ordered(self.source, order, turned)}
        return self.from_parts(self.linear * signs, self.world(corner), **about)

    def permuted(self, order: Sequence[int]) -> Self:
        """Of the array with its axes in another order, as `numpy.transpose` takes it."""
        axes, turned = ([part[axis] for axis in order] for part in self._stored)
        about = self._about | {"source": _ordered(self.source, axes, turned)}
        return self.from_parts(self.linear[:, list(order)], self.origin, **about)

    def as_stored(self, array: np.ndarray) -> tuple[np.ndarray, Self]:
        """The array with its axes as in the source's file (a view), and its geometry."""
        order, turned = self._stored
        back = [axis for axis, is_turned in enumerate(turned) if is_turned]
        steps = tuple(slice(None, None, -1 if is_turned else 1) for is_turned in turned)
        stored = [int(axis) for axis in np.argsort(order)]
        geometry = self.flipped(back, array.shape).permuted(stored)
        return array[steps].transpose(stored), geometry

    def expanded(self, thickness: float = 1.0) -> Self:
        """Of a plane as a stack of one slice of this thickness in `unit`; a stack as it is."""
        if self.ndim == 3:
            return self
        linear = np.diag([thickness, 0.0, 0.0])
        linear[1:, 1:] = self.linear
        source = replace(self.source, axes=(), flipped=())
        return self.from_parts(linear, [0.0, *self.origin], **self._about | {"source": source})

    def with_pixel_size(self, size_um: Sequence[float], assumed: str = "") -> Self:
        """With another size of the pixels, in micrometres; the first pixel stays where it is.

        Where no size was known, the first pixel stays so many pixels from the origin.
        """
        unit = self.unit if self.is_known else "um"
        new = self.from_spacing([float(size) for size in size_um]).linear / UNITS_UM[unit]
        directions, origin = self.directions, self.origin
        if not self.is_known:
            origin = directions @ new @ self.origin_along_axes
        about = self._about | {"unit": unit}
        if assumed:
            known = self.source.assumed
            about["source"] = replace(self.source, assumed=(*known, assumed))
        return self.from_parts(directions @ new, origin, **about)

    def has_pixel_size(self, size_um: Sequence[float]) -> bool:
        """Whether this is the size of the pixels, but for rounding."""
        mine = self.pixel_size_um
        return mine is not None and np.allclose(mine, size_um, rtol=SAME_SIZE, atol=0)

    @property
    def _about(self) -> dict[str, Any]:
        return {"unit": self.unit, "space": self.space, "source": self.source}

    @property
    def _stored(self) -> tuple[Sequence[int], Sequence[bool]]:
        """`source.axes` and `source.flipped`, spelt out."""
        return (
            self.source.axes or tuple(range(self.ndim)),
            self.source.flipped or (False,) * self.ndim,
        )

    # -- in files ------------------------------------------------------------------------------

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, without what is empty in `source`."""
        source = {
            "file": self.source.file,
            "series": self.source.series,
            "window": self.source.window and list(self.source.window),
            "assumed": list(self.source.assumed),
            "axes": list(self.source.axes),
            "flipped": list(self.source.flipped),
        }
        return {
            "axes": self.axes,
            "affine": [list(row) for row in self.affine],
            "unit": self.unit,
            "space": self.space,
            "source": {key: value for key, value in source.items() if value},
        }

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """What `as_json` gave, checked.

        Raises
        ------
        ImageError
            Where it is not as `as_json` gives it.
        """
        try:
            found = cls(
                tuple(tuple(float(value) for value in row) for row in values["affine"]),
                str(values["unit"]),
                str(values["space"]),
                _source(values.get("source", {})),
            )
            order, flipped = found.source.axes, found.source.flipped
            is_order = not order or sorted(order) == list(range(found.ndim))
            if not is_order or len(flipped) not in (0, found.ndim):
                raise ValueError(f"axes {order}, flipped {flipped}")
        except _BROKEN as error:
            raise ImageError(f"a geometry cannot be understood: {error!r:.300}") from error
        return found


def _ordered(source: ImageSource, axes: Sequence[Any], flipped: Sequence[Any]) -> ImageSource:
    """With this order of the stored array's axes; empty where it is the stored one."""
    if list(axes) == sorted(axes) and not any(flipped):
        axes, flipped = (), ()
    return replace(source, axes=tuple(axes), flipped=tuple(flipped))


def _source(values: Mapping[str, Any]) -> ImageSource:
    """From JSON; raises one of `_BROKEN`."""
    window = values.get("window")
    low, high = (float(value) for value in window) if window else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"a window {window}")
    return ImageSource(
        file=str(values.get("file", ""))[:MAX_TEXT],
        series=str(values.get("series", ""))[:MAX_TEXT],
        window=(low, high) if window else None,
        assumed=tuple(str(text)[:MAX_TEXT] for text in values.get("assumed", ())[:20]),
        axes=tuple(int(axis) for axis in values.get("axes", ())),
        flipped=tuple(bool(value) for value in values.get("flipped", ())),
    )
