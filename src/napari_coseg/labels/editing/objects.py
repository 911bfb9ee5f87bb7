"""Edits of whole objects: merge, delete, classify, fill, smooth, paint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.changes import change_kinds, change_pixels, joined
from napari_coseg.labels.editing.drawing import Plane, Points, in_image, plane_of, polygon_pixels
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.index import moved, widened
from napari_coseg.labels.editing.label_editor import BY_HAND, Kind, LabelEditor, known_ids
from napari_coseg.labels.measure import UNTYPED

Outline = Literal["median", "open", "close"]


def merge(editor: LabelEditor, ids: Collection[int]) -> Edit:
    """Merge objects, which need not touch, into one.

    It keeps the id of the largest, so that the fewest pixels change. Its class is that of most of
    its area, its class probability the mean over the objects of this class, weighted by area.

    Raises
    ------
    EditError
        Where fewer than two objects are given.
    """
    ids = known_ids(editor, ids)
    if len(ids) < 2:
        raise EditError(f"only object {ids[0]} is chosen; choose two or more to merge")
    target = max(ids, key=lambda i: (editor.index.count(i), -i))
    indices, _ = editor.pixels([i for i in ids if i != target])
    kinds = {target: _merged_kind(editor, ids)}
    return change_pixels(editor, f"Merge {len(ids)} objects", indices, target, kinds=kinds)


def delete(editor: LabelEditor, ids: Collection[int]) -> Edit:
    """Remove objects: their pixels become background."""
    ids = known_ids(editor, ids)
    return change_pixels(editor, _name("Delete", ids), editor.pixels(ids)[0], 0)


def set_class(editor: LabelEditor, ids: Collection[int], class_id: int) -> Edit:
    """Give objects a class that a person chose, with a probability of 1.

    Raises
    ------
    EditError
        Where there is no such class. 0, no class, always exists.
    """
    kind, name = kind_by_hand(editor, class_id)
    return change_kinds(editor, f"Make {name}", known_ids(editor, ids), kind)


def fill_holes(editor: LabelEditor, ids: Collection[int]) -> Edit:
    """Fill the holes of objects; other objects inside stay.

    In a stack a hole is enclosed in three dimensions.
    """
    from scipy.ndimage import binary_fill_holes

    ids = known_ids(editor, ids)
    return _reshaped(editor, _name("Fill", ids), ids, [0] * editor.labels.ndim, binary_fill_holes)


def smooth(
    editor: LabelEditor, ids: Collection[int], radius_px: float = 2, how: Outline = "median"
) -> Edit:
    """Smooth outlines, in a stack in three dimensions.

    ``median``: a pixel follows the majority of the disk, or ball, around it; ``open`` and
    ``close``: morphological opening and closing with it. Only background is added. If an object
    would fall apart, its largest piece is kept; one that would vanish stays as it is.

    Parameters
    ----------
    radius_px
        In pixels along the last axis; along the others as far by the pixel size. So where slices
        are farther apart, they are smoothed one by one.

    Raises
    ------
    EditError
        For a radius that is not between 0 and 50, or another `how`.
    """
    if not 0 < radius_px <= 50:
        raise EditError(f"a radius of {radius_px} px cannot be used; choose one from 0 to 50")
    size = np.asarray(editor.pixel_size_um) / editor.pixel_size_um[-1]
    shapes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "median": lambda mask: _median(mask, radius_px, size),
        "open": lambda mask: _grown(~_grown(~mask, radius_px, size), radius_px, size),
        "close": lambda mask: ~_grown(~_grown(mask, radius_px, size), radius_px, size),
    }
    if how not in shapes:
        raise EditError(f"outlines cannot be smoothed by {how!r}; use one of {sorted(shapes)}")
    ids = known_ids(editor, ids)
    margin = [2 * int(np.ceil(radius_px / one)) + 1 for one in size]
    return _reshaped(editor, _name("Smooth", ids), ids, margin, shapes[how])


def add_polygon(
    editor: LabelEditor,
    polygon: Points,
    *,
    class_id: int = 0,
    extend: int | None = None,
    plane: Plane | None = None,
) -> Edit:
    """Make the background inside an outline an object, its largest piece if others cut it.

    Parameters
    ----------
    extend
        An object that gets the pixels instead, such as over the slices of a stack.

    Raises
    ------
    EditError
        Where no background is inside, or there is no such class.
    """
    drawn = polygon_pixels(polygon, plane_of(editor.labels, plane).shape)
    pixels = in_image(drawn, editor.labels, plane)
    free = editor.labels[pixels] == 0
    pixels = tuple(axis[free] for axis in pixels)
    if not len(pixels[0]):
        raise EditError("there is no background inside the outline; draw it around free pixels")
    if extend is not None:
        editor.index.box(extend)
        return change_pixels(editor, f"Extend object {extend}", pixels, extend)
    return add_pixels(editor, "Add an object", pixels, kind_by_hand(editor, class_id)[0])


def add_pixels(editor: LabelEditor, name: str, pixels: tuple[np.ndarray, ...], kind: Kind) -> Edit:
    """Make the largest connected piece of some background pixels a new object."""
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in pixels)
    mask = np.zeros([part.stop - part.start for part in box], dtype=bool)
    mask[moved(pixels, box, -1)] = True
    (new,) = editor.free_ids(1)
    indices = moved(np.nonzero(largest_piece(mask)), box)
    return change_pixels(editor, name, indices, new, kinds={new: kind})


def painted(
    editor: LabelEditor,
    atoms: Sequence[tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray | int]],
    class_id: int = 0,
) -> Edit:
    """The edit for what a brush has already painted into the labels: pixels and changed rows.

    Parameters
    ----------
    atoms
        ``(indices, old values, new values)`` in the order they were painted, as in the history of
        napari's Labels. A pixel may be painted more than once.
    class_id
        Of objects that are new.
    """
    indices, before, after = values_of(atoms, editor.labels.shape)
    kind = kind_by_hand(editor, class_id)[0]
    kinds = {int(i): kind for i in np.unique(after) if i and int(i) not in editor.index}
    return change_pixels(editor, "Paint", indices, after, old_values=before, kinds=kinds)


def values_of(
    atoms: Sequence[tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray | int]],
    shape: tuple[int, ...],
) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
    """All pixels that the atoms paint, each once, with the values before and after all of them.

    Read from the atoms, since napari may report a stroke before or after it writes the pixels.
    """
    before = [(indices, np.broadcast_to(old, np.shape(indices[0]))) for indices, old, _ in atoms]
    after = [(indices, np.broadcast_to(new, np.shape(indices[0]))) for indices, _, new in atoms]
    indices, first = joined(before, shape)
    _, last = joined(after[::-1], shape)
    return indices, first, last


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest piece of a mask whose pixels share edges or corners."""
    from scipy import ndimage

    pieces, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    if count < 2:
        return mask
    return pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()


def _reshaped(
    editor: LabelEditor,
    name: str,
    ids: list[int],
    margin: Sequence[int],
    shaped: Callable[[np.ndarray], np.ndarray],
) -> Edit:
    """Give each object another shape, made from its mask with a margin, only over background.

    One that was connected stays connected: the largest piece is kept.
    """
    parts = []
    for object_id in ids:
        box = widened(editor.index.box(object_id), margin, editor.labels.shape)
        crop = editor.labels[box]
        before = crop == object_id
        # The margin is needed at the image's border too, or the border would count as outline.
        inner = tuple(slice(m, m + size) for m, size in zip(margin, crop.shape, strict=True))
        padded = np.pad(before, [(m, m) for m in margin])
        after = shaped(padded)[inner] & (before | (crop == 0))
        if not after.any():
            continue
        if largest_piece(before).sum() == before.sum():
            after = largest_piece(after)
        changes = np.nonzero(after != before)
        values = np.where(after[changes], object_id, 0).astype(editor.labels.dtype)
        parts.append((moved(changes, box), values))
    return change_pixels(editor, name, *joined(parts, editor.labels.shape))


def _median(mask: np.ndarray, radius: float, size: np.ndarray) -> np.ndarray:
    from scipy.fft import irfftn, next_fast_len, rfftn

    reach = [np.arange(-int(radius / one), int(radius / one) + 1) * one for one in size]
    ball = sum(axis**2 for axis in np.meshgrid(*reach, indexing="ij", sparse=True)) <= radius**2
    # Votes are whole and the ball has an odd number of pixels, so rounding decides nothing.
    shape = [
        next_fast_len(a + b - 1, real=True) for a, b in zip(mask.shape, ball.shape, strict=True)
    ]
    votes = irfftn(rfftn(mask.astype(float), shape) * rfftn(ball.astype(float), shape), shape)
    core = tuple(slice(b // 2, b // 2 + a) for a, b in zip(mask.shape, ball.shape, strict=True))
    majority: np.ndarray = votes[core] > ball.sum() / 2
    return majority


def _grown(mask: np.ndarray, radius: float, size: np.ndarray) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask, sampling=size) <= radius if mask.any() else mask


def _merged_kind(editor: LabelEditor, ids: Collection[int]) -> Kind:
    areas: dict[int, int] = defaultdict(int)
    sums: dict[int, float] = defaultdict(float)
    rows = editor.rows(ids)
    columns = (rows[column].tolist() for column in ("id", "class_id", "class_probability"))
    for object_id, class_id, probability in zip(*columns, strict=True):
        area = editor.index.count(object_id)
        areas[class_id] += area
        sums[class_id] += area * probability
    winner = max(areas, key=lambda class_id: (areas[class_id], -class_id))
    return Kind(winner, sums[winner] / areas[winner])


def kind_by_hand(editor: LabelEditor, class_id: int) -> tuple[Kind, str]:
    """The kind of an object whose class a person chooses, and the name of the class."""
    names = {0: UNTYPED} | {entry.id: entry.name for entry in editor.classes}
    if class_id not in names:
        raise EditError(f"there is no class {class_id}; use one of {sorted(names)}")
    return (Kind(class_id, BY_HAND) if class_id else Kind()), names[class_id]


def _name(verb: str, ids: list[int]) -> str:
    return f"{verb} object {ids[0]}" if len(ids) == 1 else f"{verb} {len(ids)} objects"
