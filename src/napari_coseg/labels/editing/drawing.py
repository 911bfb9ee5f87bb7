"""Drawn strokes and outlines to pixels and objects.

Positions are in pixels of the labels, a pixel's centre at whole numbers. Drawings lie in a plane;
in a stack `Plane` says in which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.edit import Box
from napari_coseg.labels.editing.index import around, counted
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.polygons import inside

Points = np.ndarray | Sequence[Sequence[float]]
"""(n, 2): along the two axes of the plane, in the order of the image's axes; y, x of a slice z."""
_FARTHEST_PX = 1e6


class Plane(NamedTuple):
    """A plane of a stack: all pixels with one index along one axis.

    axis   0 for slices z (y, x in the plane), 1 for y (z, x), 2 for x (z, y)
    at     index along this axis
    """

    axis: int
    at: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The plane of a stack, a view (Y, X), (Z, X) or (Z, Y)."""
        view: np.ndarray = image[(slice(None),) * self.axis + (self.at,)]
        return view

    def in_plane(self, of_stack: Sequence[slice]) -> Box:
        """What a box of the stack covers in its planes along this axis."""
        return (*of_stack[: self.axis], *of_stack[self.axis + 1 :])


def plane_of(image: np.ndarray, plane: Plane | None) -> np.ndarray:
    """The plane of a stack, or the image where it is one.

    Raises
    ------
    EditError
        Where the plane of a stack is not given, or does not exist.
    """
    if image.ndim == 2:
        return image
    if plane is None or not (0 <= plane.axis < 3 and 0 <= plane.at < image.shape[plane.axis]):
        raise EditError(f"{plane} is not in the stack of shape {image.shape}; choose a slice in it")
    return plane.of(image)


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


def prolonged(line: Points, shape: Sequence[int]) -> np.ndarray:
    """The line (n, 2), continued at both ends, as its last quarter runs, to beyond the plane."""
    path = _sampled(_points(line, 2))
    quarter = max(len(path) // 4, 1)
    ends = []
    for end, inner in ((path[0], path[quarter]), (path[-1], path[-1 - quarter])):
        length = max(float(np.hypot(*(end - inner))), 1e-6)
        ends.append(end + (end - inner) / length * sum(shape))
    return np.vstack([ends[0], path, ends[1]])


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
    pixels: tuple[np.ndarray, ...], image: np.ndarray, plane: Plane | None
) -> tuple[np.ndarray, ...]:
    """Pixels of a plane as pixels of the image; raises `EditError` as `plane_of` does."""
    plane_of(image, plane)
    if image.ndim == 2 or plane is None:
        return pixels
    across = np.full(len(pixels[0]), plane.at, dtype=np.int64)
    return (*pixels[: plane.axis], across, *pixels[plane.axis :])


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
    editor: LabelEditor, points: Points, width_px: float = 1, plane: Plane | None = None
) -> list[int]:
    """Objects that a stroke touches, in the plane alone, ordered by id."""
    labels = plane_of(editor.labels, plane)
    return _ids(labels[stroke_pixels(points, width_px, labels.shape)])


def ids_inside_polygon(
    editor: LabelEditor,
    polygon: Points,
    *,
    by: Literal["centroid", "area"] = "centroid",
    min_share: float = 0.5,
    plane: Plane | None = None,
) -> list[int]:
    """Objects inside a lasso, ordered by id.

    Parameters
    ----------
    by
        ``centroid``: those whose centroid is inside. ``area``: those with at least `min_share` of
        their pixels inside.
    plane
        In a stack the plane of the lasso: only objects in it are chosen, and only their pixels
        there count, for centroids too. None: the lasso is drawn along y, x for all slices.
    """
    if by == "centroid":
        return _by_centroid(editor, polygon, plane)
    if by == "area":
        return _by_area(editor, polygon, min_share, plane)
    raise EditError(f"objects cannot be chosen by {by!r}; use 'centroid' or 'area'")


def _by_centroid(editor: LabelEditor, polygon: Points, plane: Plane | None) -> list[int]:
    from skimage.measure import points_in_poly

    corners = _points(polygon, 3)
    if editor.labels.ndim == 3 and plane is not None:
        ids, centres = _sections(editor, polygon, plane)
    else:
        ids = editor.table["id"].to_numpy()
        centres = editor.table[["centroid_y", "centroid_x"]].to_numpy()
    near = (centres >= corners.min(axis=0)) & (centres <= corners.max(axis=0))
    at = np.flatnonzero(near.all(axis=1))
    chosen = at[points_in_poly(centres[at], corners)] if len(at) else at
    return [int(i) for i in ids[chosen]]


def _sections(editor: LabelEditor, polygon: Points, plane: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Objects that have pixels inside an outline, and centroids (n, 2) of their sections."""
    labels = plane_of(editor.labels, plane)
    ids = _ids(labels[polygon_pixels(polygon, labels.shape)])
    if not ids:
        return np.zeros(0, np.int64), np.zeros((0, 2))
    box = around(plane.in_plane(editor.index.box(i)) for i in ids)
    crop = labels[box]
    pixels = np.nonzero(np.isin(crop, ids))
    owners = np.searchsorted(ids, crop[pixels])
    centres = [
        np.bincount(owners, axis + part.start) / np.bincount(owners)
        for axis, part in zip(pixels, box, strict=True)
    ]
    return np.array(ids), np.stack(centres, axis=1)


def _by_area(
    editor: LabelEditor, polygon: Points, min_share: float, plane: Plane | None
) -> list[int]:
    labels = editor.labels if plane is None else plane_of(editor.labels, plane)
    owners = labels[(..., *polygon_pixels(polygon, labels.shape[-2:]))].ravel()
    counts = counted(owners)
    chosen = []
    for object_id, count in counts.items():
        total = editor.index.count(object_id)
        if plane is not None and editor.labels.ndim == 3:
            section = labels[plane.in_plane(editor.index.box(object_id))]
            total = int(np.count_nonzero(section == object_id))
        if count >= min_share * total:
            chosen.append(object_id)
    return chosen


def _ids(values: np.ndarray) -> list[int]:
    return [int(i) for i in np.unique(values) if i]


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
