"""Reads labels in windows with a rim of one pixel, so that memory does not grow with the image.

Every pixel lies in one window, and the rim has its neighbours, so sums over windows equal those of
one pass over the whole image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from napari_coseg.labels.measure.rows import row_lookup

WINDOW_PX = (512, 4096)
"""Rows and columns of a window at most."""


@dataclass(frozen=True, eq=False)
class Window:
    """A part of one slice.

    Parameters
    ----------
    z
        The slice; 0 in a plane.
    rows, columns
        Of the slice.
    rimmed
        int (h + 2, w + 2): 1 + the table row of each pixel's object, 0 for background and outside
        the image. The rim has the neighbours.
    """

    z: int
    rows: slice
    columns: slice
    rimmed: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.rimmed[1:-1, 1:-1]

    @cached_property
    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """(y, x) of the pixels of objects, in the window."""
        y, x = np.nonzero(self.labels)
        return y, x

    @cached_property
    def owners(self) -> np.ndarray:
        """(n,) table row of each pixel of `inside`."""
        owners: np.ndarray = self.labels[self.inside].astype(np.int64) - 1
        return owners

    @cached_property
    def coordinates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(z, y, x) of the pixels of `inside`, in the image."""
        y, x = self.inside
        return np.full(len(y), self.z), y + self.rows.start, x + self.columns.start

    def part_of(self, array: np.ndarray) -> np.ndarray:
        """The same window of an array of the same shape as the labels."""
        plane = array[self.z] if array.ndim == 3 else array
        return plane[self.rows, self.columns]


def windows(labels: np.ndarray, ids: np.ndarray) -> Iterator[Window]:
    """All windows of labels.

    Parameters
    ----------
    labels
        Whole numbers (Y, X) or (Z, Y, X).
    ids
        All that occur, ascending, without 0.
    """
    planes = labels if labels.ndim == 3 else labels[None]
    row_of = row_lookup(ids)
    for z, rows, columns in places(planes.shape):
        rimmed = with_rim(planes[z], rows, columns)
        yield Window(z, rows, columns, row_of(rimmed))


def count(shape: tuple[int, ...]) -> int:
    """Number of windows of labels of this shape."""
    return len(list(places(shape if len(shape) == 3 else (1, *shape))))


def places(shape: tuple[int, ...]) -> Iterator[tuple[int, slice, slice]]:
    """Slice, rows and columns of each window of planes (Z, Y, X)."""
    height, width = WINDOW_PX
    for z, y, x in itertools.product(
        range(shape[0]), range(0, shape[1], height), range(0, shape[2], width)
    ):
        yield z, slice(y, min(y + height, shape[1])), slice(x, min(x + width, shape[2]))


def with_rim(plane: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """A window of a plane with one pixel around it; 0 outside the plane."""
    top, left = max(rows.start - 1, 0), max(columns.start - 1, 0)
    part = plane[top : rows.stop + 1, left : columns.stop + 1]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    rimmed = np.zeros((height + 2, width + 2), part.dtype)
    y, x = top - rows.start + 1, left - columns.start + 1
    rimmed[y : y + part.shape[0], x : x + part.shape[1]] = part
    return rimmed


def add_by_owner(totals: np.ndarray, owners: np.ndarray, *values: np.ndarray | None) -> None:
    """Add up values by owner.

    Parameters
    ----------
    totals
        float64 (one row each of `values`, number of owners); changed.
    owners
        (n,). Within a window they are close together, so only from the smallest to the largest is
        counted.
    values
        (n,) each; None counts the pixels.
    """
    if not owners.size:
        return
    low = int(owners.min())
    number = owners - low
    span = int(number.max()) + 1
    for total, value in zip(totals, values, strict=True):
        total[low : low + span] += np.bincount(number, value, span)
