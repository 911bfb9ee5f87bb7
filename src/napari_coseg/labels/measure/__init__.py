"""Measurements of labels: one row per object, per region, per region and class.

`tables` counts pixels, for the result of every run. `run.measure` adds what costs more: shape,
intensity, distances and densities.
"""

from napari_coseg.labels.measure.labelled import labelled, remeasure
from napari_coseg.labels.measure.rows import class_table
from napari_coseg.labels.measure.tables import (
    BACKGROUND,
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    UNTYPED,
    object_table,
    region_table,
    table_of_pixels,
    with_positions,
)

__all__ = [
    "BACKGROUND",
    "OBJECT_COLUMNS",
    "STACK_OBJECT_COLUMNS",
    "UNTYPED",
    "class_table",
    "labelled",
    "object_table",
    "region_table",
    "remeasure",
    "table_of_pixels",
    "with_positions",
]
