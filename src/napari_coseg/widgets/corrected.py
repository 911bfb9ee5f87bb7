"""From labels layers with a user's edits to a prediction that can be written.

Edits change labels but not the numbers that a run measured, so objects are measured again. Only
class and probability are taken from the layer's features, by id; an object without a row has no
class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LABEL_DTYPE, LARGEST_ID, Instances, LabelClass, Prediction

if TYPE_CHECKING:
    import pandas as pd

METADATA_KEY = "napari_coseg"
"""Key of ``layer.metadata`` under which this plugin keeps its own entries."""


@dataclass(frozen=True, eq=False)
class LabelsOf:
    """What is known about one labels layer besides its pixels.

    Parameters
    ----------
    classes
        Classes of its values or of its objects; empty where they are not known.
    ids, class_ids, probabilities
        (N,), of the objects that have a row in the layer's features.
    provenance
        Of the run that made the layer; empty where no run did.
    """

    classes: tuple[LabelClass, ...] = ()
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    class_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros(0))
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, metadata: Mapping[str, Any], features: pd.DataFrame | None) -> LabelsOf:
        """Read a layer's metadata and features."""
        ours = dict(metadata.get(METADATA_KEY, {}))
        classes = tuple(
            LabelClass(entry["id"], entry["name"], tuple(entry["color"]))
            for entry in ours.get("classes", ())
        )
        provenance = dict(ours.get("provenance", {}))
        if features is None or not {"index", "class"} <= set(features.columns):
            return cls(classes, provenance=provenance)
        number_of = {entry.name: entry.id for entry in classes}
        class_ids = [number_of.get(str(name), 0) for name in features["class"]]
        probabilities = features.get("probability", np.full(len(features), np.nan))
        return cls(
            classes,
            features["index"].to_numpy(np.int64),
            np.array(class_ids, np.int64),
            np.asarray(probabilities, float),
            provenance,
        )

    @property
    def known(self) -> pd.DataFrame:
        """Class and probability of the objects, as `object_table` takes them."""
        from napari_coseg.labels.measure import class_table

        return class_table(self.class_ids, self.probabilities, self.ids)


def corrected_prediction(
    labels: np.ndarray | None,
    regions: np.ndarray | None,
    geometry: Geometry | Sequence[float],
    of_labels: LabelsOf,
    of_regions: LabelsOf,
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
    from napari_coseg.labels.measure import object_table

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
    region_classes = _named(semantic, of_regions.classes)
    table = object_table(
        objects,
        semantic,
        pixel_size_um=geometry.known_size_um,
        known=of_labels.known,
        classes=of_labels.classes,
        semantic_classes=region_classes,
    )
    return Prediction(
        semantic,
        region_classes,
        Instances(objects, table, of_labels.classes),
        provenance=of_labels.provenance or of_regions.provenance,
        geometry=geometry,
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


def _named(semantic: np.ndarray, classes: tuple[LabelClass, ...]) -> tuple[LabelClass, ...]:
    """The classes, and one named by its number for every value without a class."""
    missing = set(np.unique(semantic).tolist()) - {0, *(entry.id for entry in classes)}
    plain = (LabelClass(value, f"region {value}", (200, 200, 200)) for value in sorted(missing))
    return (*classes, *plain)
