"""Tables across the pipe: columns as arrays, texts as numbers that point into a short list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def pack_table(table: pd.DataFrame, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """JSON values that describe a table, and its columns as arrays called ``<name> <column>``."""
    arrays: dict[str, np.ndarray] = {}
    texts: dict[str, list[str]] = {}
    for key in table.columns:
        column = table[key]
        if column.dtype.kind in "biuf":
            arrays[f"{name} {key}"] = column.to_numpy()
        else:
            codes, found = column.factorize()
            arrays[f"{name} {key}"] = codes.astype(np.int32)
            texts[key] = [str(text) for text in found]
    return {"columns": list(table.columns), "texts": texts}, arrays


def unpack_table(
    told: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str
) -> pd.DataFrame:
    """What `pack_table` packed."""
    import pandas as pd

    columns = {}
    for key in told["columns"]:
        array, texts = arrays[f"{name} {key}"], told["texts"].get(key)
        columns[key] = array if texts is None else np.array(texts, dtype=object)[array]
    return pd.DataFrame(columns)
