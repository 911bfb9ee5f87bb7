"""Rasterise polygons by the crossings of their edges with the rows of pixels.

Time grows with the area and the rows that the edges cross; scikit-image's grows with the area times
the number of corners (5,000 corners on 1,024 x 1,024 pixels: 0.8 s instead of 83 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from napari_coseg.core.errors import ImageError

MAX_CROSSINGS = 50_000_000
"""Limit of an outline's edges, added up over the rows of the image; about 2 GB of memory."""

LARGEST_COORDINATE = 2.0**31
"""Larger numbers, which no image needs, would overflow."""


def inside(
    rings: Sequence[np.ndarray], shape: tuple[int, int], max_crossings: int = MAX_CROSSINGS
) -> np.ndarray:
    """Pixels whose centre lies within an odd number of rings.

    Positions are continuous: pixel i of an axis spans i to i + 1.

    Parameters
    ----------
    rings
        (N, 2) each, x and y of finite numbers, the first corner again at the end.
    shape
        (Y, X); parts outside are cut off.

    Returns
    -------
    np.ndarray
        bool (Y, X).

    Raises
    ------
    ImageError
        Where the rings have more edges than an outline of pixels can have, or corners beyond
        `LARGEST_COORDINATE`.
    """
    height, width = shape
    # Every crossing flips the rest of its row between in and out; overflow keeps the parity.
    crossed = np.zeros((height, width + 1), np.uint8)
    for row, column in _crossings(rings, height, width, max_crossings):
        np.add.at(crossed, (row, column), np.uint8(1))
    parity = np.cumsum(crossed, axis=1, dtype=np.uint8)[:, :width] & 1
    return parity.astype(bool)


def _crossings(
    rings: Sequence[np.ndarray], height: int, width: int, max_crossings: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows whose middle an edge crosses, and the first pixel with its centre right of it."""
    total = 0
    for ring in rings:
        if not (np.abs(ring) <= LARGEST_COORDINATE).all():
            raise ImageError(
                f"an outline has corners beyond {LARGEST_COORDINATE:.0f} pixels; it is not the "
                "outline of an object or region"
            )
        (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
        top, bottom = np.minimum(y0, y1), np.maximum(y0, y1)
        first = np.clip(np.ceil(top - 0.5), 0, height).astype(np.int64)
        count = np.clip(np.ceil(bottom - 0.5), 0, height).astype(np.int64) - first
        total += int(count.sum())
        if total > max_crossings:
            raise ImageError(
                f"an outline of {sum(map(len, rings))} corners crosses more than {max_crossings} "
                "rows of pixels; it is not the outline of an object or region"
            )
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        share = (row + 0.5 - y0[edge]) / (y1 - y0)[edge]  # flat edges cross no row
        x = x0[edge] + share * (x1 - x0)[edge]
        yield row, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
