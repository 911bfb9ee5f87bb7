"""Principal axes of objects, from second moments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from napari_coseg.labels.measure.windows import Window, add_by_owner

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class Moments:
    """Axes of the ellipse or ellipsoid with an object's second moments.

    As in scikit-image, a pixel is a point: a single one has axes of length 0, a line of pixels an
    eccentricity of 1.

    Parameters
    ----------
    pixels
        (n,) pixels of each object.
    centroids
        (n, 3) z, y, x in pixels; moments are relative to them, so that large coordinates lose no
        digits.
    pixel_size_um
        (y, x) or (z, y, x).
    """

    def __init__(
        self, pixels: np.ndarray, centroids: np.ndarray, pixel_size_um: Sequence[float]
    ) -> None:
        self._pixels, self._centroids = pixels, centroids
        self._stack = len(pixel_size_um) == 3
        self._size = pixel_size_um if self._stack else (0.0, *pixel_size_um)
        self._sums = np.zeros((len(_PAIRS), len(pixels)))

    def add(self, window: Window) -> None:
        """Count the window's pixels."""
        owners = window.owners
        offsets = [
            (at - self._centroids[owners, axis]) * self._size[axis]
            for axis, at in enumerate(window.coordinates)
        ]
        products = [offsets[a] * offsets[b] for a, b in _PAIRS]
        add_by_owner(self._sums, owners, *products)

    def columns(self) -> dict[str, np.ndarray]:
        """Eccentricity and axes of planes, three axes of stacks."""
        matrices = np.zeros((len(self._pixels), 3, 3))
        for (a, b), total in zip(_PAIRS, self._sums, strict=True):
            matrices[:, a, b] = matrices[:, b, a] = total / self._pixels
        matrices = matrices if self._stack else matrices[:, 1:, 1:]
        # Ascending; rounding may leave slightly negative values.
        variances = np.maximum(np.linalg.eigvalsh(matrices), 0)
        # The variance along an axis is a quarter of the semi-axis squared in an ellipse, a fifth
        # in an ellipsoid.
        axes = 2 * np.sqrt(variances * (5 if self._stack else 4))
        if self._stack:
            volumes = self._pixels * math.prod(self._size)
            return {
                "equivalent_diameter_um": np.cbrt(6 / math.pi * volumes),
                "major_axis_um": axes[:, 2],
                "middle_axis_um": axes[:, 1],
                "minor_axis_um": axes[:, 0],
            }
        ratio = np.divide(
            variances[:, 0],
            variances[:, 1],
            out=np.ones(len(variances)),
            where=variances[:, 1] > 0,
        )
        return {
            "eccentricity": np.sqrt(1 - ratio),
            "major_axis_um": axes[:, 1],
            "minor_axis_um": axes[:, 0],
        }
