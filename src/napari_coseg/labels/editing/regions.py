"""Edits of regions: lasso, bucket fill, specks and holes, and the strokes of a brush."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.decoding.semantic import remove_small_regions
from napari_coseg.labels.editing.changes import change_regions
from napari_coseg.labels.editing.drawing import (
    Plane,
    Points,
    in_image,
    pixel_at,
    plane_of,
    polygon_pixels,
)
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.index import moved
from napari_coseg.labels.editing.label_editor import LabelEditor, regions_of
from napari_coseg.labels.editing.objects import values_of

_FIRST_REACH_PX = 256


def set_region(
    editor: LabelEditor, polygon: Points, class_id: int, plane: Plane | None = None
) -> Edit:
    """Give all pixels inside an outline a region class; 0 is background."""
    name = _class_name(editor, class_id)
    regions = regions_of(editor)
    drawn = polygon_pixels(polygon, plane_of(regions, plane).shape)
    pixels = in_image(drawn, regions, plane)
    return change_regions(editor, f"Make a region {name}", pixels, class_id)


def fill_region(
    editor: LabelEditor, point: Sequence[float], class_id: int, across: int = 0
) -> Edit:
    """Give the connected piece of one class under a click, (y, x) or (z, y, x), another class.

    Pieces are connected by edges of pixels, within the plane across the axis `across` of a stack: 0
    for its slices. Reads only as far as the piece extends.
    """
    regions, name = regions_of(editor), _class_name(editor, class_id)
    pixel = pixel_at(point, regions.shape)
    plane = Plane(across, pixel[across]) if regions.ndim == 3 else None
    at = pixel if plane is None else (*pixel[:across], *pixel[across + 1 :])
    pixels = in_image(_piece_at(plane_of(regions, plane), at), regions, plane)
    return change_regions(editor, f"Fill with {name}", pixels, class_id)


def clean_regions(editor: LabelEditor, min_area_um2: float = 0, min_hole_um2: float = 0) -> Edit:
    """Clear specks of regions and fill holes below an area, by the rule of a run.

    `Edit.mask` is its preview. Reads every pixel: not interactive on a large image.

    Parameters
    ----------
    min_area_um2
        Pieces of one class below this become background. Of a stack in each slice.
    min_hole_um2
        Enclosed background below this takes the class around it.
    """
    if not (0 <= min_area_um2 < np.inf and 0 <= min_hole_um2 < np.inf):
        raise EditError(f"areas {min_area_um2} and {min_hole_um2} um2 must be 0 or more")
    regions = regions_of(editor)
    if int(regions.max(initial=0)) > 255:
        raise EditError("there are region classes above 255; renumber them")
    pixel_area = editor.pixel_size_um[-1] * editor.pixel_size_um[-2]
    area_px, hole_px = (int(np.ceil(um2 / pixel_area)) for um2 in (min_area_um2, min_hole_um2))
    planes = regions if regions.ndim == 3 else regions[None]
    cleaned = [remove_small_regions(plane.astype(np.uint8), area_px, hole_px) for plane in planes]
    found = [np.nonzero(new != old) for new, old in zip(cleaned, planes, strict=True)]
    slices = np.repeat(np.arange(len(found)), [len(y) for y, _ in found])
    y, x = (np.concatenate(axis) for axis in zip(*found, strict=True))
    values = np.concatenate([new[at] for new, at in zip(cleaned, found, strict=True)])
    indices = (slices, y, x) if regions.ndim == 3 else (y, x)
    return change_regions(editor, "Remove specks and holes", indices, values)


def painted_regions(
    editor: LabelEditor,
    atoms: Sequence[tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray | int]],
) -> Edit:
    """The edit for what a brush has already painted into the regions; see `objects.painted`."""
    indices, before, after = values_of(atoms, regions_of(editor).shape)
    return change_regions(editor, "Paint regions", indices, after, old_values=before)


def _class_name(editor: LabelEditor, class_id: int) -> str:
    names = {0: "background"} | {entry.id: entry.name for entry in editor.region_classes}
    if class_id not in names:
        raise EditError(f"there is no region class {class_id}; use one of {sorted(names)}")
    return names[class_id]


def _piece_at(plane: np.ndarray, pixel: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the piece, searched in increasingly large windows."""
    from skimage.segmentation import flood

    reach = _FIRST_REACH_PX
    while True:
        box = tuple(
            slice(max(at - reach, 0), min(at + reach + 1, size))
            for at, size in zip(pixel, plane.shape, strict=True)
        )
        at = tuple(value - part.start for value, part in zip(pixel, box, strict=True))
        y, x = moved(np.nonzero(flood(plane[box], at, connectivity=1)), box)
        if not _reaches_on((y, x), box, plane.shape):
            return y, x
        reach *= 4


def _reaches_on(
    pixels: tuple[np.ndarray, ...], box: tuple[slice, ...], shape: Sequence[int]
) -> bool:
    """Whether pixels lie at a side of the box that is not the image's."""
    return any(
        (part.start > 0 and int(axis.min()) == part.start)
        or (part.stop < size and int(axis.max()) == part.stop - 1)
        for axis, part, size in zip(pixels, box, shape, strict=True)
    )
