"""What other stains, scanners and a wrong pixel size cost, beside the classical method.

    python benchmarks/robustness.py [--model multi-organ] [--dataset consep] [--split test]
        [--partition NAME] [--root DATA]

Each row changes every image in one way and scores nuclei against the unchanged labels: means of
panoptic quality, aggregated Jaccard index and Dice over the images. `classical` is the method of
`classical_baseline.py` on the same images with the same pixel size.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from baseline_scores import Scores, data_root, score_nuclei
from classical_baseline import segment_nuclei
from PIL import Image as Picture

from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.inference.loading import load_model
from napari_coseg.inference.run import segment

WARM = (1.0, 0.93, 0.82)
COOL = (0.88, 0.95, 1.0)
"""Factors of red, green and blue: another white balance."""


def scaled(*factors: float) -> Callable[[Sample], Sample]:
    """Multiply the channels."""

    def change(sample: Sample) -> Sample:
        image = np.clip(sample.image * np.asarray(factors), 0, 255)
        return replace(sample, image=image.astype(np.uint8))

    return change


def density(factor: float) -> Callable[[Sample], Sample]:
    """Multiply the optical density: a darker or paler stain."""

    def change(sample: Sample) -> Sample:
        image = 255 * ((sample.image + 1) / 256.0) ** factor
        return replace(sample, image=np.clip(image, 0, 255).astype(np.uint8))

    return change


def jpeg(sample: Sample) -> Sample:
    """Quality 50."""
    file = io.BytesIO()
    Picture.fromarray(sample.image).save(file, "JPEG", quality=50)
    return replace(sample, image=np.asarray(Picture.open(file)))


def with_pixel_size(factor: float) -> Callable[[Sample], Sample]:
    """A pixel size that is wrong by a factor."""
    return lambda sample: replace(sample, pixel_size_um=sample.pixel_size_um * factor)


CHANGES: dict[str, Callable[[Sample], Sample]] = {
    "as it is": lambda sample: sample,
    "pixel size x 0.5": with_pixel_size(0.5),
    "pixel size x 2": with_pixel_size(2.0),
    "JPEG quality 50": jpeg,
    "20 % darker": scaled(0.8, 0.8, 0.8),
    "warm white balance": scaled(*WARM),
    "cool white balance": scaled(*COOL),
    "stain x 0.6": density(0.6),
    "stain x 1.7": density(1.7),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="multi-organ")
    parser.add_argument("--dataset", default="consep")
    parser.add_argument("--split", default="test")
    parser.add_argument("--partition")
    parser.add_argument("--root", help="folder with the folder of the dataset")
    arguments = parser.parse_args()
    root = data_root(arguments.root) / arguments.dataset
    samples = open_dataset(arguments.dataset, root, arguments.partition).load_all(arguments.split)
    model = load_model(arguments.model)

    def ours(sample: Sample) -> np.ndarray:
        return segment(sample.image, model, sample.pixel_size_um).instances.labels

    def line(scores: Scores) -> str:
        return " | ".join(f"{scores[name]:.3f}" for name in ("pq", "aji", "dice"))

    print("| images | " + model.card.name + " PQ | AJI | Dice | classical PQ | AJI | Dice |")
    print("|---|---|---|---|---|---|---|")
    for name, change in CHANGES.items():
        changed = [change(sample) for sample in samples]
        found = [line(score_nuclei(changed, method)[0]) for method in (ours, segment_nuclei)]
        print(f"| {name} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
