"""Add an object from a mask that another method found, such as SAM2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.drawing import Plane, in_image, pixel_at
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.index import moved
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import add_pixels, kind_by_hand
from napari_coseg.labels.editing.review import Reviewed


def check_free(
    editor: LabelEditor, point: Sequence[float], reviewed: Reviewed | None = None
) -> None:
    """Check that an object may be added at (y, x) or (z, y, x).

    Raises
    ------
    EditError
        Outside the image, on an object, and in a reviewed area.
    """
    pixel = pixel_at(point, editor.labels.shape)
    if editor.labels[pixel]:
        raise EditError(
            f"object {int(editor.labels[pixel])} is already there; click on background, or split it"
        )
    box = tuple(slice(at, at + 1) for at in pixel)
    if reviewed is not None and reviewed.objects.mask(box).any():
        raise EditError("this area is marked as reviewed; remove the mark to add objects")


def add_mask(
    editor: LabelEditor,
    mask: np.ndarray,
    corner: tuple[int, int],
    *,
    clicks: Sequence[Sequence[float]] = (),
    z: int | None = None,
    class_id: int = 0,
    reviewed: Reviewed | None = None,
) -> Edit:
    """Make a mask, with its holes filled, one object, without other objects and reviewed areas.

    If several pieces are left, the one under the first click that lies on a piece is taken, else
    the largest.

    Parameters
    ----------
    mask
        bool (Y, X).
    corner
        y and x of its first pixel in the plane; all of the mask must lie in the plane.
    clicks
        (y, x) each, in pixels of the labels.
    z
        The slice of a stack.

    Raises
    ------
    EditError
        Where no pixel is free, the mask leaves the image, or there is no such class.
    """
    from scipy.ndimage import binary_fill_holes, label

    box = tuple(slice(at, at + size) for at, size in zip(corner, mask.shape, strict=True))
    plane = editor.labels.shape[-2:]
    if any(p.start < 0 or p.stop > size for p, size in zip(box, plane, strict=True)):
        raise EditError(f"the mask lies at {corner}, outside the image of shape {plane}")
    taken = binary_fill_holes(mask) & _free(editor, box, z, reviewed)
    if not taken.any():
        raise EditError(
            "all that was found there is another object or reviewed; delete it, or remove the mark"
        )
    pieces, _ = label(taken, np.ones((3, 3)))
    under = (_piece_at(pieces, click, corner) for click in clicks)
    piece = next((one for one in under if one), 0)
    kept = pieces == piece if piece else taken
    pixels = moved(np.nonzero(kept), box)
    kind = kind_by_hand(editor, class_id)[0]
    at = None if z is None else Plane(0, z)
    return add_pixels(editor, "Add an object", in_image(pixels, editor.labels, at), kind)


def _free(
    editor: LabelEditor, box: tuple[slice, ...], z: int | None, reviewed: Reviewed | None
) -> np.ndarray:
    if editor.labels.ndim == 2:
        z = None
    elif z is None or not 0 <= z < editor.labels.shape[0]:
        raise EditError(f"slice {z} is not in the stack of {editor.labels.shape[0]}")
    where = box if z is None else (slice(z, z + 1), *box)
    free: np.ndarray = editor.labels[where] == 0
    if reviewed is not None and reviewed.objects:
        free &= ~reviewed.objects.mask(where)
    return free.reshape(free.shape[-2:])


def _piece_at(pieces: np.ndarray, click: Sequence[float], corner: tuple[int, int]) -> int:
    at = [round(float(value)) - start for value, start in zip(click, corner, strict=True)]
    inside = all(0 <= one < size for one, size in zip(at, pieces.shape, strict=True))
    return int(pieces[at[0], at[1]]) if inside else 0
