"""Tables of what was found: one row an object, one row a region class.

Every number comes from counting pixels by label, a band of rows at a time: no object costs a pass
over the image, and no temporary array is as large as it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass

if TYPE_CHECKING:
    import pandas as pd

OBJECT_COLUMNS = (
    "id",
    "class_id",
    "class",
    "class_probability",
    "region_id",
    "region",
    "area_um2",
    "centroid_y",
    "centroid_x",
    "bbox_y0",
    "bbox_x0",
    "bbox_y1",
    "bbox_x1",
)
"""Columns of a plane's object table. Centroids and half-open boxes are in pixels of the labels."""

STACK_OBJECT_COLUMNS = (
    *OBJECT_COLUMNS[:6],
    "area_um2",
    "volume_um3",
    "centroid_z",
    "centroid_y",
    "centroid_x",
    "bbox_z0",
    "bbox_y0",
    "bbox_x0",
    "bbox_z1",
    "bbox_y1",
    "bbox_x1",
)
"""Columns of a stack's. ``area_um2`` is the largest cross section, ``volume_um3`` the sum."""

UNTYPED = "object"
"""``class`` of an object whose model knows no types."""
BACKGROUND = "background"
ROWS_AT_ONCE = 512


def object_table(
    labels: np.ndarray,
    semantic: np.ndarray | None = None,
    *,
    pixel_size_um: Sequence[float],
    class_ids: np.ndarray | None = None,
    class_probabilities: np.ndarray | None = None,
    classes: Sequence[LabelClass] = (),
    semantic_classes: Sequence[LabelClass] = (),
) -> pd.DataFrame:
    """Measure every object of a label image.

    Parameters
    ----------
    labels
        Whole numbers, (Y, X) or (Z, Y, X), 0 is background. Ids may have holes: one row each id
        that is there.
    semantic
        Region class ids on the same grid; an object lies in the region that holds most of its
        pixels (the lower id on a tie).
    pixel_size_um
        Along the axes of `labels`.
    class_ids, class_probabilities
        (largest id,): entry ``id - 1`` belongs to the object `id`.
    classes, semantic_classes
        Names of ``class_id`` and of the values of `semantic`.

    Returns
    -------
    pandas.DataFrame
        Columns `OBJECT_COLUMNS`, or `STACK_OBJECT_COLUMNS` for a stack.
    """
    import pandas as pd

    largest = int(labels.max(initial=0))
    n_regions = max((entry.id for entry in semantic_classes), default=0) + 1
    if semantic is not None:
        n_regions = max(n_regions, int(semantic.max(initial=0)) + 1)
    counts = _Counts(largest, n_regions)
    for offset, band in _bands(labels):
        regions = None if semantic is None else _same_part(semantic, offset, band)
        counts.add(band, offset, regions)
    ids = np.flatnonzero(counts.pixels[1:]) + 1
    at = ids - 1
    class_of = np.zeros(largest, np.int64) if class_ids is None else np.asarray(class_ids)
    sure = np.full(largest, np.nan) if class_probabilities is None else class_probabilities
    values = {
        **_shape_columns(counts, ids, _boxes(labels, ids), pixel_size_um),
        "id": ids,
        "class_id": class_of[at],
        "class": _names(class_of[at], classes, UNTYPED),
        "class_probability": np.asarray(sure, dtype=np.float64)[at],
    }
    values["region"] = _names(values["region_id"], semantic_classes, BACKGROUND)
    columns = STACK_OBJECT_COLUMNS if labels.ndim == 3 else OBJECT_COLUMNS
    return pd.DataFrame({column: values[column] for column in columns})


def table_of_pixels(
    coordinates: Sequence[np.ndarray],
    ids: np.ndarray,
    regions: np.ndarray | None = None,
    *,
    pixel_size_um: Sequence[float],
    class_ids: np.ndarray,
    class_probabilities: np.ndarray,
    classes: Sequence[LabelClass] = (),
    semantic_classes: Sequence[LabelClass] = (),
) -> pd.DataFrame:
    """Measure objects given as lists of pixels: the same rows, bit by bit, as `object_table`'s.

    For what an edit touches: the cost is that of the pixels given, whatever the image's size.

    Parameters
    ----------
    coordinates
        One array (n,) an axis, in the order (z,) y, x; every pixel of an object, once.
    ids
        (n,): whose pixel each is, from 1 on.
    regions
        (n,): region class id at each pixel.
    pixel_size_um
        Along the axes of the labels.
    class_ids, class_probabilities
        One entry an object, in the order of ids (not by number, as in `object_table`).
    classes, semantic_classes
        As in `object_table`.
    """
    import pandas as pd

    found, number = np.unique(ids, return_inverse=True)
    n_regions = max((entry.id for entry in semantic_classes), default=0) + 1
    if regions is not None:
        n_regions = max(n_regions, int(regions.max(initial=0)) + 1)
    counts = _Counts(len(found), n_regions)
    y, x = coordinates[-2:]
    slices = coordinates[0] if len(coordinates) == 3 else np.zeros(len(ids), np.int64)
    for z in np.unique(slices):
        at = slices == z
        counts.add_pixels(
            int(z), y[at], x[at], number[at] + 1, None if regions is None else regions[at]
        )
    boxes = _boxes_of_pixels((slices, y, x), number)
    values = {
        **_shape_columns(counts, np.arange(len(found)) + 1, boxes, pixel_size_um),
        "id": found.astype(np.int64),
        "class_id": np.asarray(class_ids, dtype=np.int64),
        "class": _names(class_ids, classes, UNTYPED),
        "class_probability": np.asarray(class_probabilities, dtype=np.float64),
    }
    values["region"] = _names(values["region_id"], semantic_classes, BACKGROUND)
    columns = STACK_OBJECT_COLUMNS if len(coordinates) == 3 else OBJECT_COLUMNS
    return pd.DataFrame({column: values[column] for column in columns})


def _shape_columns(
    counts: _Counts, ids: np.ndarray, boxes: np.ndarray, pixel_size_um: Sequence[float]
) -> dict[str, Any]:
    """What counting gives: region, area, volume, centroid and box of the `ids` of `counts`."""
    stack = len(pixel_size_um) == 3
    pixel_area = float(pixel_size_um[-1] * pixel_size_um[-2])
    centroids = counts.sums[:, ids] / np.maximum(counts.pixels[ids], 1)
    values: dict[str, Any] = {
        "region_id": counts.regions[ids].argmax(axis=1),
        "area_um2": (counts.largest_section if stack else counts.pixels)[ids] * pixel_area,
        "volume_um3": counts.pixels[ids] * pixel_area * float(pixel_size_um[0]),
    }
    for axis, name in enumerate("zyx"):
        values[f"centroid_{name}"] = centroids[axis]
        values[f"bbox_{name}0"] = boxes[:, axis, 0]
        values[f"bbox_{name}1"] = boxes[:, axis, 1]
    return values


def with_positions(table: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """An object table with the centroids in the world, in columns such as ``world_y_um``.

    ``world_z_mm`` and so on of volumes of a patient: to the head, to the back, to the left.
    """
    axes = geometry.axes.lower()
    index = table[[f"centroid_{axis}" for axis in axes]].to_numpy(float)
    positions = geometry.world(index).T
    names = [f"world_{axis}_{geometry.unit}" for axis in axes]
    return table.assign(**dict(zip(names, positions, strict=True)))


def region_table(
    semantic: np.ndarray,
    table: pd.DataFrame,
    *,
    pixel_size_um: Sequence[float],
    semantic_classes: Sequence[LabelClass],
) -> pd.DataFrame:
    """Area, objects and objects an area of every region class, background first.

    ``area_um2`` of a stack is summed over its slices; ``volume_um3`` is given beside it, and the
    density is objects per mm2 or per mm3.
    """
    import pandas as pd

    ids = [0, *(entry.id for entry in semantic_classes)]
    pixels = np.zeros(max(ids) + 1, np.int64)
    for _, band in _bands(semantic):
        pixels += np.bincount(band.ravel(), minlength=pixels.size)[: pixels.size]
    area = pixels[ids] * float(pixel_size_um[-1] * pixel_size_um[-2])
    objects = np.bincount(table["region_id"], minlength=pixels.size)[ids]
    values: dict[str, object] = {
        "region_id": ids,
        "region": _names(np.asarray(ids), semantic_classes, BACKGROUND),
        "area_um2": area,
        "objects": objects,
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        if semantic.ndim == 3:
            volume = area * float(pixel_size_um[0])
            values["volume_um3"] = volume
            values["objects_per_mm3"] = np.where(volume > 0, objects / (volume * 1e-9), np.nan)
        else:
            values["objects_per_mm2"] = np.where(area > 0, objects / (area * 1e-6), np.nan)
    return pd.DataFrame(values)


class _Counts:
    """Pixels, sums of coordinates and region votes by id, filled a band at a time."""

    def __init__(self, largest: int, n_regions: int) -> None:
        self.pixels = np.zeros(largest + 1, np.int64)
        self.sums = np.zeros((3, largest + 1))
        self.regions = np.zeros((largest + 1, n_regions), np.int64)
        self.largest_section = np.zeros(largest + 1, np.int64)
        self._section = np.zeros(largest + 1, np.int64)
        self._slice = 0

    def add(self, band: np.ndarray, offset: tuple[int, int], regions: np.ndarray | None) -> None:
        """Count a band of rows that begins at `offset` (z, y)."""
        y, x = np.nonzero(band)
        part = None if regions is None else regions[y, x]
        self.add_pixels(offset[0], y + offset[1], x, band[y, x], part)

    def add_pixels(
        self, z: int, y: np.ndarray, x: np.ndarray, ids: np.ndarray, regions: np.ndarray | None
    ) -> None:
        """Count pixels of one slice; all of a slice before the next."""
        if not y.size:
            return
        if z != self._slice:
            self._slice = z
            self._section[:] = 0
        # Ids of a band lie close together, so count only between its smallest and largest.
        low, span = int(ids.min()), int(ids.max()) - int(ids.min()) + 1
        number = ids.astype(np.int64) - low
        here = slice(low, low + span)
        pixels = np.bincount(number, minlength=span)
        self.pixels[here] += pixels
        self.sums[0, here] += pixels * z
        self.sums[1, here] += np.bincount(number, y, span)
        self.sums[2, here] += np.bincount(number, x, span)
        self._section[here] += pixels
        np.maximum(self.largest_section[here], self._section[here], out=self.largest_section[here])
        n_regions = self.regions.shape[1]
        votes = number * n_regions + (0 if regions is None else regions.astype(np.int64))
        self.regions[here] += np.bincount(votes, minlength=span * n_regions).reshape(span, -1)


def _bands(labels: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Bands of rows of every slice, with (z, y) of where each begins."""
    planes = labels if labels.ndim == 3 else labels[None]
    starts = range(0, planes.shape[1], ROWS_AT_ONCE)
    for z, y in itertools.product(range(planes.shape[0]), starts):
        yield (z, y), planes[z, y : y + ROWS_AT_ONCE]


def _same_part(other: np.ndarray, offset: tuple[int, int], band: np.ndarray) -> np.ndarray:
    plane = other[offset[0]] if other.ndim == 3 else other
    return plane[offset[1] : offset[1] + band.shape[0]]


def _boxes(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Half-open bounds of each id, int64 (n, 3, 2) in the order z, y, x; z is 0..1 in a plane."""
    from scipy import ndimage

    boxes = np.zeros((ids.size, 3, 2), np.int64)
    boxes[:, 0, 1] = 1
    if ids.size:
        found = ndimage.find_objects(labels)
        bounds = [[(part.start, part.stop) for part in found[i - 1]] for i in ids]
        boxes[:, 3 - labels.ndim :] = np.asarray(bounds)
    return boxes


def _boxes_of_pixels(coordinates: Sequence[np.ndarray], number: np.ndarray) -> np.ndarray:
    """The same from lists of pixels; `number` is 0..n-1, each of them there."""
    if not number.size:
        return np.zeros((0, 3, 2), np.int64)
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    sorted_axes = [np.asarray(axis, np.int64)[order] for axis in coordinates]
    low = [np.minimum.reduceat(axis, starts) for axis in sorted_axes]
    high = [np.maximum.reduceat(axis, starts) + 1 for axis in sorted_axes]
    return np.stack([np.stack(low, axis=1), np.stack(high, axis=1)], axis=2)


def _names(ids: np.ndarray, classes: Sequence[LabelClass], otherwise: str) -> list[str]:
    names = {entry.id: entry.name for entry in classes}
    return [names.get(int(i), otherwise) for i in ids]
