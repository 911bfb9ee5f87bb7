"""Compute the part of a sample that a crop needs, and resample it once.

Positions are continuous: pixel i of an axis spans i to i + 1. A crop's pixel at q, relative to the
crop's centre, is read from the sample at ``centre + matrix @ q``, plus a smooth bending.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage

SHRINK_FROM = 1.5
"""From this reduction on, pixels are averaged in blocks before sampling, against aliasing."""


class CropPlacement(NamedTuple):
    """Placement of a crop in its sample.

    matrix   (2, 2), sample pixels per crop pixel; rows and columns ordered x, y
    centre   (2,), x and y in the sample
    bending  (N, N, 2), x and y in sample pixels at the nodes of a square grid; None for none
    """

    matrix: np.ndarray
    centre: np.ndarray
    bending: np.ndarray | None


class SampleWindow(NamedTuple):
    """The rectangle of a sample that a crop reads, with the resampling.

    start, stop   x and y of the rectangle; may extend beyond the sample
    extent        x and y of the sample
    shrink        size of the blocks that are averaged first
    quads         target box and the 8 coordinates of its source quadrilateral, relative to `start`
    """

    start: np.ndarray
    stop: np.ndarray
    extent: np.ndarray
    shrink: int
    size_px: int
    matrix: np.ndarray
    corner: np.ndarray
    quads: list[tuple[tuple[int, int, int, int], np.ndarray]] | None

    @classmethod
    def around(cls, placement: CropPlacement, size_px: int, shape: tuple[int, int]) -> SampleWindow:
        zoom = np.sqrt(abs(np.linalg.det(placement.matrix)))
        shrink = round(zoom) if zoom >= SHRINK_FROM else 1
        # One more pixel or block on every side for interpolation.
        half = np.abs(placement.matrix).sum(axis=1) * size_px / 2 + shrink + 1
        if placement.bending is not None:
            half = half + np.abs(placement.bending).max(axis=(0, 1))
        start = np.floor(placement.centre - half).astype(int)
        stop = np.ceil(placement.centre + half).astype(int)
        corner = placement.centre - placement.matrix @ np.full(2, size_px / 2) - start
        # Blocks are aligned with the corner of an upright crop.
        align = -np.floor(corner).astype(int) % shrink
        start, corner = start - align, corner + align
        bent = placement.bending
        quads = None if bent is None else _quads(placement.matrix, bent, size_px, corner)
        extent = np.array(shape[::-1])
        return cls(start, stop, extent, shrink, size_px, placement.matrix, corner, quads)

    @property
    def reaches_beyond(self) -> bool:
        return bool((self.start < 0).any() or (self.stop > self.extent).any())

    def image(self, image: np.ndarray) -> np.ndarray:
        """uint8 (Y, X, 3), bilinear; mirrored beyond the sample."""
        picture = PillowImage.fromarray(self._cut(image, mirrored=True))
        if self.shrink > 1:
            picture = picture.reduce(self.shrink)
        return self._resample(picture, PillowImage.Resampling.BILINEAR, self.shrink)

    def labels(self, labels: np.ndarray | None, dtype: type[np.generic]) -> np.ndarray:
        """Nearest neighbour; 0 beyond the sample, or without labels."""
        if labels is None:
            return np.zeros((self.size_px, self.size_px), dtype)
        picture = PillowImage.fromarray(self._cut(labels, mirrored=False))
        resampled = self._resample(picture, PillowImage.Resampling.NEAREST, 1)
        return resampled.astype(dtype, copy=True)

    def inside(self) -> np.ndarray:
        """Where the crop lies inside the sample: bool (Y, X)."""
        if not self.reaches_beyond:
            return np.ones((self.size_px, self.size_px), bool)
        ones = np.ones(tuple(self.extent[::-1]), np.uint8)
        return self.labels(ones, np.uint8).astype(bool)

    def _cut(self, array: np.ndarray, mirrored: bool) -> np.ndarray:
        (x0, y0), (x1, y1) = self.start, self.stop
        if not self.reaches_beyond:
            return np.ascontiguousarray(array[y0:y1, x0:x1])
        part = array[max(y0, 0) : y1, max(x0, 0) : x1]
        before = (max(-y0, 0), max(-x0, 0))
        after = (y1 - y0 - part.shape[0] - before[0], x1 - x0 - part.shape[1] - before[1])
        widths = [*zip(before, after, strict=True), (0, 0)][: array.ndim]
        return np.pad(part, widths, mode="symmetric" if mirrored else "constant")

    def _resample(
        self, picture: PillowImage.Image, how: PillowImage.Resampling, shrink: int
    ) -> np.ndarray:
        size = (self.size_px, self.size_px)
        if self.quads is None:
            rows = np.column_stack([self.matrix, self.corner]) / shrink
            affine = tuple(rows.ravel().tolist())
            return np.asarray(picture.transform(size, PillowImage.Transform.AFFINE, affine, how))
        mesh = [(box, tuple((corners / shrink).tolist())) for box, corners in self.quads]
        return np.asarray(picture.transform(size, PillowImage.Transform.MESH, mesh, how))


def _quads(
    matrix: np.ndarray, bending: np.ndarray, size_px: int, corner: np.ndarray
) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Divide the crop into boxes, each read from a quadrilateral."""
    lines = np.linspace(0, size_px, len(bending)).round().astype(int)
    y, x = np.meshgrid(lines, lines, indexing="ij")
    nodes = np.stack([x, y], axis=-1) @ matrix.T + corner + bending  # (N, N, 2)
    quads = []
    for i in range(len(lines) - 1):
        for j in range(len(lines) - 1):
            box = (int(lines[j]), int(lines[i]), int(lines[j + 1]), int(lines[i + 1]))
            # Upper left, lower left, lower right, upper right: Pillow's order.
            around = (nodes[i, j], nodes[i + 1, j], nodes[i + 1, j + 1], nodes[i, j + 1])
            quads.append((box, np.concatenate(around)))
    return quads
