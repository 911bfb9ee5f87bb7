"""Distances of objects to the nearest other object and to the nearest border of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_coseg.labels.measure.windows import places


def nearest_distances(points: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Distance of each centroid to the nearest other one, of any class and of its own.

    Parameters
    ----------
    points
        (n, 2 or 3) in micrometres.
    kinds
        (n,) class ids.

    Returns
    -------
    dict
        ``nearest_um`` and ``nearest_same_class_um``, (n,); nan without another object.
    """
    same = np.full(len(points), np.nan)
    for kind in np.unique(kinds):
        of_kind = kinds == kind
        same[of_kind] = _to_nearest_other(points[of_kind])
    return {"nearest_um": _to_nearest_other(points), "nearest_same_class_um": same}


def _to_nearest_other(points: np.ndarray) -> np.ndarray:
    from scipy.spatial import KDTree

    if len(points) < 2:
        return np.full(len(points), np.nan)
    distances, _ = KDTree(points).query(points, k=2)
    return np.asarray(distances[:, 1])


def border_distances(
    points: np.ndarray, semantic: np.ndarray, pixel_size_um: Sequence[float]
) -> np.ndarray:
    """Distance of each centroid to the nearest place where two regions meet.

    The image's edge is not a border. Memory grows with the length of all borders.

    Parameters
    ----------
    points
        (n, 2 or 3) in micrometres; a pixel's centre is its index times its size.
    semantic
        Region class ids (Y, X) or (Z, Y, X).

    Returns
    -------
    np.ndarray
        (n,); nan without borders.
    """
    from scipy.spatial import KDTree

    if not len(points):
        return np.zeros(0)
    borders = border_points(semantic) * np.asarray(pixel_size_um)
    if not len(borders):
        return np.full(len(points), np.nan)
    # There may be a million of them and few queries: an unbalanced tree is faster.
    tree = KDTree(borders, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points)[0])


def border_points(semantic: np.ndarray) -> np.ndarray:
    """Middles of the faces between pixels of different regions, float64 (n, 2 or 3), in pixels."""
    planes = semantic if semantic.ndim == 3 else semantic[None]
    found = [np.zeros((0, 3))]
    for z, rows, columns in places(planes.shape):
        further = slice(rows.start, rows.stop + 1), slice(columns.start, columns.stop + 1)
        part = planes[z : z + 2, further[0], further[1]]
        own = part[0, : rows.stop - rows.start, : columns.stop - columns.start]
        for axis in range(3):
            step = tuple(slice(int(a == axis), None) for a in range(3))
            other = part[step][0] if part.shape[0] > step[0].start else own[:0]
            height, width = (min(n) for n in zip(own.shape, other.shape, strict=True))
            differs = own[:height, :width] != other[:height, :width]
            at = np.argwhere(differs) + np.array((rows.start, columns.start))
            middle = np.insert(at.astype(float), 0, z, axis=1)
            middle[:, axis] += 0.5
            found.append(middle)
    return np.concatenate(found)[:, 3 - semantic.ndim :]
