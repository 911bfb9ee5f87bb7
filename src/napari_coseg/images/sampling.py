"""Blocks spread over an image that is too large to look at as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

SLICES, BLOCKS_A_SIDE, BLOCK_PX = 5, 6, 256


def sample_blocks(
    n_slices: int, plane_shape: tuple[int, int]
) -> Iterator[tuple[int, slice, slice]]:
    """Slice, rows and columns of blocks evenly spread, first and last ones included.

    Parameters
    ----------
    plane_shape
        (Y, X) of each slice.
    """
    slices = np.unique(np.linspace(0, n_slices - 1, SLICES).astype(int))
    tops, lefts = (
        np.unique(np.linspace(0, max(0, side - BLOCK_PX), BLOCKS_A_SIDE).astype(int))
        for side in plane_shape
    )
    for z, y, x in itertools.product(slices, tops, lefts):
        yield int(z), slice(int(y), int(y) + BLOCK_PX), slice(int(x), int(x) + BLOCK_PX)
