"""From labels layers with a user's edits to a prediction that can be written.

Edits change labels but not the numbers that a run measured, so objects are measured again. Only
class and probability are taken from the layer's features, by id; an object without a row has no
class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LABEL_DTYPE, LARGEST_ID, LabelClass, LabelNotes, Prediction

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = "napari_coseg"
"""Key of ``layer.metadata`` under which this plugin keeps its own entries."""


def layer_notes(metadata: Mapping[str, Any], features: pd.DataFrame | None) -> LabelNotes:
    """What a labels layer's metadata and features say about its labels."""
    from napari_coseg.labels.measure import class_table

    ours = dict(metadata.get(METADATA_KEY, {}))
    classes = tuple(
        LabelClass(entry["id"], entry["name"], tuple(entry["color"]))
        for entry in ours.get("classes", ())
    )
    known = None
    if features is not None and {"index", "class"} <= set(features.columns):
        number_of = {entry.name: entry.id for entry in classes}
        known = class_table(
            np.array([number_of.get(str(name), 0) for name in features["class"]], np.int64),
            np.asarray(features.get("probability", np.full(len(features), np.nan)), float),
            features["index"].to_numpy(np.int64),
        )
    return LabelNotes(classes, known, dict(ours.get("provenance", {})))


def corrected_prediction(
    labels: np.ndarray | None,
    regions: np.ndarray | None,
    geometry: Geometry | Sequence[float],
    of_labels: LabelNotes,
    of_regions: LabelNotes,
) -> Prediction:
    """Measure the labels as they are now.

    Parameters
    ----------
    labels
        Object ids, whole numbers (Y, X) or (Z, Y, X); None where there are none.
    regions
        Region class ids of the same shape, 0 to 255; None where there are none.
    geometry
        Of the labels, or the size of a pixel along their axes in micrometres.

    Raises
    ------
    ImageError
        Where there is neither, the shapes differ, or ids do not fit 31 bits (regions: 8 bits).
    """
    from napari_coseg.labels.measure.labelled import labelled, named
    from napari_coseg.labels.measure.rows import ids_in

    either = labels if labels is not None else regions
    if either is None:
        raise ImageError("there are no labels to export; choose a layer of objects or of regions")
    objects = _fitting(labels, either.shape, LABEL_DTYPE, "objects")
    semantic = _fitting(regions, either.shape, np.uint8, "regions")
    largest = int(objects.max(initial=0))
    if largest > LARGEST_ID:
        raise ImageError(
            f"the objects have ids up to {largest:,}, more than {LARGEST_ID:,}; renumber them, "
            "for example with skimage.segmentation.relabel_sequential"
        )
    if not isinstance(geometry, Geometry):
        geometry = Geometry.from_spacing(geometry)
    return labelled(
        objects,
        semantic,
        geometry=geometry,
        known=of_labels.known,
        classes=of_labels.classes,
        region_classes=named(of_regions.classes, ids_in(semantic), "region", (200, 200, 200)),
        provenance=of_labels.provenance or of_regions.provenance,
    )


def _fitting(
    labels: np.ndarray | None, shape: tuple[int, ...], dtype: type[np.integer[Any]], what: str
) -> np.ndarray:
    if labels is None:
        return np.zeros(shape, dtype)
    if labels.shape != shape:
        raise ImageError(
            f"the {what} have shape {labels.shape}, the other layer {shape}; choose two layers of "
            "one image"
        )
    largest = np.iinfo(dtype).max
    if labels.size and (labels.min() < 0 or labels.max() > largest):
        raise ImageError(
            f"the {what} have values from {labels.min()} to {labels.max()}; expected 0 to {largest}"
        )
    return labels.astype(dtype)
