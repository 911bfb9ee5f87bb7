"""Label images, and what is known of them, to a `Prediction` whose objects are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LABEL_DTYPE, Instances, LabelClass, Prediction, geometry_of
from napari_coseg.labels.measure.tables import object_table

if TYPE_CHECKING:
    import pandas as pd


def labelled(
    objects: np.ndarray | None,
    regions: np.ndarray | None = None,
    *,
    pixel_size_um: Sequence[float] | None = None,
    geometry: Geometry | None = None,
    known: pd.DataFrame | None = None,
    classes: tuple[LabelClass, ...] = (),
    region_classes: tuple[LabelClass, ...] = (),
    provenance: dict[str, Any] | None = None,
) -> Prediction:
    """Measure label images as they are. The arrays are not copied.

    Parameters
    ----------
    objects
        Object ids, whole numbers (Y, X) or (Z, Y, X), 0 is background; ids may have gaps. None
        where there are none; `regions` is then given.
    regions
        Region class ids on the same grid, 0 is background; None where there are none.
    pixel_size_um, geometry
        As for `Prediction`.
    known
        Classes of objects by id, as for `object_table`.
    classes, region_classes
        What class ids of objects, and values of `regions`, mean.

    Raises
    ------
    ImageError
        Where there are no labels, or their pixel size is not known or does not fit.
    """
    if objects is None:
        if regions is None:
            raise ImageError("there are no labels; give objects, regions or both")
        objects = np.zeros(regions.shape, LABEL_DTYPE)
    geometry = geometry_of(pixel_size_um, geometry, "ZYX"[-objects.ndim :])
    table = object_table(
        objects,
        regions,
        pixel_size_um=geometry.known_size_um,
        known=known,
        classes=classes,
        semantic_classes=region_classes,
    )
    instances = Instances(objects, table, classes)
    return Prediction(regions, region_classes, instances, provenance=provenance, geometry=geometry)


def remeasure(prediction: Prediction) -> Prediction:
    """The same labels with a new table; classes and their probabilities are taken from the old."""
    instances = prediction.instances
    table = object_table(
        instances.labels,
        prediction.regions,
        pixel_size_um=prediction.pixel_size_um,
        known=instances.table,
        classes=instances.classes,
        semantic_classes=prediction.semantic_classes,
    )
    return replace(prediction, instances=replace(instances, table=table))


def named(
    classes: Sequence[LabelClass], ids: np.ndarray, word: str, color: tuple[int, int, int]
) -> tuple[LabelClass, ...]:
    """The classes, and ``<word> <id>`` for each further id but 0."""
    further = sorted({int(i) for i in ids} - {0, *(entry.id for entry in classes)})
    return (*classes, *(LabelClass(i, f"{word} {i}", color) for i in further))
