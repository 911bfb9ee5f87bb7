"""Horizontal and vertical distance maps of a label image, the targets of a network.

Source: HoVer-Net (Graham et al. 2019, section 3.1), with one difference: the centre of mass is not
rounded to a pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from napari_coseg.core.errors import ImageError


class _Runs(NamedTuple):
    """Runs of one label in one row, in raster order."""

    label: np.ndarray
    row: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @property
    def length(self) -> np.ndarray:
        return self.last - self.first + 1


def horizontal_vertical_maps(labels: np.ndarray) -> np.ndarray:
    """Offsets of every pixel from the centre of mass of its object, scaled to -1..1.

    Each side of an object (left, right, above, below) is scaled separately, so that both -1 and 1
    are reached exactly. An object one column wide is 0 in channel 0, one row high 0 in channel 1.
    Time and memory grow with the number of pixels, not with the number of objects.

    Parameters
    ----------
    labels
        (Y, X), any integer dtype; 0 is background; ids may have gaps.

    Returns
    -------
    np.ndarray
        float32 (2, Y, X): channel 0 increases to the right, channel 1 downwards; 0 outside objects.

    Raises
    ------
    ImageError
        Where `labels` is not a two-dimensional integer image, or holds ids below 0.
    """
    _check(labels)
    maps = np.zeros((2, *labels.shape), dtype=np.float32)
    runs = _label_runs(labels)
    if not len(runs.label):
        return maps
    _, owner = np.unique(runs.label, return_inverse=True)
    area = np.bincount(owner, weights=runs.length)
    x_sum = np.bincount(owner, weights=(runs.first + runs.last) * runs.length / 2)
    y_sum = np.bincount(owner, weights=runs.row * runs.length)
    x_side = _Side.of(x_sum / area, *_extent(owner, runs.first, runs.last))
    y_side = _Side.of(y_sum / area, *_extent(owner, runs.row, runs.row))

    pixel_owner = np.repeat(owner, runs.length)
    starts = np.cumsum(runs.length) - runs.length
    x = np.arange(len(pixel_owner)) + np.repeat(runs.first - starts, runs.length)
    pixel = x + np.repeat(runs.row * labels.shape[1], runs.length)
    maps[0].reshape(-1)[pixel] = x_side.scaled(x, pixel_owner)
    maps[1].reshape(-1)[pixel] = np.repeat(y_side.scaled(runs.row, owner), runs.length)
    return maps


def _check(labels: np.ndarray) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ImageError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}; expected a (Y, X) image "
            "of integer ids, where 0 is background"
        )
    if labels.size and labels.min() < 0:
        raise ImageError(
            f"labels have the id {labels.min()}; ids of objects are above 0: set others to 0"
        )


def _label_runs(labels: np.ndarray) -> _Runs:
    """Runs of equal labels in every row, without background."""
    starts_here = np.ones(labels.shape, dtype=bool)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=starts_here[:, 1:])
    start = np.flatnonzero(starts_here)
    stop = np.append(start[1:], labels.size)
    label = labels.reshape(-1)[start]
    inside = label > 0
    row, first = np.divmod(start[inside], max(labels.shape[1], 1))
    return _Runs(label[inside], row, first, first + (stop - start)[inside] - 1)


def _extent(
    owner: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest `first` and largest `last` of each owner 0..N-1."""
    order = np.argsort(owner, kind="stable")
    begin = np.flatnonzero(np.diff(owner[order], prepend=-1))
    return np.minimum.reduceat(first[order], begin), np.maximum.reduceat(last[order], begin)


class _Side(NamedTuple):
    """Per object along one axis: its centre and its extent below and above that, in pixels."""

    centre: np.ndarray
    below: np.ndarray
    above: np.ndarray

    @classmethod
    def of(cls, centre: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> _Side:
        # An object one pixel wide has no sides: infinity makes its offsets exactly 0 in spite of
        # rounding in its centre.
        flat = lowest == highest
        return cls(
            centre,
            np.where(flat, np.inf, centre - lowest),
            np.where(flat, np.inf, highest - centre),
        )

    def scaled(self, position: np.ndarray, owner: np.ndarray) -> np.ndarray:
        offset = position - self.centre[owner]
        return offset / np.where(offset < 0, self.below[owner], self.above[owner])
