"""Numbers from labels: one row an object, one row a region, one row a region and class.

`tables` counts pixels: what every result of a run comes with. `run.measure` adds what costs more:
shape, intensity, distances and densities.
"""

from napari_coseg.labels.measure.tables import (
    BACKGROUND,
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    UNTYPED,
    object_table,
    region_table,
    table_of_pixels,
)

__all__ = [
    "BACKGROUND",
    "OBJECT_COLUMNS",
    "STACK_OBJECT_COLUMNS",
    "UNTYPED",
    "object_table",
    "region_table",
    "table_of_pixels",
]
