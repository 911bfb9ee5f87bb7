"""Resample images, maps and labels window by window.

Both grids cover the same rectangle; output pixel ``o`` of ``n_out`` has its centre at
``(o + 0.5) * n_in / n_out - 0.5`` of the input. Enlarging is bilinear; shrinking widens the same
triangle by the factor (an antialiased bilinear filter). The weights of an output pixel depend only
on its position in the whole image, not on the window, so windows fit together exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy import sparse


def source_range(n_in: int, n_out: int, start: int, stop: int) -> tuple[int, int]:
    """Half-open range of input pixels that output pixels `start` to `stop` depend on."""
    if n_in == n_out:
        return start, stop
    scale = n_in / n_out
    reach = max(scale, 1.0)
    low = (start + 0.5) * scale - 0.5 - reach
    high = (stop - 0.5) * scale - 0.5 + reach
    return max(0, int(np.floor(low))), min(n_in, int(np.ceil(high)) + 1)


def axis_weights(n_in: int, n_out: int, start: int, stop: int) -> sparse.csr_array:
    """Weights (output pixels `start` to `stop`, input pixels of `source_range`); rows sum to 1."""
    from scipy import sparse

    first, last = source_range(n_in, n_out, start, stop)
    scale = n_in / n_out
    reach = max(scale, 1.0)
    centre = (np.arange(start, stop) + 0.5) * scale - 0.5
    leftmost = np.ceil(centre - reach).astype(np.int64)
    columns = leftmost[:, None] + np.arange(int(np.floor(2 * reach)) + 1)
    weights = np.maximum(0, 1 - np.abs(columns - centre[:, None]) / reach)
    weights[(columns < 0) | (columns >= n_in)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    rows, places = np.nonzero(weights)
    entries = (weights[rows, places].astype(np.float32), (rows, columns[rows, places] - first))
    return sparse.csr_array(entries, shape=(stop - start, last - first))


def resample_rows(block: np.ndarray, weights: sparse.csr_array) -> np.ndarray:
    """Apply `axis_weights` along the first axis of a float32 (Y, ...) array."""
    flat = np.ascontiguousarray(block, dtype=np.float32).reshape(block.shape[0], -1)
    return (weights @ flat).reshape(weights.shape[0], *block.shape[1:])


def resample_maps(
    maps: np.ndarray,
    shape_in: tuple[int, int],
    shape_out: tuple[int, int],
    rows: tuple[int, int],
    columns: tuple[int, int],
) -> np.ndarray:
    """A window of maps on another grid.

    Parameters
    ----------
    maps
        (C, y, x), exactly the `source_range` of `rows` and `columns`.
    shape_in, shape_out
        Of the whole grids, (Y, X).
    rows, columns
        The window of the output grid, half-open.

    Returns
    -------
    np.ndarray
        float32 (C, rows, columns).
    """
    if shape_in == shape_out:
        return maps.astype(np.float32)
    down = resample_rows(maps.transpose(1, 2, 0), axis_weights(shape_in[0], shape_out[0], *rows))
    across = axis_weights(shape_in[1], shape_out[1], *columns)
    return resample_rows(down.transpose(1, 0, 2), across).transpose(2, 1, 0)


def carry_labels(
    labels: np.ndarray,
    mask: np.ndarray,
    shape_in: tuple[int, int],
    shape_out: tuple[int, int],
    window: tuple[slice, slice],
) -> np.ndarray:
    """A window of labels on another grid, where a mask is set.

    Parameters
    ----------
    labels
        int32 (y, x), exactly the `source_range` of the window.
    mask
        bool, the window's shape: pixels of objects on the output grid.
    shape_in, shape_out
        Of the whole grids, (Y, X).
    window
        Half-open, of the output grid.

    Returns
    -------
    np.ndarray
        int32 of the mask's shape. A pixel gets the label at its position, or one less than two
        input pixels away; 0 where there is none.
    """
    if shape_in == shape_out:
        return labels
    from skimage.segmentation import expand_labels

    index = []
    for n_in, n_out, part in zip(shape_in, shape_out, window, strict=True):
        first, last = source_range(n_in, n_out, part.start, part.stop)
        nearest = np.floor((np.arange(part.start, part.stop) + 0.5) * n_in / n_out).astype(int)
        index.append(np.clip(nearest, first, last - 1) - first)
    return np.where(mask, expand_labels(labels, 1.5)[np.ix_(*index)], 0)
