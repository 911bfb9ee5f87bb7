"""The tables of objects and of regions as CSV."""

from __future__ import annotations

from pathlib import Path

from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, Prediction
from napari_coseg.labels.measure import region_table, with_positions


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """One line per object: the columns of `napari_coseg.labels.measure` and world positions.

    UTF-8, decimal points.
    """
    table = with_positions(prediction.instances.table, prediction.geometry)
    with atomic_write(paths[0], overwrite) as partial:
        table.to_csv(partial, index=False)


def write_regions(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """One line per class of regions, background first: area, objects in it, and their density."""
    table = region_table(
        prediction.semantic,
        prediction.instances.table,
        pixel_size_um=prediction.pixel_size_um,
        semantic_classes=prediction.semantic_classes,
    )
    with atomic_write(paths[0], overwrite) as partial:
        table.to_csv(partial, index=False)
