"""Open napari with an image and what `napari-coseg segment` wrote of it.

    python -m napari_coseg.widgets.show IMAGE LABELS

A separate program, started by `napari-coseg demo`, since the command line never imports Qt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.errors import CosegError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Prediction
from napari_coseg.formats.results import find_results, read_result
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window and wait until it is closed; exit code 2 for files that cannot be shown."""
    parser = argparse.ArgumentParser(prog="python -m napari_coseg.widgets.show")
    for name in ("image", "labels"):
        parser.add_argument(name, type=Path)
    chosen = parser.parse_args(arguments)
    try:
        image = read_image(chosen.image)
        prediction = read_result(find_results([chosen.labels])[0])
        image = _sized(image, prediction.geometry)
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
