"""Fill an object between the slices in which it was drawn."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.changes import change_pixels, joined
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.index import moved
from napari_coseg.labels.editing.label_editor import LabelEditor, known_ids

_MARGIN_PX = 1


def interpolate(editor: LabelEditor, ids: Collection[int], axis: int = 0) -> Edit:
    """Fill objects in the planes, along an axis of a stack, between two in which they have pixels.

    Shape-based interpolation (Raya and Udupa 1990, IEEE Trans. Med. Imaging 9:32): between two
    sections the signed distance to the outline is interpolated linearly, and its inside filled.
    Sections are first put onto each other by their centroids, and shifted back, so that slanted
    objects do not become thin or vanish between sections far apart. Only background is filled.

    Parameters
    ----------
    axis
        0: between slices z; 1 and 2: between planes along y and x.

    Raises
    ------
    EditError
        In a single image, and where no object has a gap.
    """
    ids = known_ids(editor, ids)
    if editor.labels.ndim != 3:
        raise EditError("a single image has no slices to interpolate between; open a stack")
    parts = [_filled(editor, object_id, axis) for object_id in ids]
    parts = [part for part in parts if len(part[1])]
    if not parts:
        raise EditError(
            f"there is no gap between slices along {'zyx'[axis]}; paint the object in two slices "
            "with empty ones between"
        )
    name = f"object {ids[0]}" if len(ids) == 1 else f"{len(ids)} objects"
    return change_pixels(editor, f"Interpolate {name}", *joined(parts, editor.labels.shape))


def _filled(
    editor: LabelEditor, object_id: int, axis: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Background pixels of the gaps that become the object's, and their new values."""
    box = editor.index.box(object_id)
    crop = editor.labels[box]
    mask = np.moveaxis(crop == object_id, axis, 0)
    drawn = np.flatnonzero(mask.any(axis=(1, 2)))
    new = np.zeros_like(mask)
    size = np.delete(editor.pixel_size_um, axis)
    for low, high in itertools.pairwise(drawn):
        if high - low > 1:
            new[low + 1 : high] = between(mask[low], mask[high], int(high - low) - 1, size)
    new &= np.moveaxis(crop, axis, 0) == 0
    pixels = moved(np.nonzero(np.moveaxis(new, 0, axis)), box)
    return pixels, np.full(len(pixels[0]), object_id, editor.labels.dtype)


def between(
    first: np.ndarray, last: np.ndarray, count: int, pixel_size: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Sections between two, bool (count, Y, X), evenly spaced; each of the two has a pixel."""
    from scipy.ndimage import shift

    centres = [np.array([axis.mean() for axis in np.nonzero(mask)]) for mask in (first, last)]
    reach = int(np.ceil(np.abs(centres[1] - centres[0]).max())) + _MARGIN_PX
    distances = [_signed_distance(np.pad(mask, reach), pixel_size) for mask in (first, last)]
    found = np.zeros((count, *first.shape), dtype=bool)
    core = (slice(reach, -reach),) * 2
    for number in range(count):
        share = (number + 1) / (count + 1)
        middle = (1 - share) * centres[0] + share * centres[1]
        there = [
            shift(distance, middle - centre, order=1, mode="nearest")
            for distance, centre in zip(distances, centres, strict=True)
        ]
        found[number] = ((1 - share) * there[0] + share * there[1] > 0)[core]
    return found


def _signed_distance(mask: np.ndarray, pixel_size: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distance to the outline, above 0 inside."""
    from scipy.ndimage import distance_transform_edt

    inside, outside = (distance_transform_edt(m, sampling=pixel_size) for m in (mask, ~mask))
    distance: np.ndarray = inside - outside
    return distance
