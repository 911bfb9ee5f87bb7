"""Segment an image file and export the labels for QuPath.

python examples/segment_and_export.py slide.tif --pixel-size-um 0.5 --output results
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari_coseg


def main(image: Path, output: Path, pixel_size_um: float | None = None) -> list[Path]:
    """Segment, print how many objects of each class each region holds, and write files."""
    model = napari_coseg.load_model("default")
    prediction = napari_coseg.segment(image, model, pixel_size_um)
    print(prediction.instances.table.groupby(["region", "class"]).size())
    return napari_coseg.export(prediction, image, output, ["ome-tiff", "csv", "overlay", "geojson"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--pixel-size-um", type=float, help="where the file does not say it")
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    for path in main(arguments.image, arguments.output, arguments.pixel_size_um):
        print(path)
