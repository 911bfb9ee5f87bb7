"""Put new objects and regions of some windows into labels, around what must stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.labels.editing.rerun import fit_around
from napari_coseg.labels.measure.rows import classes_of_ids, ids_in, row_lookup

if TYPE_CHECKING:
    import pandas as pd

Window = tuple[slice, slice]


class Objects(NamedTuple):
    """Labels with ids 1..n, and by id the class and its probability; entry 0 is background's."""

    labels: np.ndarray
    class_ids: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, table: pd.DataFrame) -> Self:
        """The objects of labels with any ids, in their order; classes are taken from the table."""
        ids = ids_in(labels)
        class_ids, probabilities = classes_of_ids(table, ids)
        return cls(
            row_lookup(ids)(labels).astype(LABEL_DTYPE),
            np.concatenate([np.zeros(1, np.int64), class_ids]),
            np.concatenate([np.zeros(1), probabilities]),
        )


def splice_objects(
    now: Objects, found: Objects, inner: Window, outer: Window, stays: np.ndarray
) -> Objects:
    """Replace the objects that reach into a window by those found there.

    Found objects are fitted around what stays, see `labels.editing.rerun.fit_around`.

    Parameters
    ----------
    now
        Of the whole plane; not changed.
    found
        Of the `outer` window, ids 1..n.
    inner, outer
        What has changed, and what was decoded around it; half-open, of the plane.
    stays
        Bool (Y, X), of the plane: pixels that keep what they have, and their objects with them.
    """
    inside = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
    )
    here, kept = now.labels[outer], stays[outer]
    goes = np.zeros(len(now.class_ids), bool)
    goes[here[inside]] = True
    goes[here[kept]] = False
    goes[_beyond(now.labels, outer)] = False  # too large to be judged from this window
    goes[0] = False
    left = np.where(goes[here], 0, here)
    arriving = fit_around(_reaching(found.labels, inside), (left == 0) & ~kept)
    sizes = np.bincount(arriving.ravel(), minlength=len(found.class_ids))
    sizes[0] = 0
    comes = np.flatnonzero(sizes)
    number = np.zeros(len(found.class_ids), now.labels.dtype)
    number[comes] = len(now.class_ids) + np.arange(len(comes))
    labels = now.labels.copy()
    labels[outer] = np.where(arriving > 0, number[arriving], left)
    return Objects(
        labels,
        np.concatenate([now.class_ids, found.class_ids[comes]]),
        np.concatenate([now.probabilities, found.probabilities[comes]]),
    )


def numbered(objects: Objects) -> Objects:
    """The same objects with ids 1..n without holes, in their order."""
    present = np.zeros(len(objects.class_ids), bool)
    present[objects.labels.ravel()] = True
    present[0] = True
    number = np.cumsum(present) - 1
    labels = number.astype(np.int32)[objects.labels]
    return Objects(labels, objects.class_ids[present], objects.probabilities[present])


def joined(boxes: Sequence[Window], margin: int, shape: tuple[int, int]) -> list[Window]:
    """Boxes that, with a margin around them, share no pixel; near ones become one."""
    waiting = list(boxes)
    apart: list[Window] = []
    while waiting:
        one = waiting.pop()
        near = [other for other in apart if _share(_grown(one, margin, shape), other, margin)]
        if near:
            apart = [other for other in apart if other not in near]
            waiting.append(_around([one, *near]))
        else:
            apart.append(one)
    return sorted(apart, key=lambda box: (box[0].start, box[1].start))


def grown(box: Window, margin: int, shape: tuple[int, int]) -> Window:
    """The box and a margin around it, within the plane."""
    return _grown(box, margin, shape)


def _grown(box: Window, margin: int, shape: tuple[int, int]) -> Window:
    rows, columns = (
        slice(max(0, part.start - margin), min(n, part.stop + margin))
        for part, n in zip(box, shape, strict=True)
    )
    return rows, columns


def _share(one: Window, other: Window, margin: int) -> bool:
    return all(
        a.start < b.stop + margin and b.start - margin < a.stop
        for a, b in zip(one, other, strict=True)
    )


def _around(boxes: Sequence[Window]) -> Window:
    rows, columns = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes))
        for axis in (0, 1)
    )
    return rows, columns


def _beyond(labels: np.ndarray, outer: Window) -> np.ndarray:
    """Objects of the lines just outside a window: those that reach out of it."""
    rows, columns = outer
    sides = []
    for axis, part, across in ((0, rows, columns), (1, columns, rows)):
        for at in (part.start - 1, part.stop):
            if 0 <= at < labels.shape[axis]:
                sides.append(labels.take(at, axis)[across])
    return np.unique(np.concatenate(sides)) if sides else np.zeros(0, np.int64)


def _reaching(found: np.ndarray, inside: tuple[slice, ...]) -> np.ndarray:
    """The found objects that reach into a window, with all their pixels."""
    wanted = np.zeros(int(found.max(initial=0)) + 1, bool)
    wanted[found[inside]] = True
    return np.where(wanted[found], found, 0)
