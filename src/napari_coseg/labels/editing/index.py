"""Bounding box and pixel count of each object, updated by edits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.edit import Box, Edit
from napari_coseg.labels.measure.rows import LONGEST_LOOKUP, ids_in, row_lookup


class ObjectIndex:
    """Boxes and pixel counts of the objects of one label image.

    Built by one pass over the image (`of`); `update` then costs as much as the edit is large. With
    it every edit reads only the boxes of its objects.
    """

    def __init__(self, boxes: dict[int, Box], counts: dict[int, int]) -> None:
        self._boxes = boxes
        self._counts = counts
        self._next = max(boxes, default=0) + 1

    @classmethod
    def of(cls, labels: np.ndarray) -> ObjectIndex:
        """From labels, whole numbers (Y, X) or (Z, Y, X)."""
        from scipy import ndimage

        found = ids_in(labels)
        rows = row_lookup(found)(labels)
        ids = found.tolist()
        counts = np.bincount(rows.reshape(-1), minlength=len(ids) + 1)[1:]
        boxes = ndimage.find_objects(rows, max_label=len(ids))
        return cls(dict(zip(ids, boxes, strict=True)), dict(zip(ids, counts.tolist(), strict=True)))

    def __len__(self) -> int:
        return len(self._boxes)

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._boxes

    @property
    def ids(self) -> np.ndarray:
        """int64, ascending."""
        return np.array(sorted(self._boxes), dtype=np.int64)

    def box(self, object_id: int) -> Box:
        """Half-open bounds of one object.

        Raises
        ------
        EditError
            Where there is no such object.
        """
        if object_id not in self._boxes:
            raise EditError(f"there is no object {object_id}; choose one of the labels")
        return self._boxes[object_id]

    def count(self, object_id: int) -> int:
        """Pixels of one object, 0 where there is none of this id."""
        return self._counts.get(object_id, 0)

    def free_ids(self, count: int, dtype: np.dtype) -> list[int]:
        """Ids for new objects: above every id that was ever used, so that none is used twice.

        Raises
        ------
        EditError
            Where `dtype` cannot hold them.
        """
        last = self._next + count - 1
        if last > np.iinfo(dtype).max:
            raise EditError(
                f"labels of type {np.dtype(dtype)} cannot hold the id {last}; convert the layer "
                "to int32 with ids from 1 on"
            )
        return list(range(self._next, last + 1))

    def update(self, edit: Edit) -> None:
        """Follow an edit of the objects that was applied; give the inverse of one reverted."""
        for object_id in edit.removed:
            self._boxes.pop(object_id, None)
            self._counts.pop(object_id, None)
        lost, gained = counted(edit.old_values), counted(edit.new_values)
        rows = edit.new_rows
        boxes = _boxes_of_rows(rows, len(edit.indices))
        for object_id, box in zip(rows["id"].tolist(), boxes, strict=True):
            self._boxes[object_id] = box
            change = gained.get(object_id, 0) - lost.get(object_id, 0)
            self._counts[object_id] = self.count(object_id) + change
        self._next = max(self._next, int(rows["id"].max()) + 1 if len(rows) else 0)


def counted(values: np.ndarray) -> dict[int, int]:
    """How often each value except 0 occurs."""
    if not len(values):
        return {}
    if int(values.min()) >= 0 and int(values.max()) <= LONGEST_LOOKUP:
        counts = np.bincount(values)
        found = np.flatnonzero(counts)
        times = counts[found]
    else:
        found, times = np.unique(values, return_counts=True)
    return {int(i): int(n) for i, n in zip(found, times, strict=True) if i}


def pixels_of(
    labels: np.ndarray, boxes: Sequence[Box], ids: Sequence[int]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Coordinates, one array per axis, of all pixels of some objects, and the id of each.

    Objects are searched one by one in their boxes or, if there are many close together, all at once
    in the box around them.
    """
    if not len(ids):
        empty = np.zeros(0, dtype=np.int64)
        return (empty,) * labels.ndim, empty.astype(labels.dtype)
    whole = around(boxes)
    if volume(whole) <= 2 * sum(map(volume, boxes)) or len(ids) > 500:
        parts = [_found(labels, whole, np.asarray(ids))]
    else:
        parts = [_found(labels, box, np.asarray([i])) for box, i in zip(boxes, ids, strict=True)]
    coordinates = tuple(np.concatenate(axis) for axis in zip(*(c for c, _ in parts), strict=True))
    return coordinates, np.concatenate([owner for _, owner in parts])


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box around all boxes."""
    return tuple(
        slice(min(part.start for part in axis), max(part.stop for part in axis))
        for axis in zip(*boxes, strict=True)
    )


def widened(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """With a margin on both sides of every axis, within the image."""
    return tuple(
        slice(max(part.start - more, 0), min(part.stop + more, size))
        for part, more, size in zip(box, margin, shape, strict=True)
    )


def moved(coordinates: Iterable[np.ndarray], box: Box, sign: int = 1) -> tuple[np.ndarray, ...]:
    """From coordinates in the box to those in the image; with a `sign` of -1 the reverse."""
    return tuple(axis + sign * part.start for axis, part in zip(coordinates, box, strict=True))


def inside(coordinates: Sequence[np.ndarray], box: Box) -> np.ndarray:
    """Which pixels lie in the box."""
    within = np.ones(len(coordinates[0]), dtype=bool)
    for axis, part in zip(coordinates, box, strict=True):
        within &= (axis >= part.start) & (axis < part.stop)
    return within


def volume(box: Box) -> int:
    """Pixels in the box."""
    return math.prod(part.stop - part.start for part in box)


def _found(
    labels: np.ndarray, box: Box, ids: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    crop = labels[box]
    mask = crop == ids[0] if len(ids) == 1 else np.isin(crop, ids)
    return moved(np.nonzero(mask), box), crop[mask]


def _boxes_of_rows(rows: object, ndim: int) -> list[Box]:
    axes = "zyx"[-ndim:]
    bounds = [[rows[f"bbox_{axis}{end}"].tolist() for end in "01"] for axis in axes]  # type: ignore[index]
    per_axis = [[slice(a, b) for a, b in zip(*ends, strict=True)] for ends in bounds]
    return list(zip(*per_axis, strict=True))
