"""Open napari with an image and what `napari-coseg segment` wrote of it.

    python -m napari_coseg.widgets.show IMAGE REGIONS OBJECTS TABLE

A separate program, started by `napari-coseg demo`, since the command line never imports Qt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import CosegError, ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Instances, Prediction
from napari_coseg.formats.ome_tiff import read_notes
from napari_coseg.images.readers.registry import read_image
from napari_coseg.widgets.layers import image_to_layer
from napari_coseg.widgets.outputs import add_prediction

if TYPE_CHECKING:
    from napari.viewer import Viewer


def show(viewer: Viewer, image: Image, prediction: Prediction) -> None:
    """Add the image and the two label layers of a prediction."""
    data, keywords = image_to_layer(image)
    layer = viewer.add_image(data, **keywords)
    add_prediction(viewer, layer, image.axes, prediction)


def read_prediction(regions: Path, objects: Path, table: Path) -> Prediction:
    """Read back a prediction that was written as OME-TIFF and CSV.

    Raises
    ------
    ImageError
        Where a file is missing or broken.
    """
    import pandas as pd

    semantic, labels = read_image(regions), read_image(objects)
    try:
        rows = pd.read_csv(table)
    except (OSError, ValueError) as error:
        raise ImageError(f"the object table {table} cannot be read: {error}") from error
    size = None if labels.geometry.is_known else (1.0,) * len(labels.spatial_axes)
    return Prediction(
        np.asarray(semantic.data),
        read_notes(regions).classes,
        Instances(np.asarray(labels.data), rows, read_notes(objects).classes),
        size,
        geometry=labels.geometry,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window and wait until it is closed; exit code 2 for files that cannot be shown."""
    parser = argparse.ArgumentParser(prog="python -m napari_coseg.widgets.show")
    for name in ("image", "regions", "objects", "table"):
        parser.add_argument(name, type=Path)
    chosen = parser.parse_args(arguments)
    try:
        prediction = read_prediction(chosen.regions, chosen.objects, chosen.table)
        image = _sized(read_image(chosen.image), prediction.geometry)
    except CosegError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    import napari

    viewer = napari.Viewer(title="napari-coseg")
    show(viewer, image, prediction)
    viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    napari.run()
    return 0


def _sized(image: Image, geometry: Geometry) -> Image:
    """The image with the geometry with which it was segmented, where it has none itself."""
    return image if image.geometry.is_known else replace(image, geometry=geometry)


if __name__ == "__main__":
    sys.exit(main())
