"""Which way a volume is cut into slices: one rule for training, the command line and the window.

By the rule `square` a volume is turned upright (head, back, left) where its position in the patient
is known, and cut across its largest spacing, so that the pixels of a slice are square; across the
first axis, the one to the head, where that serves as well as another. By the rule `axial` it is
always cut across that axis. In slices that run from head to foot, the head is on top.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry

ALIKE = 0.01
"""Voxel sides that differ by less than 1 % count as equal; files round them."""
AS_IT_IS = ((0, 1, 2), (False, False, False))


@dataclass(frozen=True)
class Slicing:
    """How an array (Z, Y, X) becomes slices (slice, row, column) and labels of these come back.

    Parameters
    ----------
    order
        Of slice, row and column: the array's axis.
    flipped
        Of rows and columns: whether they run against it.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool] = (False, False)

    @property
    def axis(self) -> int:
        """The array's axis that slices are counted along."""
        return self.order[0]

    @property
    def is_plain(self) -> bool:
        """Whether slices are the array as it is."""
        return self == Slicing()

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """View the array as slices."""
        return volume.transpose(self.order)[self._steps]

    def back(self, slices: np.ndarray) -> np.ndarray:
        """View slices as the array that they were cut from."""
        return slices[self._steps].transpose(np.argsort(self.order))

    def start(
        self, offset: Sequence[int], shape: Sequence[int], whole: Sequence[int]
    ) -> tuple[int, ...]:
        """Where a part of an array, of this offset and shape in a whole, starts in the slices."""
        flipped = (False, *self.flipped)
        return tuple(
            whole[axis] - offset[axis] - shape[axis] if turned else offset[axis]
            for axis, turned in zip(self.order, flipped, strict=True)
        )

    def geometry(self, geometry: Geometry, shape: Sequence[int]) -> Geometry:
        """Of the slices of an array of this geometry; `shape` is that of the slices."""
        turned = [1 + i for i, is_flipped in enumerate(self.flipped) if is_flipped]
        return geometry.permuted(self.order).flipped(turned, shape)

    @property
    def _steps(self) -> tuple[slice, ...]:
        return slice(None), *(slice(None, None, -1 if turn else 1) for turn in self.flipped)


def slicing_of(geometry: Geometry, rule: str = "square", axes: str = "ZYX") -> Slicing:
    """How an image of this geometry and these axes is cut.

    Only volumes of one channel are turned: stacks of colour images or of several channels come from
    a microscope, which sees planes.

    Raises
    ------
    ImageError
        If all sides of a voxel differ.
    """
    if axes != "ZYX":
        return Slicing()
    upright = upright_axes(geometry.directions) if geometry.space == "patient" else AS_IT_IS
    axis = 0
    if rule == "square" and geometry.is_known:
        z, y, x = (geometry.spacing[i] for i in upright[0])
        axis = square_axis((z, y, x), geometry.unit)
    return slicing_across(axis, *upright)


def slicing_across(
    axis: int,
    axes: tuple[int, int, int] = AS_IT_IS[0],
    flipped: tuple[bool, bool, bool] = AS_IT_IS[1],
) -> Slicing:
    """Across an axis of the upright volume.

    Parameters
    ----------
    axes, flipped
        For Z, Y, X of the upright volume: the array's axis, and whether it is reversed.
    """
    row, column = (i for i in range(3) if i != axis)
    # Where Z is an axis of the slices it is that of their rows; the head is on top.
    turned = (flipped[row] != (axis > 0), flipped[column])
    return Slicing((axes[axis], axes[row], axes[column]), turned)


def square_axis(spacing: tuple[float, float, float], unit: str = "mm") -> int:
    """The axis to cut across so that pixels are square: that of the largest spacing.

    The first if all are equal.

    Raises
    ------
    ImageError
        If all sides of a voxel differ.
    """
    square = []
    for axis in range(3):
        one, other = (size for i, size in enumerate(spacing) if i != axis)
        if abs(one - other) <= ALIKE * max(one, other):
            square.append(axis)
    if square:
        largest = max(spacing[axis] for axis in square)
        return next(axis for axis in square if spacing[axis] >= largest * (1 - ALIKE))
    raise ImageError(
        f"the voxels measure {', '.join(f'{side:g}' for side in spacing)} {unit} (z, y, x); "
        "all sides differ, so that no slice has square pixels: resample the volume"
    )


def upright_axes(
    directions: np.ndarray,
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """The array's axis nearest to each of Z, Y, X of the upright volume, and its direction.

    Parameters
    ----------
    directions
        (3, 3): one column per axis of the array, slowest first, towards head, back and left.
    """
    cosines = directions.T
    axes = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(abs(cosines[axis, i]) for i, axis in enumerate(order)),
    )
    z, y, x = (bool(cosines[axis, i] < 0) for i, axis in enumerate(axes))
    return (axes[0], axes[1], axes[2]), (z, y, x)
