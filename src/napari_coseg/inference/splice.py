"""Put new objects and regions of some windows into labels, around what must stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MIN_SHARE = 0.5
"""A new object that loses more than the rest of itself to what stays is left out."""
Window = tuple[slice, slice]


class Objects(NamedTuple):
    """Labels, and by id the class and its probability; row 0 is background's."""

    labels: np.ndarray
    class_ids: np.ndarray
    probabilities: np.ndarray


def splice_objects(
    now: Objects, found: Objects, inner: Window, outer: Window, stays: np.ndarray
) -> Objects:
    """Replace the objects that reach into a window by those found there.

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
    arriving = _fitting(found.labels, inside, (left == 0) & ~kept)
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


def _fitting(found: np.ndarray, inside: tuple[slice, ...], free: np.ndarray) -> np.ndarray:
    """The found objects that reach inside, where it is free, each in one piece."""
    from scipy import ndimage

    wanted = np.zeros(int(found.max(initial=0)) + 1, bool)
    wanted[found[inside]] = True
    wanted[0] = False
    before = np.bincount(found.ravel(), minlength=len(wanted))
    arriving = np.where(wanted[found] & free, found, 0)
    after = np.bincount(arriving.ravel(), minlength=len(wanted))
    lost = after < MIN_SHARE * before
    arriving[lost[arriving]] = 0
    cut = np.flatnonzero(wanted & ~lost & (after < before))
    boxes = ndimage.find_objects(arriving) if len(cut) else []
    for i in cut.tolist():
        part = arriving[boxes[i - 1]]
        mine = part == i
        pieces, count = ndimage.label(mine, np.ones((3, 3)))
        if count > 1:
            largest = np.bincount(pieces[mine]).argmax()
            part[mine & (pieces != largest)] = 0
    return arriving
