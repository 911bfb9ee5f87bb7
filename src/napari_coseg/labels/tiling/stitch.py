"""Stitch labels of blocks, so that each object has one id.

Every pixel gets its label from the block whose core contains it. Two labels of neighbouring
blocks are one object if their intersection over union inside the overlap of the two windows is
above one half, which makes the partner unique on both sides. Objects may be larger than a block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.labels.tiling.blocks import Block, Grid

MIN_AGREEMENT = 0.5
ROWS_AT_ONCE = 1024


class Overlaps(NamedTuple):
    """Pairs of labels that share pixels: ids on both sides, shared pixels, pixels of each."""

    first: np.ndarray
    second: np.ndarray
    shared: np.ndarray
    first_area: np.ndarray
    second_area: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        return self.shared / (self.first_area + self.second_area - self.shared)

    @property
    def of_smaller(self) -> np.ndarray:
        """Shared pixels as a fraction of the smaller of the two."""
        return self.shared / np.minimum(self.first_area, self.second_area)


def overlaps(first: np.ndarray, second: np.ndarray) -> Overlaps:
    """Every pair of non-zero labels of two images of one shape, in linear time and memory."""
    both = (first > 0) & (second > 0)
    keys = first[both].astype(np.int64) << 32 | second[both].astype(np.int64)
    pairs, shared = np.unique(keys, return_counts=True)
    a, b = pairs >> 32, pairs & 0xFFFFFFFF
    return Overlaps(a, b, shared, _areas_of(first, a), _areas_of(second, b))


def _areas_of(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    if not ids.size:
        return np.zeros(0, np.int64)
    low = int(ids.min())
    inside = labels[(labels >= low) & (labels <= ids.max())]
    return np.bincount(inside - low)[ids - low]


@dataclass
class Votes:
    """Classes of objects in each block or slice; the majority of pixels decides."""

    ids: list[np.ndarray] = field(default_factory=list)
    class_ids: list[np.ndarray] = field(default_factory=list)
    probabilities: list[np.ndarray] = field(default_factory=list)
    areas: list[np.ndarray] = field(default_factory=list)

    def add(
        self,
        ids: np.ndarray,
        class_ids: np.ndarray,
        probabilities: np.ndarray,
        areas: np.ndarray,
    ) -> None:
        self.ids.append(np.asarray(ids))
        self.class_ids.append(np.asarray(class_ids))
        self.probabilities.append(np.asarray(probabilities, dtype=np.float64))
        self.areas.append(np.asarray(areas))

    def count(self, final_ids: np.ndarray, n_objects: int) -> tuple[np.ndarray, np.ndarray]:
        """Class and its probability for objects 1..n, each (n,), by area.

        Parameters
        ----------
        final_ids
            Maps the ids of the votes to 0 (dropped) or 1..n.
        """
        if not n_objects:
            return np.zeros(0, np.int64), np.zeros(0)
        ids = final_ids[np.concatenate(self.ids)]
        class_ids = np.concatenate(self.class_ids).astype(np.int64)
        areas = np.concatenate(self.areas) * (ids > 0)
        n_classes = int(class_ids.max(initial=0)) + 1
        keys, size = ids * n_classes + class_ids, (n_objects + 1) * n_classes
        by_class = np.bincount(keys, areas, size).reshape(-1, n_classes)
        weighted = areas * np.concatenate(self.probabilities)
        probability = np.bincount(keys, weighted, size).reshape(-1, n_classes)
        winner = by_class.argmax(axis=1)
        total = np.maximum(by_class.sum(axis=1), 1)
        return winner[1:], (probability[np.arange(n_objects + 1), winner] / total)[1:]


class LabelCanvas:
    """Stitches the labels of blocks, row by row from the top left.

    Parameters
    ----------
    grid
        From `napari_coseg.labels.tiling.blocks.cut_plane`.
    out
        int32 (Y, X), zeros; filled in place.
    """

    def __init__(self, grid: Grid, out: np.ndarray) -> None:
        self._grid, self._out = grid, out
        self._next_id = 1
        self._same: list[np.ndarray] = []
        self._left: tuple[Block, np.ndarray] | None = None
        self._row: list[tuple[Block, np.ndarray]] = []
        self._above: list[tuple[Block, np.ndarray]] = []
        self.areas: list[np.ndarray] = []
        self.votes = Votes()

    def place(self, block: Block, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Write the core of `labels`, which covers the block's window with ids 1..count.

        Returns
        -------
        ids, areas
            (count,) each: temporary ids, for `votes`, and the numbers of pixels written.
        """
        if block.column == 0:
            self._above, self._row, self._left = self._row, [], None
        areas = np.bincount(labels[block.core_in_window].ravel(), minlength=count + 1)[1:]
        ids = np.arange(self._next_id, self._next_id + count)
        moved = np.where(labels > 0, labels + (self._next_id - 1), 0).astype(LABEL_DTYPE)
        self._next_id += count
        self.areas.append(areas)
        self._out[block.core] = moved[block.core_in_window]
        for neighbour in (self._left, self._above[block.column] if self._above else None):
            if neighbour is not None:
                self._compare(*neighbour, block, moved)
        self._remember(block, moved)
        return ids, areas

    def finish(self, min_area: float = 0) -> tuple[np.ndarray, int]:
        """Give final ids to `out`: 1..n without gaps, in the order of their first block.

        Objects below `min_area` pixels are removed.

        Returns
        -------
        final_ids, n
            Maps temporary ids to 0..n, and how many objects there are.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        size = self._next_id
        pairs = np.concatenate([*self._same, np.zeros((0, 2), np.int64)])
        links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
        _, group = connected_components(links, directed=False)
        areas = np.concatenate([np.zeros(1, np.int64), *self.areas])
        total = np.bincount(group, areas)
        kept = total[group] >= max(1.0, min_area)
        kept[0] = False
        _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
        order = np.zeros(len(first), np.int64)
        wanted = np.flatnonzero(kept[first])
        order[wanted[np.argsort(first[wanted])]] = np.arange(1, wanted.size + 1)
        final_ids = order[inverse].astype(LABEL_DTYPE)
        relabel(self._out, final_ids)
        return final_ids, int(wanted.size)

    def _compare(
        self, old: Block, old_labels: np.ndarray, new: Block, new_labels: np.ndarray
    ) -> None:
        top, bottom = max(old.y.start, new.y.start), min(old.y.stop, new.y.stop)
        left, right = max(old.x.start, new.x.start), min(old.x.stop, new.x.stop)
        # Only the lowest rows of the block above are kept, but all of the block on the left.
        first_row = old.y.stop - old_labels.shape[0]
        a = old_labels[
            top - first_row : bottom - first_row, left - old.x.start : right - old.x.start
        ]
        b = new_labels[
            top - new.y.start : bottom - new.y.start, left - new.x.start : right - new.x.start
        ]
        found = overlaps(a, b)
        same = found.iou > MIN_AGREEMENT
        self._same.append(np.stack([found.first[same], found.second[same]], axis=1))

    def _remember(self, block: Block, labels: np.ndarray) -> None:
        self._left = (block, labels)
        last = block.row + 1 == len(self._grid)
        next_start = block.y.stop if last else self._grid[block.row + 1][0].y.start
        self._row.append((block, labels[next_start - block.y.start :].copy()))


def relabel(labels: np.ndarray, new_ids: np.ndarray) -> None:
    """Replace every id by ``new_ids[id]`` in place, some rows of the first axis at a time."""
    for start in range(0, labels.shape[0], ROWS_AT_ONCE):
        part = labels[start : start + ROWS_AT_ONCE]
        part[...] = new_ids[part]
