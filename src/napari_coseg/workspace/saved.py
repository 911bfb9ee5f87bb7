"""The content of an entry as a value, and its table as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.types import LARGEST_ID, LabelClass, Labelled, Prediction
from napari_coseg.labels.editing.edit import Target
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.labels.measure import (
    BACKGROUND,
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    UNTYPED,
    remeasure,
)
from napari_coseg.labels.measure.rows import ids_in
from napari_coseg.workspace.files import checked_size, refusals
from napari_coseg.workspace.records import TEXT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

LARGEST_TABLE = 8 * 2**30
LARGEST_REGION = 65_535
_ROWS_AT_ONCE = 500
"""Rows written in one go: pandas keeps the interpreter's lock for as long as that takes."""
_WHOLE = ("id", "class_id", "region_id")


@dataclass(frozen=True, eq=False)
class Saved(Labelled):
    """Labels of one image, and which of them a person has reviewed.

    Parameters
    ----------
    prediction
        The labels. Its provenance is empty for labels that were drawn.
    reviewed
        None means nothing.
    """

    prediction: Prediction
    reviewed: Reviewed = None  # type: ignore[assignment]  # made in __post_init__

    def __post_init__(self) -> None:
        if cast(object, self.reviewed) is None:
            object.__setattr__(self, "reviewed", Reviewed(self.labels.shape))

    def reviewed_area(self, target: Target) -> np.ndarray:
        """Bool, of the labels' shape: where all objects, or the regions, are reviewed."""
        return self.reviewed.area(target).mask()

    def reviewed_objects(self) -> np.ndarray:
        """Bool, of the labels' shape: pixels of objects that are marked as reviewed."""
        ids = np.fromiter(self.reviewed.ids, dtype=np.int64, count=len(self.reviewed.ids))
        return np.isin(self.labels, ids)


def columns_of(ndim: int) -> tuple[str, ...]:
    """Columns of the table of a plane or a stack."""
    return STACK_OBJECT_COLUMNS if ndim == 3 else OBJECT_COLUMNS


def numbers_of(ndim: int) -> tuple[str, ...]:
    """The columns that are numbers; the others follow from them."""
    return tuple(column for column in columns_of(ndim) if column not in TEXT_COLUMNS)


def dtype_of(column: str) -> type:
    """Whole numbers or not."""
    return np.int64 if column in _WHOLE or column.startswith("bbox_") else np.float64


def table_of(
    numbers: dict[str, np.ndarray],
    ndim: int,
    classes: Sequence[LabelClass],
    region_classes: Sequence[LabelClass],
) -> pd.DataFrame:
    """A table, ordered by id, from its columns of numbers."""
    import pandas as pd

    names = {entry.id: entry.name for entry in classes}
    places = {entry.id: entry.name for entry in region_classes}
    text = {
        "class": [names.get(i, UNTYPED) for i in numbers["class_id"].tolist()],
        "region": [places.get(i, BACKGROUND) for i in numbers["region_id"].tolist()],
    }
    table = pd.DataFrame({column: (numbers | text)[column] for column in columns_of(ndim)})
    return table.sort_values("id", ignore_index=True)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """As CSV that gives every number back bit by bit. Raises `OSError`."""
    table.to_csv(path, index=False, chunksize=_ROWS_AT_ONCE)


def read_numbers(path: Path, ndim: int) -> dict[str, np.ndarray]:
    """The columns of numbers of a table.

    Raises
    ------
    WorkspaceError
        Where the file is missing or no such table.
    """
    import pandas as pd

    checked_size(path, LARGEST_TABLE, "a table")
    wanted = numbers_of(ndim)
    try:
        with refusals(path, "read"):
            found = pd.read_csv(
                path,
                usecols=list(wanted),
                # As text, since not every pandas reads each number as the one that was written.
                dtype={c: str if dtype_of(c) is np.float64 else np.int64 for c in wanted},
            )
            columns = {column: found[column].to_numpy(dtype_of(column)) for column in wanted}
    except (ValueError, OverflowError, MemoryError) as error:  # pandas' errors are ValueErrors
        raise WorkspaceError(
            f"{path} is damaged: no table of objects ({error}); bring it back from a backup"
        ) from error
    if found["id"].duplicated().any():
        raise WorkspaceError(f"{path} is damaged: an object has two rows")
    return columns


def remeasured(
    saved: Saved, stale: Iterable[int], *, everything: bool = False
) -> tuple[Saved, list[str]]:
    """With rows that fit the labels, whatever happened, and what was repaired, in words.

    Rows of objects that are not there go, objects without a row get one (of no class). Marks of
    objects that are not there go too, as later ids may be the same.

    Parameters
    ----------
    stale
        Objects whose pixels changed without their rows.
    everything
        All are.

    Raises
    ------
    WorkspaceError
        For ids or regions so large that measuring them would take more memory than there is.
    """
    ids = ids_in(saved.labels)
    saved = replace(saved, reviewed=saved.reviewed.among(ids.tolist()))
    odd = set(np.setxor1d(saved.table["id"].to_numpy(), ids).tolist()) | set(stale)
    if not (odd or everything):
        return saved, []
    _check_countable(int(ids.max(initial=0)), saved)
    saved = replace(saved, prediction=remeasure(saved.prediction))
    return saved, ["objects that were changed without their table rows were measured again"]


def _check_countable(largest: int, saved: Saved) -> None:
    if largest > LARGEST_ID:
        raise WorkspaceError(
            f"the labels have ids up to {largest:,}, more than {LARGEST_ID:,}; they are damaged, "
            "or must be numbered again"
        )
    region = max((entry.id for entry in saved.region_classes), default=0)
    if saved.regions is not None:
        region = max(region, int(saved.regions.max(initial=0)))
    if region > LARGEST_REGION:
        raise WorkspaceError(
            f"the regions have values up to {region:,}, more than {LARGEST_REGION:,}; they are "
            "damaged, or must be numbered again"
        )


def rows_between(before: pd.DataFrame, after: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Ids that have no row any more, and rows that are new or other than before."""
    import pandas as pd

    gone = np.setdiff1d(before["id"].to_numpy(), after["id"].to_numpy())
    place = pd.Index(before["id"].to_numpy()).get_indexer(after["id"].to_numpy())
    other = place < 0
    if other.all():
        return gone, after
    old = before.take(np.maximum(place, 0))
    for column in after.columns:
        if column not in TEXT_COLUMNS:
            one, two = old[column].to_numpy(), after[column].to_numpy()
            other |= (one != two) & ~((one != one) & (two != two))  # nan is the same as nan
    return gone, after[other]
