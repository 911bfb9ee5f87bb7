"""Split objects along a drawn line, or by clicks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.changes import change_pixels, joined
from napari_coseg.labels.editing.drawing import (
    Plane,
    Points,
    cut_pixels,
    pixel_at,
    plane_of,
    prolonged,
)
from napari_coseg.labels.editing.edit import Box, Edit
from napari_coseg.labels.editing.index import inside, moved
from napari_coseg.labels.editing.label_editor import Kind, LabelEditor, known_ids

_HALF_PIXEL = 0.5


def split_along(
    editor: LabelEditor,
    line: Points,
    ids: Collection[int] | None = None,
    min_piece_px: int = 4,
    plane: Plane | None = None,
) -> Edit:
    """Cut objects along a line from side to side.

    The pieces are the connected parts (by edges or corners) without the line; the line's pixels,
    and pieces below `min_piece_px`, then join the nearest piece within the object. The largest
    piece keeps the id; all keep the class.

    In a stack the line is drawn in a plane, and objects are cut straight through the stack, across
    that plane. Only objects that the line parts in the plane are cut, and only into the pieces that
    are seen there: pieces beyond it join the nearest of them. Where an object is wider in other
    planes than the line is long, the cut goes on in the direction of the line's ends.

    Parameters
    ----------
    line
        (n, 2): y, x, or along the axes of the plane.
    ids
        Which objects; None: all that the line splits.
    plane
        Of the line; required in a stack.

    Raises
    ------
    EditError
        Where the line splits none of them.
    """
    shown = plane_of(editor.labels, plane)
    plane = plane if editor.labels.ndim == 3 else None
    cut = cut_pixels(line, shown.shape)
    crossed = {int(i) for i in np.unique(shown[cut]) if i}
    if ids is not None:
        crossed &= set(known_ids(editor, ids))
    found = {}
    for object_id in sorted(crossed):
        pieces = _cut(editor, object_id, cut, min_piece_px, plane)
        if plane is not None and pieces.max() == 1:
            beyond = cut_pixels(prolonged(line, shown.shape), shown.shape)
            if _parts_section(editor, object_id, cut, plane):
                pieces = _cut(editor, object_id, beyond, min_piece_px, plane)
        if pieces.max() > 1:
            found[object_id] = pieces
    if not found:
        raise EditError(
            "the line splits no object; draw it from one side of an object to the other"
        )
    return _split(editor, "Split along a line", found)


def split_at(editor: LabelEditor, points: Sequence[Sequence[float]]) -> Edit:
    """Split one object by two or more clicks, one in each part: (y, x) or (z, y, x).

    A pixel joins the click with the cheapest path to it within the object; a step costs more the
    nearer it is to the outline. So parts meet at a neck, or halfway where there is none. A
    watershed on the distance to the outline would give nearly all of an object without a neck to
    one click (`benchmarks/editing.py` compares both).

    Raises
    ------
    EditError
        Where clicks lie on background, on more than one object, or on one pixel.
    """
    pixels = sorted({pixel_at(point, editor.labels.shape) for point in points})
    if len(pixels) < 2:
        raise EditError("one click does not say where to split; click once in each part")
    owners = {int(editor.labels[pixel]) for pixel in pixels}
    if len(owners) > 1 or 0 in owners:
        raise EditError(
            f"the clicks lie on {sorted(owners)}, where 0 is background; click twice or more "
            "in one object"
        )
    (object_id,) = owners
    box = editor.index.box(object_id)
    mask = editor.labels[box] == object_id
    pieces = _nearest_click(editor, mask, moved(np.array(pixels).T, box, -1))
    return _split(editor, f"Split object {object_id}", {object_id: _nearest(pieces, mask)})


def _nearest_click(
    editor: LabelEditor, mask: np.ndarray, clicks: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Number 1..k of the click with the cheapest path; 0 where there is none."""
    from scipy.ndimage import distance_transform_edt
    from skimage.graph import MCP_Geometric

    sampling = np.asarray(editor.pixel_size_um) / editor.pixel_size_um[-1]
    core = (slice(1, -1),) * mask.ndim
    depth = distance_transform_edt(np.pad(mask, 1), sampling=sampling)[core]
    cost = np.where(mask, 1 / (depth + _HALF_PIXEL), -1.0)  # below 0: not passable
    ways = [
        MCP_Geometric(cost, sampling=tuple(sampling)).find_costs([click])[0]
        for click in zip(*(axis.tolist() for axis in clicks), strict=True)
    ]
    return np.where(np.isfinite(np.min(ways, axis=0)), np.argmin(ways, axis=0) + 1, 0) * mask


def _cut(
    editor: LabelEditor,
    object_id: int,
    cut: tuple[np.ndarray, np.ndarray],
    min_piece_px: int,
    plane: Plane | None,
) -> np.ndarray:
    """Pieces 1..k of the object in its box, 0 elsewhere."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    box = editor.index.box(object_id)
    mask = editor.labels[box] == object_id
    pieces, _ = ndimage.label(_without(mask, box, cut, plane), np.ones((3,) * mask.ndim))
    large = np.bincount(pieces.ravel()) >= min_piece_px
    if plane is not None:
        seen = plane._replace(at=plane.at - box[plane.axis].start).of(pieces)
        large &= np.bincount(seen.ravel(), minlength=len(large)) > 0
    large[0] = False
    markers = (np.cumsum(large) * large).astype(np.int32)[pieces]
    # On a flat image the flood advances equally from all pieces, so a pixel joins the nearest.
    flooded = watershed(np.zeros_like(markers), markers, connectivity=mask.ndim, mask=mask)
    return _nearest(flooded, mask)


def _without(
    mask: np.ndarray, box: Box, cut: tuple[np.ndarray, ...], plane: Plane | None
) -> np.ndarray:
    """The mask without the pixels of a cut, through all of its planes along the axis of `plane`."""
    flat = box if plane is None else plane.in_plane(box)
    here = moved((axis[inside(cut, flat)] for axis in cut), flat, -1)
    left = mask.copy()
    planes = left if plane is None else np.moveaxis(left, plane.axis, 0)
    where: tuple[Any, ...] = (..., *here)
    planes[where] = False
    return left


def _parts_section(
    editor: LabelEditor, object_id: int, cut: tuple[np.ndarray, np.ndarray], plane: Plane
) -> bool:
    """Whether the cut makes more pieces of the object in the plane than there were."""
    from scipy import ndimage

    box = plane.in_plane(editor.index.box(object_id))
    section = plane.of(editor.labels)[box] == object_id
    before, after = (
        ndimage.label(mask, np.ones((3, 3)))[1]
        for mask in (section, _without(section, box, cut, None))
    )
    return bool(after > before)


def _nearest(pieces: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Give unlabelled pixels, those of parts not connected to a piece, to the nearest piece."""
    from scipy.ndimage import distance_transform_edt

    left = mask & (pieces == 0)
    if not left.any() or not pieces.any():
        return pieces
    nearest = distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
    pieces[left] = pieces[tuple(nearest)][left]
    return pieces


def _split(editor: LabelEditor, name: str, found: dict[int, np.ndarray]) -> Edit:
    """The edit that makes separate objects of pieces 1..k in each object's box."""
    parts, kinds = [], {}
    new_ids = iter(editor.free_ids(sum(int(pieces.max()) - 1 for pieces in found.values())))
    rows = editor.rows(found)
    columns = (rows[column].tolist() for column in ("class_id", "class_probability"))
    for (object_id, pieces), *kind in zip(sorted(found.items()), *columns, strict=True):
        sizes = np.bincount(pieces.ravel())
        ids = np.zeros(len(sizes), dtype=editor.labels.dtype)
        largest = 1 + int(sizes[1:].argmax())
        for piece in range(1, len(sizes)):
            ids[piece] = object_id if piece == largest else next(new_ids)
            kinds[int(ids[piece])] = Kind(*kind)
        changes = np.nonzero((pieces > 0) & (pieces != largest))
        parts.append((moved(changes, editor.index.box(object_id)), ids[pieces[changes]]))
    return change_pixels(editor, name, *joined(parts, editor.labels.shape), kinds=kinds)
