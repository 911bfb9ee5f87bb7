"""Link the objects of a stack's slices, many to one, so that each object has one id.

A *piece* is one label of one slice. An object may have several pieces in a slice (the roots of a
tooth), a slice may give one piece to two objects (a merger), two pieces to one object (a split), or
miss it (a gap). Slices are visited from the first to the last, and four rules decide:

Continue
    Pieces of neighbouring slices are one object if each has the largest intersection over union
    (IoU) with the other, and they share at least `overlap` of the smaller one.
Bridge
    The same over up to `max_gap` slices in between, from an IoU of `BRIDGE_IOU` on, for pieces of
    which one has nothing that continues it towards the other. The pixels that both ends share are
    the bridge's *footprint*. A piece between that lies in a footprint by more than half is of that
    object: this joins the parts of a split. A piece that holds more than half of each of several
    footprints, which are more than half of it, is a merger: its pixels go to the nearest footprint.
Branch
    A chain of pieces that nothing continues at one end joins the object of the piece in the next
    slice that holds at least `join_overlap` of its last one, unless that touches what continues
    the holding piece. For what separated the slice has drawn a border between pieces that touch,
    while roots and cusps lie apart where they leave the crown. An object that begins under its
    neighbour touches it, and stays an object of its own. A chain that could join at both ends
    joins at one.
Number
    Linked pieces get one id; ids are 1..n in the order of slices, then of the pieces' own ids.

Each voxel is read a number of times that grows with ``max_gap**2``, and each pair of overlapping
pieces as often: time is linear in both. What cannot be seen in label images alone stays
wrong: an object that ends where another begins at the same place and size is continued, and
neighbours that are merged in more than `max_gap` successive slices may become one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator

import numpy as np

from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.labels.tiling.stitch import Overlaps, overlaps, relabel

BRIDGE_IOU = 0.5
NO_PAIRS = np.zeros((0, 2), np.int64)
MOST = 0.5
"""More than half: at most one other piece can have as much."""


def link_slices(
    labels: np.ndarray,
    count: int,
    *,
    overlap: float = 0.5,
    join_overlap: float = 0.75,
    max_gap: int = 3,
    progress: Callable[[float], None] | None = None,
) -> tuple[np.ndarray, int]:
    """Give the pieces of one object one id, in place, by the rules of this module.

    Parameters
    ----------
    labels
        int32 (Z, Y, X): pieces, every one with an id of its own in 1..count; ids rise with z.
    count
        Largest id.
    overlap, join_overlap
        Fractions of a piece's pixels, above 0 and at most 1.
    max_gap
        Slices that a bridge may span; 0 for none.
    progress
        Called with the fraction of slices done; may raise to stop.

    Returns
    -------
    final_ids, n
        (count + 1,): the object's id 0..n of every piece (a merger's: of its largest part), and
        how many objects there are.
    """
    linking = _Linking(labels, count, overlap, join_overlap, max_gap)
    for z in range(len(labels)):
        linking.visit(z)
        if progress is not None:
            progress((z + 1) / len(labels))
    final_ids, n = linking.numbers()
    relabel(labels, final_ids)
    return final_ids[: count + 1], n


class _Linking:
    """Pieces found to be one object, as pairs of ids, and which pieces are continued."""

    def __init__(
        self, labels: np.ndarray, count: int, overlap: float, join_overlap: float, max_gap: int
    ) -> None:
        self.labels, self.count, self.max_gap = labels, count, max_gap
        self.overlap, self.join_overlap = overlap, join_overlap
        self._same: list[np.ndarray] = []
        self._bridged: list[np.ndarray] = []
        self._branches: list[np.ndarray] = []  # piece, the piece that holds it, shared pixels
        self._after: dict[int, int] = {}  # what continues a piece in the next slice
        self._before: dict[int, int] = {}
        self._begins: set[int] = set()  # pieces from which a bridge leads to a later slice
        self._ends: set[int] = set()
        self._origin = [np.arange(count + 1)]  # of a merger's further parts: the merger's id
        self._lookup = np.zeros(count + 1, np.int64)

    def visit(self, z: int) -> None:
        """Everything that can be said once the slices before `z` were visited."""
        self._bridge(z)
        if z:
            found = overlaps(self.labels[z - 1], self.labels[z])
            self._continue(found)
            self._branch(z, found)

    def numbers(self) -> tuple[np.ndarray, int]:
        """Object of each piece, and how many; in the order of each object's first piece."""
        chain = self._groups(self._same, [self._needed_bridges()])
        group = self._groups(self._same, [self._needed_bridges(), self._best_branches(chain)])
        origin = np.concatenate(self._origin)
        first = np.full(origin.size, origin.size)
        np.minimum.at(first, group[1:], origin[1:])
        groups = np.unique(group[1:])
        ordered = groups[np.argsort(first[groups], kind="stable")]
        number = np.zeros(origin.size, LABEL_DTYPE)
        number[ordered] = np.arange(1, ordered.size + 1)
        final = number[group]
        final[0] = 0
        return final, int(ordered.size)

    def _groups(self, *links: list[np.ndarray]) -> np.ndarray:
        """(count + 1,): a number for each piece, the same for those that links connect."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.concatenate([NO_PAIRS, *itertools.chain(*links)])
        entries = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
        size = self.count + 1
        return connected_components(coo_array(entries, shape=(size, size)), directed=False)[1]

    def _best_branches(self, chain: np.ndarray) -> np.ndarray:
        """(n, 2): of every chain of pieces the one branch with most shared pixels.

        One is enough, and a chain whose two ends lie in two objects does not make them one.
        """
        branches = np.concatenate([np.zeros((0, 3), np.int64), *self._branches])
        order = np.argsort(-branches[:, 2], kind="stable")
        _, first = np.unique(chain[branches[order, 0]], return_index=True)
        return branches[order[first], :2]

    def _needed_bridges(self) -> np.ndarray:
        """(n, 2): pieces that a bridge joins, one of them not continued towards the other."""
        pairs = np.concatenate([NO_PAIRS, *self._bridged])
        goes_on, comes_from = np.zeros((2, self.count + 1), bool)
        goes_on[list(self._after)] = True
        comes_from[list(self._before)] = True
        return pairs[~(goes_on[pairs[:, 0]] & comes_from[pairs[:, 1]])]

    # -- bridges -------------------------------------------------------------------------------

    def _spans(self, z: int) -> Iterator[tuple[int, int]]:
        """Pairs of slices around `z` with at most `max_gap` between them, the nearest first."""
        for between in range(1, self.max_gap + 1):
            for before in range(1, between + 1):
                first, last = z - before, z + between + 1 - before
                if first >= 0 and last < len(self.labels):
                    yield first, last

    def _bridge(self, z: int) -> None:
        """Find bridges over slice `z`, split its mergers, and note which pieces they join."""
        feet, starts = self._footprints(z)
        if not starts.size:
            return
        held = overlaps(feet, self.labels[z])
        of_merger = self._of_mergers(held)
        if of_merger.any():
            parts = self._split(z, feet, *(values[of_merger] for values in held[:3]))
            self._join(starts[held.first[of_merger] - 1], parts)
        inside = ~of_merger & (held.shared > MOST * held.second_area)
        joined = np.stack([starts[held.first[inside] - 1], held.second[inside]], axis=1)
        self._bridged.append(joined)

    def _footprints(self, z: int) -> tuple[np.ndarray, np.ndarray]:
        """int32 (Y, X) of 1 + the number of a bridge over `z`, or 0; and where each bridge starts.

        The shortest bridges come first. A longer one counts only where most of its footprint is
        free, for an object's bridges of several lengths have about the same one.
        """
        feet = np.zeros(self.labels.shape[1:], LABEL_DTYPE)
        known: list[int] = []
        for first, last in self._spans(z):
            found = overlaps(self.labels[first], self.labels[last])
            chosen = _mutual_best(found) & (found.iou >= BRIDGE_IOU)
            starts, stops = found.first[chosen], found.second[chosen]
            self._bridged.append(np.stack([starts, stops], axis=1))
            self._begins.update(starts.tolist())
            self._ends.update(stops.tolist())
            numbers = np.arange(1, starts.size + 1)
            foot = self._looked_up(self.labels[first], starts, numbers)
            foot[foot != self._looked_up(self.labels[last], stops, numbers)] = 0
            free = np.bincount(foot[feet == 0], minlength=starts.size + 1)
            is_new = free > MOST * np.bincount(foot.ravel(), minlength=starts.size + 1)
            is_new[0] = False
            number = np.where(is_new, np.cumsum(is_new) + len(known), 0)
            known += starts[is_new[1:]].tolist()
            feet[feet == 0] = number[foot[feet == 0]]
        return feet, np.array(known, np.int64)

    def _looked_up(self, labels: np.ndarray, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Replace `ids` by `values`, and all else by 0."""
        self._lookup[ids] = values
        found = self._lookup[labels]
        self._lookup[ids] = 0
        return found

    @staticmethod
    def _of_mergers(held: Overlaps) -> np.ndarray:
        """bool, by pair of footprint and piece: whether the piece is a merger that holds it."""
        whole = held.shared > MOST * held.first_area
        pieces, where = np.unique(held.second, return_inverse=True)
        n_whole = np.bincount(where, whole, pieces.size)
        explained = np.bincount(where, held.shared * whole, pieces.size)
        is_merger = (n_whole[where] > 1) & (explained[where] > MOST * held.second_area)
        merger: np.ndarray = whole & is_merger
        return merger

    def _split(
        self, z: int, feet: np.ndarray, bridges: np.ndarray, mergers: np.ndarray, shared: np.ndarray
    ) -> np.ndarray:
        """Give the pixels of mergers to the nearest of their footprints; returns the parts' ids.

        The part with the largest footprint keeps the merger's id, the others get new ones.
        """
        from scipy.ndimage import distance_transform_edt

        order = np.lexsort((bridges, -shared, mergers))
        is_new = np.zeros(mergers.size, bool)
        is_new[order[1:]] = mergers[order[1:]] == mergers[order[:-1]]
        parts = mergers.copy()
        parts[is_new] = np.arange(self.count + 1, self.count + 1 + is_new.sum())
        labels = self.labels[z]
        inside = self._looked_up(labels, mergers, np.ones(mergers.size, np.int64)) > 0
        rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        labels, inside = labels[box], inside[box]
        owner, part_of = np.zeros((2, int(feet.max()) + 1), np.int64)
        owner[bridges], part_of[bridges] = mergers, parts
        seeds = np.where(inside & (owner[feet[box]] == labels), feet[box], 0)
        nearest = distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
        bridge = seeds[tuple(nearest)]
        moved = inside & (owner[bridge] == labels)  # else the nearest is another merger's
        labels[moved] = part_of[bridge[moved]]
        self._add_pieces(mergers[is_new])
        return parts

    def _add_pieces(self, origins: np.ndarray) -> None:
        self._origin.append(origins)
        self.count += origins.size
        if self.count >= self._lookup.size:
            self._lookup = np.zeros(2 * self.count + 1, np.int64)

    # -- neighbouring slices -------------------------------------------------------------------

    def _continue(self, found: Overlaps) -> None:
        chosen = _mutual_best(found) & (found.of_smaller >= self.overlap)
        before, now = found.first[chosen], found.second[chosen]
        self._join(before, now)
        self._after.update(zip(before.tolist(), now.tolist(), strict=True))
        self._before.update(zip(now.tolist(), before.tolist(), strict=True))

    def _branch(self, z: int, found: Overlaps) -> None:
        """Note what begins in slice `z` inside a piece of the one before, and what ends there."""
        began = (self._before, self._ends)
        ended = (self._after, self._begins)
        swapped = Overlaps(
            found.second, found.first, found.shared, found.second_area, found.first_area
        )
        self._branches.append(self._loose(self.labels[z], swapped, began, self._after))
        self._branches.append(self._loose(self.labels[z - 1], found, ended, self._before))

    def _loose(
        self,
        labels: np.ndarray,
        found: Overlaps,
        linked: tuple[Container[int], ...],
        continued: dict[int, int],
    ) -> np.ndarray:
        """(n, 3): pieces of the slice `labels` that are branches of one in the next or last slice.

        Parameters
        ----------
        found
            Pieces of `labels` first.
        linked
            Pieces that are continued in the other slice, or bridged across it.
        continued
            What continues the other slice's pieces in `labels`.
        """
        inside = found.shared >= self.join_overlap * found.first_area
        rows = np.stack(found[:3], axis=1)[inside]
        is_loose = [all(p not in known for known in linked) for p in rows[:, 0].tolist()]
        loose = rows[np.array(is_loose, bool)]
        if not len(loose):
            return loose
        touching = _touching(labels)
        pairs = zip(loose[:, 0].tolist(), loose[:, 1].tolist(), strict=True)
        apart = [_key(p, continued.get(q, 0)) not in touching for p, q in pairs]
        return loose[np.array(apart, bool)]

    def _join(self, first: np.ndarray, second: np.ndarray) -> None:
        self._same.append(np.stack([first, second], axis=1))


def _mutual_best(found: Overlaps) -> np.ndarray:
    """bool, by pair: whether each has its largest IoU with the other; the lower ids on a tie."""
    order = np.lexsort((found.second, found.first, -found.iou))
    best = np.zeros(order.size, np.int64)
    for side in (found.first, found.second):
        best[order[np.unique(side[order], return_index=True)[1]]] += 1
    return best == 2


def _touching(labels: np.ndarray) -> set[int]:
    """`_key` of each pair of pieces with neighbouring pixels, corners included."""
    y, x = labels.shape
    keys = [np.zeros(0, np.int64)]
    for first, second in (
        (labels[:, : x - 1], labels[:, 1:]),
        (labels[: y - 1], labels[1:]),
        (labels[: y - 1, : x - 1], labels[1:, 1:]),
        (labels[: y - 1, 1:], labels[1:, : x - 1]),
    ):
        differ = (first != second) & (first > 0) & (second > 0)
        pair = np.sort(np.stack([first[differ], second[differ]]).astype(np.int64), axis=0)
        keys.append(np.unique(pair[0] << 32 | pair[1]))
    return set(np.concatenate(keys).tolist())


def _key(one: int, other: int) -> int:
    return min(one, other) << 32 | max(one, other)


def remove_small(labels: np.ndarray, count: int, least_voxels: float) -> np.ndarray:
    """Remove objects of fewer voxels and number the others from 1, in place.

    Parameters
    ----------
    labels
        (Z, Y, X), ids 1..count.

    Returns
    -------
    np.ndarray
        bool (count,): which objects are left.
    """
    sizes = np.zeros(count + 1, np.int64)
    for plane in labels:
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    kept = sizes[1:] >= least_voxels
    table = np.append(0, np.where(kept, np.cumsum(kept), 0)).astype(labels.dtype)
    for plane in labels:
        plane[:] = table[plane]
    return kept
