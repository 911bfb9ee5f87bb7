"""Fine-tune the shipped model on a few labelled images, and score it before and after on others.

Each folder has ``images/``, ``objects/`` (the id of the object at each pixel, as 16-bit PNG of the
same names) and ``dataset.json``, for example ``{"pixel_size_um": 0.5}``.

python examples/fine_tune.py train_folder test_folder --minutes 5 --output nuclei.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import napari_coseg


def main(
    train: Path, test: Path, output: Path, settings: napari_coseg.FinetuneSettings
) -> pd.Series:
    """Fine-tune, and return the panoptic quality of objects before and after."""
    before = napari_coseg.evaluate("default", test)
    result = napari_coseg.finetune(train, output, settings=settings)
    for note in result.notes:
        print(note)
    after = napari_coseg.evaluate(napari_coseg.load_model(adapter=result.adapter), test)
    return pd.Series({"before": panoptic_quality(before), "after": panoptic_quality(after)})


def panoptic_quality(table: pd.DataFrame) -> float:
    """Mean over images, of all objects whatever their class."""
    rows = table.query("image == '(mean)' and `class` == 'all' and metric == 'PQ'")
    return float(rows["value"].iloc[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--output", type=Path, default=Path("adapter.safetensors"))
    arguments = parser.parse_args()
    minutes = napari_coseg.FinetuneSettings(minutes=arguments.minutes)
    print(main(arguments.train, arguments.test, arguments.output, minutes))
