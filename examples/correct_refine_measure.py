"""Correct a region, predict the objects again with it, merge two objects, and measure.

python examples/correct_refine_measure.py slide.tif --pixel-size-um 0.5 --output measurements
"""

from __future__ import annotations

import argparse
from pathlib import Path

import napari_coseg
from napari_coseg import editing


def main(
    image: Path, output: Path, pixel_size_um: float | None = None
) -> napari_coseg.Measurements:
    """Segment, correct, refine, correct again, measure."""
    state = napari_coseg.RunState()  # caches what the network encoded
    prediction = napari_coseg.segment(image, pixel_size_um=pixel_size_um, state=state)

    # A correction of the regions: everything in the upper left quarter belongs to region 1.
    regions = prediction.semantic.copy()
    height, width = regions.shape
    regions[: height // 2, : width // 2] = 1
    refined = napari_coseg.refine(state, corrected_regions=regions)

    # A correction of the objects: the first two are one.
    editor = editing.LabelEditor(refined)  # edits the labels of `refined` in place
    first, second = editor.table["id"][:2]
    editor.apply(editing.merge(editor, [first, second]))

    measured = napari_coseg.measure(editor.prediction, image)
    output.mkdir(parents=True, exist_ok=True)
    measured.objects.to_csv(output / "objects.csv", index=False)
    measured.summary.to_csv(output / "summary.csv", index=False)
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--pixel-size-um", type=float, help="where the file does not say it")
    parser.add_argument("--output", type=Path, default=Path("measurements"))
    arguments = parser.parse_args()
    print(main(arguments.image, arguments.output, arguments.pixel_size_um).summary)
