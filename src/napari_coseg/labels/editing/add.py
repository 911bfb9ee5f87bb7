"""Add the object under a click, grown on the model's maps of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.decoding.hover import HoverSettings, classify, decode_instances
from napari_coseg.labels.editing.add_mask import check_free
from napari_coseg.labels.editing.drawing import Plane, in_image, pixel_at
from napari_coseg.labels.editing.edit import Box, Edit
from napari_coseg.labels.editing.index import moved
from napari_coseg.labels.editing.label_editor import Kind, LabelEditor
from napari_coseg.labels.editing.objects import add_pixels, kind_by_hand
from napari_coseg.labels.editing.review import Reviewed

MIN_PROBABILITY = 0.05
"""Object probability below which no object is grown."""
_REACHES_PX = (48, 128, 384)


class _Grown(NamedTuple):
    """An object on the grid of the maps: its mask, bool, in a box of them."""

    mask: np.ndarray
    box: Box


def grow(
    editor: LabelEditor,
    point: Sequence[float],
    object_probability: np.ndarray,
    hv: np.ndarray,
    *,
    class_probability: np.ndarray | None = None,
    field: Box | None = None,
    class_id: int = 0,
    reviewed: Reviewed | None = None,
    settings: HoverSettings | None = None,
) -> Edit:
    """Add the object under a click on background.

    It is decoded as in a run, from pixels that belong to no object and no reviewed area. Where the
    probability under the click is low, the threshold is half of it, so that an object that the run
    missed can be added.

    Parameters
    ----------
    point
        (y, x), or (z, y, x) in a stack: in pixels of the labels. Grown within the slice.
    object_probability, hv, class_probability
        The model's maps of the plane or slice: float (Ym, Xm), 0..1; (2, Ym, Xm), -1..1; and
        (1 + T, Ym, Xm), background first, for the type. On any grid that covers the same field,
        such as the network's.
    field
        Rows and columns of the labels that the maps cover; None: all. The object ends there.
    class_id
        Of the object where there is no `class_probability`.
    settings
        Those of the run; their threshold is an upper limit here.

    Raises
    ------
    EditError
        Where the click lies on an object or a reviewed area, the model finds nothing there, or the
        maps do not fit together.
    """
    settings = settings or HoverSettings()
    pixel = pixel_at(point, editor.labels.shape)
    check_free(editor, point, reviewed)
    _check(object_probability, hv, class_probability)
    field = _field(field, pixel, editor.labels.shape[-2:])
    free = _free(editor, pixel, field, reviewed)
    here = tuple(at - part.start for at, part in zip(pixel[-2:], field, strict=True))
    factors = tuple(
        maps / labels for maps, labels in zip(object_probability.shape, free.shape, strict=True)
    )
    seed = _positions(np.array([here]).T, factors)
    seed_at = tuple(
        int(np.clip(np.rint(axis[0]), 0, size - 1))
        for axis, size in zip(seed, object_probability.shape, strict=True)
    )
    grown = _grown(object_probability, hv, seed_at, free, factors, settings)
    kind = kind_by_hand(editor, class_id)[0]
    if class_probability is not None and len(class_probability) > 1:
        class_ids, sure = classify(
            grown.mask.astype(np.int32), class_probability[(slice(None), *grown.box)]
        )
        kind = Kind(int(class_ids[0]), float(sure[0]))
    pixels = moved(_on_labels(grown, free, factors, here), field)
    return add_pixels(
        editor, "Add an object", in_image(pixels, editor.labels, Plane(0, pixel[0])), kind
    )


class _Free(NamedTuple):
    """Which pixels of the plane are free, read box by box."""

    labels: np.ndarray
    taken: np.ndarray | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labels.shape

    def at(self, where: tuple[np.ndarray | slice, ...]) -> np.ndarray:
        free = self.labels[where] == 0
        return free if self.taken is None else free & ~self.taken[where]


def _field(field: Box | None, pixel: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    if field is None:
        return tuple(slice(0, size) for size in shape)
    parts = zip(pixel[-2:], field, shape, strict=True)
    if not all(0 <= part.start <= at < part.stop <= size for at, part, size in parts):
        raise EditError(
            f"the maps cover rows and columns {[(part.start, part.stop) for part in field]}, the "
            f"click is at {pixel[-2:]} of {shape}; get maps of the part around the click"
        )
    return field


def _free(
    editor: LabelEditor, pixel: tuple[int, ...], field: Box, reviewed: Reviewed | None
) -> _Free:
    box = (*(slice(z, z + 1) for z in pixel[:-2]), *field)
    taken = None
    if reviewed is not None and reviewed.objects:
        taken = reviewed.objects.mask(box).reshape([part.stop - part.start for part in field])
    where: tuple[int | slice, ...] = (*pixel[:-2], *field)
    return _Free(editor.labels[where], taken)


def _grown(
    probability: np.ndarray,
    hv: np.ndarray,
    seed: tuple[int, ...],
    free: _Free,
    factors: tuple[float, ...],
    settings: HoverSettings,
) -> _Grown:
    """Decode windows around the seed until its object lies within one."""
    sure = float(probability[seed])
    if not sure >= MIN_PROBABILITY:
        raise EditError(
            f"the model finds no object there (probability {sure:.2f}); paint it instead"
        )
    threshold = min(settings.object_threshold, sure / 2)
    chosen = settings.model_copy(update={"object_threshold": threshold})
    for reach in _REACHES_PX:
        box = tuple(
            slice(max(at - reach, 0), min(at + reach + 1, size))
            for at, size in zip(seed, probability.shape, strict=True)
        )
        at = tuple(value - part.start for value, part in zip(seed, box, strict=True))
        window = np.where(_free_on_maps(box, free, factors), probability[box], 0)
        window[at] = sure
        connected = _piece_of(window >= threshold, at)
        labels = decode_instances(window * connected, hv[(slice(None), *box)], chosen)
        mask = labels == labels[at]
        if labels[at] and not _at_side(mask, box, probability.shape):
            break
    if not labels[at]:
        raise EditError("what the model finds there is too small for an object; paint it")
    return _Grown(mask, box)


def _piece_of(mask: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    from scipy.ndimage import label

    pieces, _ = label(mask, np.ones((3, 3)))
    return pieces == pieces[at]


def _free_on_maps(box: Box, free: _Free, factors: tuple[float, ...]) -> np.ndarray:
    """Which pixels of a box of the maps are free: those whose centre lies on a free pixel."""
    rows = [
        np.clip(np.rint((np.arange(p.start, p.stop) + 0.5) / f - 0.5), 0, size - 1).astype(np.int64)
        for p, f, size in zip(box, factors, free.shape, strict=True)
    ]
    return free.at(np.ix_(*rows))


def _on_labels(
    grown: _Grown, free: _Free, factors: tuple[float, ...], click: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """Free pixels of the labels within the object, without holes, in one piece."""
    from scipy.ndimage import binary_fill_holes, map_coordinates

    inner = [np.flatnonzero(grown.mask.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    ranges = [
        np.arange(
            max(int(np.floor((part.start + low) / f)) - 1, 0),
            min(int(np.ceil((part.start + high + 1) / f)) + 1, size),
        )
        for part, (low, high), f, size in zip(grown.box, inner, factors, free.shape, strict=True)
    ]
    box = tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in ranges)
    at = [
        _positions(axis, f) - part.start
        for axis, f, part in zip(ranges, factors, grown.box, strict=True)
    ]
    grid = np.meshgrid(*at, indexing="ij")
    inside = map_coordinates(grown.mask.astype(np.float32), grid, order=1, mode="nearest") >= 0.5
    here = tuple(value - part.start for value, part in zip(click, box, strict=True))
    inside[here] = True
    taken = binary_fill_holes(inside) & free.at(box)
    return moved(np.nonzero(_piece_of(taken, here)), box)


def _positions(pixels: np.ndarray, factor: float | tuple[float, ...]) -> np.ndarray:
    """Where centres of pixels of the labels lie on the grid of the maps."""
    scale = np.asarray(factor)
    return (pixels + 0.5) * (scale[:, None] if scale.ndim else scale) - 0.5


def _at_side(mask: np.ndarray, box: Box, shape: tuple[int, ...]) -> bool:
    """Whether the mask reaches a side of the box that is not the image's."""
    return any(
        (part.start > 0 and bool(mask.take(0, axis).any()))
        or (part.stop < size and bool(mask.take(-1, axis).any()))
        for axis, (part, size) in enumerate(zip(box, shape, strict=True))
    )


def _check(probability: np.ndarray, hv: np.ndarray, types: np.ndarray | None) -> None:
    fits = probability.ndim == 2 and hv.shape == (2, *probability.shape)
    if not fits or (types is not None and types.shape[1:] != probability.shape):
        raise EditError(
            f"maps of shape {probability.shape}, {hv.shape} and "
            f"{None if types is None else types.shape} do not fit together; expected (Y, X), "
            "(2, Y, X) and (1 + T, Y, X)"
        )
