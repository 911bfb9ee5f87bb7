"""Made-up nuclei: label images of any size, for tests and benchmarks."""

from __future__ import annotations

import numpy as np


def nuclei(
    size_px: int, count: int, seed: int = 0, radius_px: tuple[float, float] = (4.0, 16.0)
) -> np.ndarray:
    """About `count` ellipses in a square, many of them touching.

    Each cell of a grid holds one ellipse somewhere in it; a pixel belongs to the ellipse that it
    lies deepest in. Objects are 4-connected and have 10 pixels or more.

    Returns
    -------
    np.ndarray
        int32 (Y, X), ids 1..N without holes.
    """
    from skimage.measure import label

    rng = np.random.default_rng(seed)
    cells = max(round(count**0.5), 1)
    step = size_px / cells
    grid = np.pad(rng.uniform(size=(5, cells, cells)), ((0, 0), (1, 1), (1, 1)), mode="edge")
    ids = np.zeros((cells + 2, cells + 2), dtype=np.int32)
    ids[1:-1, 1:-1] = np.arange(1, cells * cells + 1).reshape(cells, cells)
    rows = [_rows(y, size_px, step, grid, ids, radius_px) for y in range(0, size_px, 64)]
    labels = label(np.concatenate(rows), connectivity=1)
    areas = np.bincount(labels.ravel())
    kept = (areas >= 10) & (np.arange(len(areas)) > 0)
    return (np.cumsum(kept) * kept).astype(np.int32)[labels]


def _rows(
    top: int,
    size_px: int,
    step: float,
    grid: np.ndarray,
    ids: np.ndarray,
    radius_px: tuple[float, float],
) -> np.ndarray:
    """64 rows of the image; a pixel asks the ellipses of its own cell and of the eight around."""
    y, x = np.mgrid[top : min(top + 64, size_px), :size_px].astype(np.float32)
    cell_y, cell_x = (y / step).astype(int), (x / step).astype(int)
    depth = np.ones_like(y)
    labels = np.zeros(y.shape, dtype=np.int32)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            at = (cell_y + dy, cell_x + dx)
            centre_y, centre_x, big, small, angle = (values[at] for values in grid)
            offset_y = y - (cell_y + dy - 1 + centre_y) * step
            offset_x = x - (cell_x + dx - 1 + centre_x) * step
            long = radius_px[0] + (radius_px[1] - radius_px[0]) * big
            short = long * (0.6 + 0.4 * small)
            cos, sin = np.cos(np.pi * angle), np.sin(np.pi * angle)
            along = (cos * offset_x + sin * offset_y) / long
            across = (cos * offset_y - sin * offset_x) / short
            distance = along**2 + across**2
            nearer = (distance < depth) & (ids[at] > 0)
            depth[nearer] = distance[nearer]
            labels[nearer] = ids[at][nearer]
    return labels


def one_hot(labels: np.ndarray, classes: np.ndarray, class_count: int) -> np.ndarray:
    """Perfect class probabilities (1 + T, Y, X), float32; `classes` names that of ids 1..N."""
    lookup = np.concatenate([[0], classes])
    image = lookup[labels]
    return np.stack([image == c for c in range(class_count + 1)]).astype(np.float32)
