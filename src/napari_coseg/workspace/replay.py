"""Applies a journal's records to an entry: in memory to load it, on the disk to fold the journal.

Every record is checked before it changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from napari_coseg.core.errors import CosegError, WorkspaceError
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Box
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.workspace.arrays import replaced
from napari_coseg.workspace.facts import ClassFacts, EntryFacts, label_classes
from napari_coseg.workspace.records import Record, volume
from napari_coseg.workspace.saved import dtype_of, numbers_of


class Canvas(Protocol):
    """An image that records change."""

    def set_pixels(self, indices: tuple[np.ndarray, ...], values: np.ndarray) -> None:
        """Give pixels other values."""

    def set_block(self, box: Box, values: np.ndarray) -> np.ndarray:
        """Give a part other values; returns the values that went and came."""


class InMemory:
    """An array as a canvas, changed in place."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def set_pixels(self, indices: tuple[np.ndarray, ...], values: np.ndarray) -> None:
        self.image[indices] = values

    def set_block(self, box: Box, values: np.ndarray) -> np.ndarray:
        return replaced(self.image, box, values)


class Replay:
    """An entry's state that records are folded into.

    Parameters
    ----------
    facts
        Of the entry, as before the records.
    labels, regions
        What they change.
    numbers
        Columns of the table, as before.
    reviewed
        Marks, as before.
    """

    def __init__(
        self,
        facts: EntryFacts,
        labels: Canvas,
        regions: Canvas | None,
        numbers: dict[str, np.ndarray],
        reviewed: Reviewed,
    ) -> None:
        self._facts = facts
        self._canvases = {"objects": labels, "regions": regions}
        self._dtypes = {"objects": facts.labels_dtype, "regions": facts.regions_dtype}
        self._batches = [numbers]
        # Where rows are that the journal tells of, (batch, row), None for those that went: a long
        # journal copies no table a record.
        self._places: dict[int, tuple[int, int] | None] = {}
        self.reviewed = reviewed
        self.classes: tuple[LabelClass, ...] = label_classes(facts.classes)
        self.region_classes: tuple[LabelClass, ...] = label_classes(facts.region_classes)
        self._stale = set(facts.stale_ids)
        self._regions_are_stale = facts.regions_are_stale

    @property
    def stale(self) -> set[int]:
        """Objects whose pixels changed without their rows.

        What a fold that did not end has recorded stays in: the chunks it wrote hold the new pixels
        already, so that blocks seem to change nothing there.
        """
        return self._stale | set(self._facts.folding_ids)

    @property
    def regions_are_stale(self) -> bool:
        """Whether regions changed; also by a fold that did not end."""
        return self._regions_are_stale or self._facts.folding_regions

    def take(self, record: Record) -> None:
        """Fold one record in.

        Raises
        ------
        WorkspaceError
            Where it does not fit this entry; then nothing of it is taken.
        """
        try:
            getattr(self, f"_take_{record.kind}")(record.about, record.arrays)
        except (CosegError, KeyError, TypeError, ValueError, IndexError) as error:
            raise WorkspaceError(
                f"a record of the journal ({record.kind}) does not fit its entry: {error!r}"
            ) from error

    def numbers(self) -> dict[str, np.ndarray]:
        """The table's columns as they are now, ordered by id."""
        renewed = np.fromiter(self._places, dtype=np.int64, count=len(self._places))
        starts = np.cumsum([0] + [len(batch["id"]) for batch in self._batches[:-1]])
        there = [starts[place[0]] + place[1] for place in self._places.values() if place]
        stays = np.flatnonzero(~np.isin(self._batches[0]["id"], renewed))
        rows = np.concatenate([stays, np.array(there, dtype=np.int64)])
        columns = {
            column: np.concatenate([batch[column] for batch in self._batches])[rows]
            for column in numbers_of(len(self._facts.shape))
        }
        order = np.argsort(columns["id"], kind="stable")
        return {column: values[order] for column, values in columns.items()}

    # -- one method a kind of record -----------------------------------------------------------

    def _take_pixels(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        canvas, dtype = self._canvas(about["target"])
        steps, values = arrays["steps"], arrays["values"]
        size = volume(self._facts.shape)
        _check(steps.ndim == 1 and steps.dtype.kind in "iu", "positions are a list of numbers")
        _check(values.shape == steps.shape, "there is a value for each position")
        if not len(steps):
            return
        rest = steps[1:]
        _check(int(steps.max()) < size and int(steps[0]) >= 0, "positions lie in the image")
        _check(not len(rest) or int(rest.min()) > 0, "positions ascend")
        flat = np.cumsum(steps, dtype=np.int64)
        _check(int(flat[-1]) < size, "positions lie in the image")
        canvas.set_pixels(np.unravel_index(flat, self._facts.shape), _fitting(values, dtype))

    def _take_block(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        canvas, dtype = self._canvas(about["target"])
        bounds = [(int(start), int(stop)) for start, stop in about["box"]]
        shape = self._facts.shape
        _check(len(bounds) == len(shape), "a block has bounds along every axis")
        inside = all(0 <= a < b <= size for (a, b), size in zip(bounds, shape, strict=True))
        _check(inside, "a block lies in the image")
        values = arrays["values"]
        _check(values.shape == tuple(b - a for a, b in bounds), "a block's values fill it")
        box = tuple(slice(a, b) for a, b in bounds)
        changed = canvas.set_block(box, _fitting(values, dtype))
        if about["target"] == "objects":
            self._stale.update(changed[changed > 0].tolist())
        else:
            self._regions_are_stale |= bool(len(changed))

    def _take_rows(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        gone = arrays["removed"]
        _check(gone.ndim == 1 and gone.dtype == np.int64, "ids that go are a list of numbers")
        columns = numbers_of(len(self._facts.shape))
        batch = {column: arrays.get(f"row.{column}", np.zeros(0)) for column in columns}
        count = len(batch["id"])
        for column, values in batch.items():
            _check(values.shape == (count,), f"the column {column} has a value a row")
            batch[column] = values.astype(dtype_of(column), casting="safe" if count else "unsafe")
        ids = batch["id"].tolist()
        _check(min(ids, default=1) > 0 and len(set(ids)) == count, "ids are from 1 on, each once")
        self._places |= dict.fromkeys(gone.tolist())
        if count:
            number = len(self._batches)
            self._batches.append(batch)
            self._places |= {object_id: (number, row) for row, object_id in enumerate(ids)}
        self._stale.difference_update(gone.tolist(), ids)

    def _take_reviewed(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        shape = self._facts.shape
        values = {name: numbers.tolist() for name, numbers in arrays.items()}
        self.reviewed = Reviewed.from_json({"shape": list(shape)} | values, shape)

    def _take_classes(self, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        found = [
            label_classes(tuple(ClassFacts.from_mapping(entry) for entry in about[key]))
            for key in ("classes", "region_classes")
        ]
        self.classes, self.region_classes = found

    def _canvas(self, target: str) -> tuple[Canvas, str]:
        canvas, dtype = self._canvases[target], self._dtypes[target]
        if canvas is None or dtype is None:
            raise WorkspaceError("it is about regions, of which this entry has none")
        return canvas, dtype


def _check(is_so: bool, claim: str) -> None:
    if not is_so:
        raise WorkspaceError(f"expected that {claim}")


def _fitting(values: np.ndarray, dtype: str) -> np.ndarray:
    _check(values.dtype.kind in "iu", "values are whole numbers")
    limits = np.iinfo(dtype)
    low, high = int(values.min()), int(values.max())
    _check(max(limits.min, 0) <= low and high <= limits.max, f"values fit {dtype}")
    return values.astype(dtype, copy=False)
