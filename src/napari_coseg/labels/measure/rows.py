"""Object ids to rows of a table, with memory for the ids that occur and not for the largest one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

LONGEST_LOOKUP = 2**22
"""Ids up to here are looked up in an array by id; larger ones by bisection."""
ROWS_AT_ONCE = 512
CLASS_COLUMNS = ("id", "class_id", "class_probability")


def ids_in(labels: np.ndarray) -> np.ndarray:
    """Ids that occur, int64, ascending, without 0.

    Parameters
    ----------
    labels
        Whole numbers, 0 or more, of 1 to 3 axes.
    """
    largest = int(labels.max(initial=0))
    planes = labels if labels.ndim == 3 else labels[None]
    step = ROWS_AT_ONCE if labels.ndim > 1 else max(len(labels), 1)
    bands = [plane[top : top + step] for plane in planes for top in range(0, len(plane), step)]
    if largest <= LONGEST_LOOKUP:
        occurs = np.zeros(largest + 1, bool)
        for band in bands:
            occurs[band.astype(np.intp, copy=False).ravel()] = True
        return np.flatnonzero(occurs[1:]) + 1
    found = np.unique(np.concatenate([np.unique(band) for band in bands])).astype(np.int64)
    return found[found > 0]


def row_lookup(ids: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from labels to 1 + the row of each pixel's object, 0 where there is none.

    Parameters
    ----------
    ids
        Of the rows, ascending, without 0. They must be all ids that occur in the labels.
    """
    largest = int(ids[-1]) if len(ids) else 0
    if largest == len(ids):
        return lambda labels: labels
    if largest <= LONGEST_LOOKUP:
        row_of = np.zeros(largest + 1, np.int32)
        row_of[ids] = np.arange(1, len(ids) + 1)
        return lambda labels: row_of[labels]
    with_background = np.concatenate([[0], ids])
    return lambda labels: np.searchsorted(with_background, labels).astype(np.int32)


def class_table(
    class_ids: np.ndarray,
    probabilities: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> pd.DataFrame:
    """Classes of objects as `object_table` takes them: columns `CLASS_COLUMNS`.

    Parameters
    ----------
    class_ids, probabilities
        (n,), one for each object; a probability is nan where not known.
    ids
        (n,); None means 1 to n.
    """
    import pandas as pd

    count = len(class_ids)
    values = (
        np.arange(1, count + 1) if ids is None else ids,
        class_ids,
        np.full(count, np.nan) if probabilities is None else probabilities,
    )
    return pd.DataFrame(dict(zip(CLASS_COLUMNS, values, strict=True)))


def classes_of_ids(known: pd.DataFrame | None, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class id (int64, 0 where unknown) and probability (float64, else nan) of each of the ids.

    Parameters
    ----------
    known
        Columns `CLASS_COLUMNS`. Of rows with the same id the last one counts; others are ignored.
    """
    if known is None:
        return np.zeros(len(ids), np.int64), np.full(len(ids), np.nan)
    by_id = known.drop_duplicates("id", keep="last").set_index("id").reindex(ids)
    class_ids = by_id["class_id"].fillna(0).to_numpy(np.int64)
    return class_ids, by_id["class_probability"].to_numpy(np.float64)
