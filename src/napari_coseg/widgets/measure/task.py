"""The job of the worker process that Measure asks for, and its tables.

The first half runs in the worker process, the second half in napari. Neither knows napari or Qt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.types import Image
from napari_coseg.widgets.background.process import JobContext, Reply
from napari_coseg.widgets.background.tables import measured, pack_table, unpack_table

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
    intensity: str,
    **labels: Any,
) -> Reply:
    """Measure labels as they are now.

    Arrays of the job: those of `background.tables.measured`; ``image`` where `axes` are given, in
    which the labels begin at `offset`.
    """
    from napari_coseg.images.intake import crop
    from napari_coseg.labels.measure.run import MeasureSettings
    from napari_coseg.labels.measure.run import measure as run

    job.progress(0.0, "reading the labels")
    found = measured(job.arrays, **labels)
    image = None
    if axes is not None:
        whole = Image(job.arrays["image"], axes, name=name)
        shape = found.instances.labels.shape
        bounds = [(first, first + size) for first, size in zip(offset, shape, strict=True)]
        image, _ = crop(whole, bounds)
    return pack(
        run(
            found,
            image,
            MeasureSettings.from_mapping({"intensity": intensity}),
            progress=job.progress,
            should_cancel=job.should_cancel,
        )
    )


def pack(measurements: Measurements) -> Reply:
    """Both tables as JSON values and arrays."""
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name in TABLES:
        values[name], columns = pack_table(getattr(measurements, name), name)
        arrays |= columns
    return Reply(values, arrays)


# ---------------------------------------------------------------------------------------------
# In napari


def unpack(reply: Reply) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of objects and of regions and classes that `pack` packed."""
    objects, summary = (unpack_table(reply.values[name], reply.arrays, name) for name in TABLES)
    return objects, summary
