"""Tables, classes and labels between the processes, as JSON values and arrays.

Columns of a table are arrays; texts are indices into a short list of texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass, LabelNotes, Prediction
from napari_coseg.labels.measure import class_table
from napari_coseg.widgets.corrected import corrected_prediction

if TYPE_CHECKING:
    import pandas as pd

_ROWS = {
    "ids": ("id", np.int64),
    "class_ids": ("class_id", np.int64),
    "probabilities": ("class_probability", np.float64),
}
"""Arrays of a job: columns of `LabelNotes.known` and their types."""


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
    packed: Mapping[str, Any], arrays: Mapping[str, np.ndarray], name: str
) -> pd.DataFrame:
    """What `pack_table` packed."""
    import pandas as pd

    columns = {}
    for key in packed["columns"]:
        array, texts = arrays[f"{name} {key}"], packed["texts"].get(key)
        columns[key] = array if texts is None else np.array(texts, dtype=object)[array]
    return pd.DataFrame(columns)


def pack_classes(classes: Iterable[LabelClass]) -> list[list[Any]]:
    """Classes as JSON values."""
    return [[entry.id, entry.name, list(entry.color)] for entry in classes]


def unpack_classes(packed: Iterable[Any]) -> tuple[LabelClass, ...]:
    """What `pack_classes` packed."""
    return tuple(LabelClass(id_, name, tuple(color)) for id_, name, color in packed)


def row_arrays(of_labels: LabelNotes) -> dict[str, np.ndarray]:
    """Class and probability of the objects that have them, as arrays of a job."""
    known = of_labels.known
    return {
        name: np.zeros(0, dtype) if known is None else known[column].to_numpy(dtype)
        for name, (column, dtype) in _ROWS.items()
    }


def measured(
    arrays: Mapping[str, Any],
    geometry: Mapping[str, Any],
    classes: Sequence[Any],
    region_classes: Sequence[Any],
    provenance: Mapping[str, Any],
) -> Prediction:
    """Measure the labels that `outputs.label_request` asks about.

    Parameters
    ----------
    arrays
        Of the job: ``labels`` and ``regions``, of which one may be missing, and `row_arrays`.
    """
    found = {name: np.asarray(array) for name, array in arrays.items() if name != "image"}
    known = class_table(found["class_ids"], found["probabilities"], found["ids"])
    return corrected_prediction(
        found.get("labels"),
        found.get("regions"),
        Geometry.from_json(geometry),
        LabelNotes(unpack_classes(classes), known, dict(provenance)),
        LabelNotes(unpack_classes(region_classes)),
    )
