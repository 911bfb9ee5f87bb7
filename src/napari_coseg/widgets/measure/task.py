"""What the Measure widget has done by the worker process, and how its tables cross the pipe.

The first half runs over there, the second half in napari; neither knows napari or Qt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image
from napari_coseg.widgets.background.process import JobContext, Reply
from napari_coseg.widgets.background.tables import pack_table, unpack_table
from napari_coseg.widgets.background.tasks import unpack_classes
from napari_coseg.widgets.corrected import LabelsOf, corrected_prediction

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.labels.measure.run import Measurements

MEASURE = "napari_coseg.widgets.measure.task:measure"
TABLES = ("objects", "summary")


# ---------------------------------------------------------------------------------------------
# In the worker process


def measure(
    job: JobContext,
    *,
    name: str,
    axes: str | None,
    offset: list[int],
    geometry: dict[str, Any],
    classes: list[list[Any]],
    region_classes: list[list[Any]],
    intensity: str,
) -> Reply:
    """Measure labels as they are now.

    Arrays of the job: ``labels``; ``regions`` where there are some; ``ids``, ``class_ids`` and
    ``probabilities`` of the objects; ``image`` where `axes` are given, of which the labels begin
    at `offset`.
    """
    from napari_coseg.images.intake import crop
    from napari_coseg.labels.measure.run import MeasureSettings
    from napari_coseg.labels.measure.run import measure as run

    job.progress(0.0, "reading the labels")
    arrays = {key: np.asarray(array) for key, array in job.arrays.items() if key != "image"}
    found = corrected_prediction(
        arrays["labels"],
        arrays.get("regions"),
        Geometry.from_json(geometry),
        LabelsOf(
            unpack_classes(classes), arrays["ids"], arrays["class_ids"], arrays["probabilities"]
        ),
        LabelsOf(unpack_classes(region_classes)),
    )
    image = None
    if axes is not None:
        whole = Image(job.arrays["image"], axes, name=name)
        bounds = [
            (first, first + length)
            for first, length in zip(offset, arrays["labels"].shape, strict=True)
        ]
        image, _ = crop(whole, bounds)
    measured = run(
        found,
        image,
        MeasureSettings.from_mapping({"intensity": intensity}),
        progress=job.progress,
        should_cancel=job.should_cancel,
    )
    return pack(measured)


def pack(measured: Measurements) -> Reply:
    """Both tables as JSON values and arrays."""
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name in TABLES:
        values[name], columns = pack_table(getattr(measured, name), name)
        arrays |= columns
    return Reply(values, arrays)


# ---------------------------------------------------------------------------------------------
# In napari


def unpack(reply: Reply) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of objects and of regions and classes that `pack` packed."""
    objects, summary = (unpack_table(reply.values[name], reply.arrays, name) for name in TABLES)
    return objects, summary
