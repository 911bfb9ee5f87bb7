"""Drawn strokes and outlines to pixels and objects.

Positions are in pixels of the labels, a pixel's centre at whole numbers. Drawings lie in a plane;
in a stack `z` is its slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.polygons import inside

Points = np.ndarray | Sequence[Sequence[float]]
"""(n, 2): y, x."""
_FARTHEST_PX = 1e6


def stroke_pixels(
    points: Points, width_px: float, shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (y, x) of a plane that a round brush covers along `points`, each once."""
    path = _sampled(_points(points, 1))
    reach = max(width_px, 1) / 2
    offsets = np.arange(-int(reach), int(reach) + 1)
    dy, dx = (axis.ravel() for axis in np.meshgrid(offsets, offsets, indexing="ij"))
    in_disk = dy**2 + dx**2 <= reach**2
    height, width = shape[-2:]
    centres = np.unique(np.rint(path).astype(np.int64), axis=0)
    y = (centres[:, :1] + dy[in_disk]).ravel()
    x = (centres[:, 1:] + dx[in_disk]).ravel()
    there = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.divmod(np.unique(y[there] * width + x[there]), width)


def cut_pixels(points: Points, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (y, x) of a plane under a line, 4-connected so that it separates its two sides."""
    y, x = np.rint(_sampled(_points(points, 2), 0.25)).astype(np.int64).T
    new = np.flatnonzero((np.diff(y, prepend=y[0] - 1) != 0) | (np.diff(x, prepend=x[0]) != 0))
    y, x = y[new], x[new]
    diagonal = np.flatnonzero((np.diff(y) != 0) & (np.diff(x) != 0))
    y, x = np.append(y, y[diagonal + 1]), np.append(x, x[diagonal])
    height, width = shape[-2:]
    there = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.divmod(np.unique(y[there] * width + x[there]), width)


def polygon_pixels(polygon: Points, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (y, x) of a plane whose centres lie inside an outline, which is closed.

    Where the outline crosses itself, the even-odd rule decides.
    """
    corners = _points(polygon, 3)
    (top, left), (bottom, right) = (
        np.clip(np.ceil(edge), 0, shape[-2:]).astype(int)
        for edge in (corners.min(axis=0), corners.max(axis=0) + 1)
    )
    # A pixel's centre is at whole numbers here, at halves in `inside`.
    ring = (np.vstack([corners, corners[:1]]) - (top, left) + 0.5)[:, ::-1]
    y, x = np.nonzero(inside([ring], (max(bottom - top, 0), max(right - left, 0))))
    return y + top, x + left


def in_image(
    pixels: tuple[np.ndarray, ...], shape: Sequence[int], z: int | None
) -> tuple[np.ndarray, ...]:
    """Pixels of a plane as pixels of the image.

    Raises
    ------
    EditError
        Where the slice of a stack is not given, or does not exist.
    """
    if len(shape) == 2:
        return pixels
    if z is None or not 0 <= z < shape[0]:
        raise EditError(f"slice {z} is not in the stack of {shape[0]}; choose one from 0 on")
    return (np.full(len(pixels[0]), z, dtype=np.int64), *pixels)


def pixel_at(point: Sequence[float], shape: Sequence[int]) -> tuple[int, ...]:
    """The pixel under a click at (y, x) or (z, y, x).

    Raises
    ------
    EditError
        Outside the image.
    """
    if len(point) != len(shape) or not np.isfinite(point).all():
        raise EditError(f"click {tuple(point)}: expected {len(shape)} numbers")
    pixel = tuple(round(float(value)) for value in point)
    if not all(0 <= value < size for value, size in zip(pixel, shape, strict=True)):
        raise EditError(f"the click at {pixel} is outside the image of shape {tuple(shape)}")
    return pixel


def ids_under_stroke(
    editor: LabelEditor, points: Points, width_px: float = 1, z: int | None = None
) -> list[int]:
    """Objects that a stroke touches, ordered by id."""
    shape = editor.labels.shape
    pixels = in_image(stroke_pixels(points, width_px, shape), shape, z)
    return [int(i) for i in np.unique(editor.labels[pixels]) if i]


def ids_inside_polygon(
    editor: LabelEditor,
    polygon: Points,
    *,
    by: Literal["centroid", "area"] = "centroid",
    min_share: float = 0.5,
    z: int | None = None,
) -> list[int]:
    """Objects inside a lasso, ordered by id.

    Parameters
    ----------
    by
        ``centroid``: those whose centroid is inside. ``area``: those with at least `min_share` of
        their pixels inside.
    z
        In a stack the slice of the lasso: only objects of this slice are chosen, and only their
        pixels there count. None: the lasso applies to all slices.
    """
    if by == "centroid":
        return _by_centroid(editor, polygon, z)
    if by == "area":
        return _by_area(editor, polygon, min_share, z)
    raise EditError(f"objects cannot be chosen by {by!r}; use 'centroid' or 'area'")


def _by_centroid(editor: LabelEditor, polygon: Points, z: int | None) -> list[int]:
    from skimage.measure import points_in_poly

    table, corners = editor.table, _points(polygon, 3)
    low, high = corners.min(axis=0), corners.max(axis=0)
    centres = table[["centroid_y", "centroid_x"]].to_numpy()
    near = ((centres >= low) & (centres <= high)).all(axis=1)
    if editor.labels.ndim == 3 and z is not None:
        near &= (table["bbox_z0"] <= z).to_numpy() & (table["bbox_z1"] > z).to_numpy()
    at = np.flatnonzero(near)
    chosen = at[points_in_poly(centres[at], corners)] if len(at) else at
    return [int(i) for i in table["id"].to_numpy()[chosen]]


def _by_area(editor: LabelEditor, polygon: Points, min_share: float, z: int | None) -> list[int]:
    labels = editor.labels if z is None or editor.labels.ndim == 2 else editor.labels[z]
    pixels = polygon_pixels(polygon, labels.shape)
    owners = labels[(..., *pixels)].ravel()
    counts = np.bincount(owners[owners > 0]) if len(owners) else np.zeros(0, np.int64)
    chosen = []
    for object_id in np.flatnonzero(counts).tolist():
        total = editor.index.count(object_id)
        if labels is not editor.labels:
            box = editor.index.box(object_id)[1:]
            total = int(np.count_nonzero(labels[box] == object_id))
        if counts[object_id] >= min_share * total:
            chosen.append(object_id)
    return chosen


def _points(points: Points, at_least: int) -> np.ndarray:
    array = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if array.ndim != 2 or array.shape[1] != 2 or len(array) < at_least:
        raise EditError(
            f"a drawing of shape {array.shape} has too few points, or not two numbers each; "
            f"draw at least {at_least}"
        )
    if not np.isfinite(array).all() or np.abs(array).max() > _FARTHEST_PX:
        raise EditError("the drawing lies outside every image; draw it again")
    return array


def _sampled(points: np.ndarray, step_px: float = 0.5) -> np.ndarray:
    """Points along the line, at most `step_px` apart."""
    if len(points) == 1:
        return points
    lengths = np.hypot(*np.diff(points, axis=0).T)
    distance = np.append(0, np.cumsum(lengths))
    at = np.linspace(0, distance[-1], int(np.ceil(distance[-1] / step_px)) + 1)
    at = np.union1d(at, distance)
    return np.stack([np.interp(at, distance, axis) for axis in points.T], axis=1)
