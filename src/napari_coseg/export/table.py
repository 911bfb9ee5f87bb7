"""The object table as CSV."""

from __future__ import annotations

from pathlib import Path

from napari_coseg.export.files import written
from napari_coseg.types import Image, Prediction


def write(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """One line an object, the columns of `napari_coseg.measure`; UTF-8, dots in numbers."""
    with written(paths[0], overwrite) as passing:
        prediction.instances.table.to_csv(passing, index=False)
