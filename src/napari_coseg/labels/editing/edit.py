"""One correction as a value: pixels and table rows before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Target = Literal["objects", "regions"]
Box = tuple[slice, ...]
"""Half-open bounds with a start and a stop along every axis."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A change that can be applied, reverted and applied again, exactly.

    The functions of this package make it; `LabelEditor.apply` changes the editor.

    Parameters
    ----------
    name
        What it does, as shown to the user.
    target
        Which image the pixels are of: the labels of objects, or the class ids of regions.
    indices
        One int64 array (n,) per axis, in the order (z,) y, x: only pixels that change, each once.
    old_values, new_values
        (n,) in the dtype of the image.
    old_rows, new_rows
        Rows of the object table, ordered by id, of all objects whose row changes, before and
        after. An id that is only in the first is removed, one that is only in the second is added.
    """

    name: str
    target: Target
    indices: tuple[np.ndarray, ...]
    old_values: np.ndarray
    new_values: np.ndarray
    old_rows: pd.DataFrame
    new_rows: pd.DataFrame

    @property
    def removed(self) -> tuple[int, ...]:
        """Ids of objects that it removes."""
        return _only_in(self.old_rows, self.new_rows)

    @property
    def added(self) -> tuple[int, ...]:
        """Ids of objects that it adds."""
        return _only_in(self.new_rows, self.old_rows)

    @property
    def changed(self) -> tuple[int, ...]:
        """Ids of objects that keep existing, with another row."""
        return tuple(int(i) for i in np.intersect1d(self.old_rows["id"], self.new_rows["id"]))

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing: neither a pixel nor a row."""
        return not len(self.new_values) and not len(self.old_rows) and not len(self.new_rows)

    @property
    def box(self) -> Box | None:
        """Bounds of the pixels that change; None where none does."""
        return around_pixels(self.indices) if len(self.new_values) else None

    def mask(self, shape: tuple[int, ...]) -> np.ndarray:
        """Bool, of the image's shape: the pixels that change, as a preview."""
        mask = np.zeros(shape, dtype=bool)
        mask[self.indices] = True
        return mask

    def history_item(self) -> tuple[tuple[np.ndarray, ...], np.ndarray, np.ndarray]:
        """``(indices, old values, new values)``, an atom of the history of napari's Labels."""
        return self.indices, self.old_values, self.new_values

    def inverse(self) -> Edit:
        """The edit that reverts this one."""
        return Edit(
            self.name,
            self.target,
            self.indices,
            self.new_values,
            self.old_values,
            self.new_rows,
            self.old_rows,
        )


def around_pixels(coordinates: tuple[np.ndarray, ...]) -> Box:
    """The smallest box around pixels, of which there is at least one."""
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in coordinates)


def with_rows(table: pd.DataFrame, old_rows: pd.DataFrame, new_rows: pd.DataFrame) -> pd.DataFrame:
    """A new table, ordered by id, with `new_rows` instead of `old_rows`."""
    import pandas as pd

    stays = ~np.isin(table["id"].to_numpy(), old_rows["id"].to_numpy())
    parts = [part for part in (table[stays], new_rows) if len(part)]
    if not parts:
        return table.iloc[:0].reset_index(drop=True)
    joined = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0]
    order = np.argsort(joined["id"].to_numpy(), kind="stable")
    return joined.take(order).reset_index(drop=True)


def _only_in(one: pd.DataFrame, other: pd.DataFrame) -> tuple[int, ...]:
    return tuple(int(i) for i in np.setdiff1d(one["id"], other["id"]))
