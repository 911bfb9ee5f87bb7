"""What a person has checked: marks on objects and on parts of the image, and what is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_coseg.editing.edit import Box
from napari_coseg.errors import EditError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Reviewed:
    """Objects and regions that a person has checked: a new run never overwrites them.

    Ids stay marked when their object goes, so that undo brings the mark back with the object; keep
    those with an object only (`among`) when writing to a file, as later ids may be the same.

    Parameters
    ----------
    shape
        Of the labels.
    ids
        Objects.
    runs
        int64 (n, 2): the pixels of the reviewed regions as half-open runs of positions in the
        flattened image, ascending, with gaps between them.
    """

    shape: tuple[int, ...]
    ids: frozenset[int] = frozenset()
    runs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    def with_objects(self, ids: Iterable[int]) -> Reviewed:
        return replace(self, ids=self.ids | {int(i) for i in ids})

    def without_objects(self, ids: Iterable[int]) -> Reviewed:
        return replace(self, ids=self.ids - {int(i) for i in ids})

    def among(self, ids: Iterable[int]) -> Reviewed:
        """With the marks of these objects only."""
        return replace(self, ids=self.ids & {int(i) for i in ids})

    def with_region(self, pixels: tuple[np.ndarray, ...]) -> Reviewed:
        """With more pixels, one array an axis, as `drawing.polygon_pixels` gives them."""
        return self._with_pixels(pixels, True)

    def without_region(self, pixels: tuple[np.ndarray, ...]) -> Reviewed:
        return self._with_pixels(pixels, False)

    def mask(self, box: Box | None = None) -> np.ndarray:
        """Bool, of the labels' shape or that of a box: the pixels of the reviewed regions."""
        if box is None:
            box = tuple(slice(0, size) for size in self.shape)
        *planes, rows, columns = box
        height, width = self.shape[-2:]
        bands = []
        for z in range(planes[0].start, planes[0].stop) if planes else (0,):
            low, high = (width * (z * height + row) for row in (rows.start, rows.stop))
            flat = np.zeros(high - low, dtype=bool)
            for start, stop in self._runs_in(low, high).tolist():
                flat[max(start - low, 0) : stop - low] = True
            bands.append(flat.reshape(-1, width)[:, columns])
        return np.stack(bands) if planes else bands[0]

    def protects(self, indices: tuple[np.ndarray, ...], labels: np.ndarray) -> np.ndarray:
        """Which pixels, bool (n,), lie in a reviewed region or, in `labels`, a reviewed object.

        Parameters
        ----------
        indices
            One int array an axis.
        labels
            In which reviewed objects have their ids.
        """
        found = self._in_region(indices)
        return found | np.isin(labels[indices], list(self.ids)) if self.ids else found

    def holds(self, table: pd.DataFrame) -> np.ndarray:
        """Bool, one a row: objects that are marked, or have their centroid in a reviewed region."""
        marked = np.isin(table["id"].to_numpy(), list(self.ids))
        axes = "zyx"[-len(self.shape) :]
        centres = [np.rint(table[f"centroid_{axis}"].to_numpy()).astype(np.int64) for axis in axes]
        return marked | self._in_region(tuple(centres))

    def as_json(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return {"shape": list(self.shape), "ids": sorted(self.ids), "runs": self.runs.tolist()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], shape: tuple[int, ...]) -> Reviewed:
        """What `as_json` gave, for labels of this shape.

        Raises
        ------
        EditError
            Where the values are others than `as_json` writes, or of another shape.
        """
        try:
            written = tuple(int(size) for size in values["shape"])
            ids = frozenset(int(i) for i in values["ids"])
            runs = np.array(values["runs"], dtype=np.int64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EditError(f"reviewed marks cannot be read: {error!r}; mark them anew") from error
        if written != tuple(shape):
            raise EditError(f"reviewed marks are for shape {written}, the labels have {shape}")
        edges = runs.reshape(-1)
        in_order = (np.diff(edges) > 0).all()
        if len(edges) and not (in_order and edges[0] >= 0 and edges[-1] <= np.prod(shape)):
            raise EditError("reviewed marks lie outside the image, or overlap; mark them anew")
        return cls(tuple(shape), ids, runs)

    def _in_region(self, indices: tuple[np.ndarray, ...]) -> np.ndarray:
        flat = np.ravel_multi_index(indices, self.shape)
        # Edges of runs ascend: an odd number of them at or before a position means inside.
        return np.searchsorted(self.runs.reshape(-1), flat, side="right") % 2 == 1

    def _runs_in(self, low: int, high: int) -> np.ndarray:
        """Runs of which some lies in this half-open part of the flattened image."""
        starts, stops = self.runs.T
        return self.runs[(stops > low) & (starts < high)]

    def _with_pixels(self, pixels: tuple[np.ndarray, ...], value: bool) -> Reviewed:
        """Looks only between the first and the last of the pixels."""
        flat = np.ravel_multi_index(pixels, self.shape)
        if not len(flat):
            return self
        low, high = int(flat.min()), int(flat.max()) + 1
        starts, stops = self.runs.T
        mask = np.zeros(high - low, dtype=bool)
        for start, stop in self._runs_in(low, high).tolist():
            mask[max(start - low, 0) : stop - low] = True
        mask[flat - low] = value
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)) + low
        before = np.minimum(self.runs[starts < low], low)
        after = np.maximum(self.runs[stops > high], high)
        runs = np.concatenate([before.reshape(-1), edges, after.reshape(-1)])
        # Runs that touch at the seams are one: a stop that is the next one's start goes with it.
        seam = np.flatnonzero(np.diff(runs) == 0)
        return replace(self, runs=np.delete(runs, [seam, seam + 1]).reshape(-1, 2))


class Doubtful(NamedTuple):
    """Objects to look at, and how far one has come.

    ids    int64 (left,): the least sure first; of equal ones, and of those without a class
           probability, which come last, the lower id first
    left   how many are not reviewed
    total  how many there are
    """

    ids: np.ndarray
    left: int
    total: int


def doubtful_first(table: pd.DataFrame, reviewed: Reviewed | None = None) -> Doubtful:
    """In which order to look at objects: by class probability, without the reviewed ones."""
    probabilities = table["class_probability"].to_numpy()
    order = np.lexsort((table["id"].to_numpy(), probabilities))  # nan sorts last
    if reviewed is not None:
        order = order[~reviewed.holds(table)[order]]
    return Doubtful(table["id"].to_numpy()[order].astype(np.int64), len(order), len(table))
