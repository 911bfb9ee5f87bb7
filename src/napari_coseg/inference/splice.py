"""Replace the objects in windows of labels by new ones."""

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
    """Labels with ids 1..n; class and probability by id, with an entry 0 for background."""

    labels: np.ndarray
    class_ids: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, table: pd.DataFrame) -> Self:
        """Renumber labels in order of their ids and take classes from their table."""
        ids = ids_in(labels)
        class_ids, probabilities = classes_of_ids(table, ids)
        return cls(
            row_lookup(ids)(labels).astype(LABEL_DTYPE),
            np.concatenate([np.zeros(1, np.int64), class_ids]),
            np.concatenate([np.zeros(1), probabilities]),
        )


def splice_objects(
    current: Objects, new: Objects, inner: Window, outer: Window, stays: np.ndarray
) -> Objects:
    """Replace the objects that overlap a window by new ones, fitted around those that stay.

    See `labels.editing.rerun.fit_around`. Objects that extend beyond `outer` stay too.

    Parameters
    ----------
    current
        Objects of the whole plane; not changed.
    new
        Objects of the `outer` window, ids 1..n.
    inner, outer
        Changed window, and the window decoded around it; half-open, in pixels of the plane.
    stays
        Bool (Y, X), of the plane: pixels that stay, with their objects.
    """
    inside = tuple(
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
    )
    here, fixed = current.labels[outer], stays[outer]
    removed = np.zeros(len(current.class_ids), bool)
    removed[here[inside]] = True
    removed[here[fixed]] = False
    removed[_beyond(current.labels, outer)] = False
    removed[0] = False
    rest = np.where(removed[here], 0, here)
    added = fit_around(_overlapping(new.labels, inside), (rest == 0) & ~fixed)
    sizes = np.bincount(added.ravel(), minlength=len(new.class_ids))
    sizes[0] = 0
    ids = np.flatnonzero(sizes)
    number = np.zeros(len(new.class_ids), current.labels.dtype)
    number[ids] = len(current.class_ids) + np.arange(len(ids))
    labels = current.labels.copy()
    labels[outer] = np.where(added > 0, number[added], rest)
    return Objects(
        labels,
        np.concatenate([current.class_ids, new.class_ids[ids]]),
        np.concatenate([current.probabilities, new.probabilities[ids]]),
    )


def numbered(objects: Objects) -> Objects:
    """Renumber objects to 1..n without gaps, in their order."""
    present = np.zeros(len(objects.class_ids), bool)
    present[objects.labels.ravel()] = True
    present[0] = True
    number = np.cumsum(present) - 1
    labels = number.astype(np.int32)[objects.labels]
    return Objects(labels, objects.class_ids[present], objects.probabilities[present])


def merged_windows(windows: Sequence[Window], margin: int, shape: tuple[int, int]) -> list[Window]:
    """Merge windows until none overlap with a margin around each."""
    waiting = list(windows)
    separate: list[Window] = []
    while waiting:
        one = waiting.pop()
        near = [other for other in separate if _overlap(padded(one, margin, shape), other, margin)]
        if near:
            separate = [other for other in separate if other not in near]
            waiting.append(_bounds([one, *near]))
        else:
            separate.append(one)
    return sorted(separate, key=lambda window: (window[0].start, window[1].start))


def padded(window: Window, margin: int, shape: tuple[int, int]) -> Window:
    """Add a margin around a window, within the plane."""
    rows, columns = (
        slice(max(0, part.start - margin), min(n, part.stop + margin))
        for part, n in zip(window, shape, strict=True)
    )
    return rows, columns


def _overlap(one: Window, other: Window, margin: int) -> bool:
    return all(
        a.start < b.stop + margin and b.start - margin < a.stop
        for a, b in zip(one, other, strict=True)
    )


def _bounds(windows: Sequence[Window]) -> Window:
    rows, columns = (
        slice(min(w[axis].start for w in windows), max(w[axis].stop for w in windows))
        for axis in (0, 1)
    )
    return rows, columns


def _beyond(labels: np.ndarray, outer: Window) -> np.ndarray:
    """Ids on the lines just outside a window."""
    rows, columns = outer
    sides = []
    for axis, part, across in ((0, rows, columns), (1, columns, rows)):
        for at in (part.start - 1, part.stop):
            if 0 <= at < labels.shape[axis]:
                sides.append(labels.take(at, axis)[across])
    return np.unique(np.concatenate(sides)) if sides else np.zeros(0, np.int64)


def _overlapping(labels: np.ndarray, inside: tuple[slice, ...]) -> np.ndarray:
    """Labels of the objects that overlap a window, with all their pixels."""
    wanted = np.zeros(int(labels.max(initial=0)) + 1, bool)
    wanted[labels[inside]] = True
    return np.where(wanted[labels], labels, 0)
