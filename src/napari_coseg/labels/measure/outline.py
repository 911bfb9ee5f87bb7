"""Perimeter, circularity and solidity of the objects of a plane."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from napari_coseg.labels.measure.windows import Window, add_by_owner

OBJECTS_A_LOOK = 500
"""Hulls between two checks for cancellation."""


class Outlines:
    """Perimeter, including holes, circularity and solidity.

    The perimeter is by Crofton's formula: of lines through the pixels in four directions, pi times
    the mean number of intersections with the object times their distance. It is within some percent
    at any orientation, also for pixels that are not square. For square ones it is scikit-image's
    `perimeter_crofton` with four directions.

    Circularity is 4 pi area / perimeter^2, at most 1. Solidity is the object's area over that of
    the convex hull of its pixels, as squares.
    """

    def __init__(self, pixels: np.ndarray, pixel_size_um: Sequence[float]) -> None:
        self._pixels = pixels
        self._size = (float(pixel_size_um[0]), float(pixel_size_um[1]))
        self._exits = np.zeros((4, len(pixels)))
        self._ends: list[tuple[np.ndarray, ...]] = []

    def add(self, window: Window) -> None:
        """Count where lines leave the window's objects, and keep the ends of their rows."""
        rimmed, labels = window.rimmed, window.labels
        beside = (
            rimmed[1:-1, 2:],  # right
            rimmed[2:, 1:-1],  # below
            rimmed[2:, 2:],  # below right
            rimmed[2:, :-2],  # below left
        )
        for total, neighbours in zip(self._exits, beside, strict=True):
            leaving = labels[labels != neighbours]
            add_by_owner(total[None], leaving[leaving > 0].astype(np.int64) - 1, None)
        for left, neighbours in ((0, rimmed[1:-1, :-2]), (1, beside[0])):
            y, x = np.nonzero((labels != neighbours) & (labels > 0))
            owners = labels[y, x].astype(np.int64) - 1
            self._ends.append((owners, y + window.rows.start, x + window.columns.start + left))

    def columns(self, should_stop: Callable[[], None] = lambda: None) -> dict[str, np.ndarray]:
        """Perimeter, circularity and solidity; `should_stop` may raise."""
        y, x = self._size
        diagonal = math.hypot(y, x)
        # The pixel's area over the step along a line is the distance between two lines.
        apart = np.array([y, x, y * x / diagonal, y * x / diagonal])
        perimeter = math.pi * (_shares_of_angle(y, x) * apart) @ self._exits
        area = self._pixels * y * x
        hulls = self._hull_areas(should_stop) * y * x
        return {
            "perimeter_um": perimeter,
            "circularity": np.minimum(4 * math.pi * area / np.maximum(perimeter, 1e-300) ** 2, 1),
            "solidity": area / hulls,
        }

    def _hull_areas(self, should_stop: Callable[[], None]) -> np.ndarray:
        """In pixels. Only ends of rows can be corners of a hull."""
        from scipy.spatial import ConvexHull

        owners, y, x = (
            np.concatenate([end[i] for end in self._ends] or [np.zeros(0, np.int64)])
            for i in range(3)
        )
        order = np.argsort(owners, kind="stable")
        starts = np.searchsorted(owners[order], np.arange(len(self._pixels) + 1))
        points = np.stack([y[order], x[order]], 1).astype(float)
        areas = np.zeros(len(self._pixels))
        for i in range(len(areas)):
            if i % OBJECTS_A_LOOK == 0:
                should_stop()
            ends = points[starts[i] : starts[i + 1]]
            # x is that of an edge; a pixel's corners are at y and y + 1.
            areas[i] = ConvexHull(np.concatenate([ends, ends + np.array((1, 0))])).volume
        return areas


def _shares_of_angle(y: float, x: float) -> np.ndarray:
    """Fraction of all directions that are nearest to each of the four.

    A quarter each for square pixels; of flat ones, the diagonals are close to the rows.
    """
    diagonal = math.atan2(y, x)
    along_rows, along_columns = diagonal, math.pi / 2 - diagonal
    return np.array([along_rows, along_columns, math.pi / 4, math.pi / 4]) / math.pi
