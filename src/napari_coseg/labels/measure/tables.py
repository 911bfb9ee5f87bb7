"""Tables of objects and of region classes, one row each.

All numbers come from counting pixels by label, a band of rows at a time: there is no pass over the
image per object, and no temporary array of its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.measure.rows import ROWS_AT_ONCE, classes_of_ids, ids_in, row_lookup

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
"""Columns for a stack. ``area_um2`` is the largest cross section, ``volume_um3`` the sum."""

UNTYPED = "object"
"""``class`` of an object without a type."""
BACKGROUND = "background"
_UM3_IN_MM3 = 1e9


def object_table(
    labels: np.ndarray,
    semantic: np.ndarray | None = None,
    *,
    pixel_size_um: Sequence[float],
    known: pd.DataFrame | None = None,
    classes: Sequence[LabelClass] = (),
    semantic_classes: Sequence[LabelClass] = (),
) -> pd.DataFrame:
    """Measure every object of a label image.

    Memory grows with the number of objects, not with the largest id.

    Parameters
    ----------
    labels
        Whole numbers, (Y, X) or (Z, Y, X), 0 is background. Ids may have gaps: one row for each id
        that occurs.
    semantic
        Region class ids on the same grid; an object lies in the region that holds most of its
        pixels (the lower id on a tie).
    pixel_size_um
        Along the axes of `labels`.
    known
        Classes of objects: a table with ``id``, ``class_id`` and ``class_probability``, as
        `class_table` makes it or this function returns it. Objects without a row have no class;
        rows without an object are ignored.
    classes, semantic_classes
        Names of ``class_id`` and of the values of `semantic`.

    Returns
    -------
    pandas.DataFrame
        Columns `OBJECT_COLUMNS`, or `STACK_OBJECT_COLUMNS` for a stack, ordered by id.
    """
    ids = ids_in(labels)
    row_of = row_lookup(ids)
    counts = _Counts(len(ids), semantic)
    for (z, top), band in _bands(labels):
        y, x = np.nonzero(band)
        regions = None if semantic is None else _same_part(semantic, (z, top), band)[y, x]
        counts.add(z, y + top, x, row_of(band[y, x]), regions)
    class_ids, probabilities = classes_of_ids(known, ids)
    return _table(ids, counts, class_ids, probabilities, pixel_size_um, classes, semantic_classes)


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

    For what an edit changes: the cost is that of the pixels given, whatever the image's size.

    Parameters
    ----------
    coordinates
        One array (n,) for each axis, in the order (z,) y, x; every pixel of an object, once.
    ids
        (n,): whose pixel each is, from 1 on.
    regions
        (n,): region class id at each pixel.
    pixel_size_um
        Along the axes of the labels.
    class_ids, class_probabilities
        One entry for each object, in the order of ids.
    classes, semantic_classes
        As in `object_table`.
    """
    found, number = np.unique(ids, return_inverse=True)
    counts = _Counts(len(found), regions)
    y, x = coordinates[-2:]
    slices = coordinates[0] if len(coordinates) == 3 else np.zeros(len(ids), np.int64)
    order = np.argsort(slices, kind="stable")  # by slice, in one pass
    planes, starts = np.unique(slices[order], return_index=True)
    for z, at in zip(planes.tolist(), np.split(order, starts[1:]), strict=bool(len(planes))):
        counts.add(int(z), y[at], x[at], number[at] + 1, None if regions is None else regions[at])
    return _table(
        found.astype(np.int64),
        counts,
        np.asarray(class_ids, dtype=np.int64),
        np.asarray(class_probabilities, dtype=np.float64),
        pixel_size_um,
        classes,
        semantic_classes,
    )


def _table(
    ids: np.ndarray,
    counts: _Counts,
    class_ids: np.ndarray,
    probabilities: np.ndarray,
    pixel_size_um: Sequence[float],
    classes: Sequence[LabelClass],
    semantic_classes: Sequence[LabelClass],
) -> pd.DataFrame:
    import pandas as pd

    stack = len(pixel_size_um) == 3
    pixel_area = float(pixel_size_um[-1] * pixel_size_um[-2])
    region_ids = counts.region_ids
    values: dict[str, Any] = {
        "id": ids,
        "class_id": class_ids,
        "class": _names(class_ids, classes, UNTYPED),
        "class_probability": probabilities,
        "region_id": region_ids,
        "region": _names(region_ids, semantic_classes, BACKGROUND),
        "area_um2": (counts.largest_section if stack else counts.pixels) * pixel_area,
        "volume_um3": counts.pixels * pixel_area * float(pixel_size_um[0]),
    }
    for axis, name in enumerate("zyx"):
        values[f"centroid_{name}"] = counts.sums[axis] / np.maximum(counts.pixels, 1)
        values[f"bbox_{name}0"] = counts.first[axis]
        values[f"bbox_{name}1"] = counts.last[axis] + 1
    columns = STACK_OBJECT_COLUMNS if stack else OBJECT_COLUMNS
    return pd.DataFrame({column: values[column] for column in columns})


def with_positions(table: pd.DataFrame, geometry: Geometry) -> pd.DataFrame:
    """An object table with the centroids in the world, in columns such as ``world_y_um``.

    ``world_z_mm`` and so on of volumes of a patient: to the head, to the back, to the left. Tables
    of volumes in mm also get ``volume_mm3``, and the sides of the objects' boxes along the axes of
    the volume: ``extent_z_mm``, ``extent_y_mm``, ``extent_x_mm``.
    """
    axes = geometry.axes.lower()
    index = table[[f"centroid_{axis}" for axis in axes]].to_numpy(float)
    positions = geometry.world(index).T
    names = [f"world_{axis}_{geometry.unit}" for axis in axes]
    table = table.assign(**dict(zip(names, positions, strict=True)))
    if geometry.unit != "mm" or "volume_um3" not in table:
        return table
    sides = {
        f"extent_{axis}_mm": (table[f"bbox_{axis}1"] - table[f"bbox_{axis}0"]) * float(spacing)
        for axis, spacing in zip(axes, geometry.spacing, strict=True)
    }
    return table.assign(volume_mm3=table["volume_um3"] / _UM3_IN_MM3, **sides)


def region_table(
    semantic: np.ndarray,
    table: pd.DataFrame,
    *,
    pixel_size_um: Sequence[float],
    semantic_classes: Sequence[LabelClass],
) -> pd.DataFrame:
    """Area, number and density of objects of every region class, background first.

    ``area_um2`` of a stack is summed over its slices, and there is ``volume_um3``. Density is in
    objects per mm2, or per mm3 of a stack.
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
    """Pixels, sums and bounds of coordinates and region votes of each row, added up part by part.

    ``pixels`` and ``largest_section`` (rows,) are of the object and of its slice that has most;
    ``sums``, ``first`` and ``last`` (3, rows) are of z, y, x.

    Parameters
    ----------
    rows
        How many there are.
    regions
        Holds all region class ids that occur.
    """

    def __init__(self, rows: int, regions: np.ndarray | None) -> None:
        region_ids = ids_in(np.zeros(0, np.int64) if regions is None else regions)
        self._region_ids = np.concatenate([[0], region_ids])
        self._region_of = row_lookup(region_ids)
        self._votes = np.zeros((rows, len(self._region_ids)), np.int64)
        self.pixels, self.largest_section, self._section = np.zeros((3, rows), np.int64)
        self.sums = np.zeros((3, rows))
        self.first = np.full((3, rows), np.iinfo(np.int64).max)
        self.last = np.zeros((3, rows), np.int64)
        self._slice = 0

    def add(
        self, z: int, y: np.ndarray, x: np.ndarray, owners: np.ndarray, regions: np.ndarray | None
    ) -> None:
        """Count pixels of one slice; all of a slice before the next.

        Parameters
        ----------
        owners
            (n,): 1 + the row of each pixel's object.
        """
        if not y.size:
            return
        if z != self._slice:
            self._slice = z
            self._section[:] = 0
        # Rows of a band are close together, so count only between its smallest and largest.
        low, span = int(owners.min()) - 1, int(owners.max()) - int(owners.min()) + 1
        number = owners.astype(np.int64) - 1 - low
        here = slice(low, low + span)
        pixels = np.bincount(number, minlength=span)
        self.pixels[here] += pixels
        self._section[here] += pixels
        np.maximum(self.largest_section[here], self._section[here], out=self.largest_section[here])
        self.sums[0, here] += pixels * z
        self._bound(0, low + np.flatnonzero(pixels), np.int64(z))
        for axis, at in ((1, y), (2, x)):
            self.sums[axis, here] += np.bincount(number, at, span)
            self._bound(axis, number + low, at)
        n_regions = len(self._region_ids)
        votes = number * n_regions + (0 if regions is None else self._region_of(regions))
        self._votes[here] += np.bincount(votes, minlength=span * n_regions).reshape(span, -1)

    @property
    def region_ids(self) -> np.ndarray:
        """int64 (rows,): the region with most pixels of the object, the lower id on a tie."""
        found: np.ndarray = self._region_ids[self._votes.argmax(axis=1)]
        return found

    def _bound(self, axis: int, rows: np.ndarray, at: np.ndarray | np.int64) -> None:
        np.minimum.at(self.first[axis], rows, at)
        np.maximum.at(self.last[axis], rows, at)


def _bands(labels: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Bands of rows of every slice, with (z, y) of where each begins."""
    planes = labels if labels.ndim == 3 else labels[None]
    starts = range(0, planes.shape[1], ROWS_AT_ONCE)
    for z, y in itertools.product(range(planes.shape[0]), starts):
        yield (z, y), planes[z, y : y + ROWS_AT_ONCE]


def _same_part(other: np.ndarray, offset: tuple[int, int], band: np.ndarray) -> np.ndarray:
    plane = other[offset[0]] if other.ndim == 3 else other
    return plane[offset[1] : offset[1] + band.shape[0]]


def _names(ids: np.ndarray, classes: Sequence[LabelClass], otherwise: str) -> list[str]:
    names = {entry.id: entry.name for entry in classes}
    return [names.get(int(i), otherwise) for i in ids]
