"""Scores of the baselines and their CSV rows.

Scores are means over images, as in the papers; `pooled_` scores are over all images together.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from napari_coseg.datasets.base import Sample
from napari_coseg.labels.metrics.instances import (
    PanopticQuality,
    aggregated_jaccard_index,
    contingency,
    panoptic_quality,
)
from napari_coseg.labels.metrics.overlap import mask_overlap

Scores = dict[str, float]


def data_root(argument: str | None) -> Path:
    """The given folder, else NAPARI_COSEG_DATA, else ../shared/data beside the repository."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from cases.data_root import data_root as find

    root = Path(argument) if argument else find()
    if root is None or not root.is_dir():
        print("no research images found: give --root, or set NAPARI_COSEG_DATA")
        raise SystemExit(0)
    return root


def _mean(values: Sequence[float]) -> float:
    """Mean of the scores that are defined; nan if none is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def score_nuclei(
    samples: Sequence[Sample], segment: Callable[[Sample], np.ndarray]
) -> tuple[Scores, list[np.ndarray]]:
    """Score the int labels that `segment` returns on a sample's grid."""
    rows, pooled, predictions = [], PanopticQuality(0, 0, 0, 0.0), []
    for sample in samples:
        labels = segment(sample)
        table = contingency(sample.instances, labels)
        quality = panoptic_quality(table)
        dice = mask_overlap(sample.instances, labels).dice
        pooled = pooled + quality
        rows.append((quality.pq, quality.dq, quality.sq, aggregated_jaccard_index(table), dice))
        predictions.append(labels)
    means = [_mean(column) for column in zip(*rows, strict=True)]
    scores = dict(zip(("pq", "dq", "sq", "aji", "dice"), means, strict=True))
    return scores | {"pooled_pq": pooled.pq}, predictions


def score_glands(
    samples: Sequence[Sample], segment: Callable[[Sample], np.ndarray]
) -> tuple[Scores, list[np.ndarray]]:
    """Score the mask that `segment` returns on a sample's grid."""
    masks = [segment(sample) for sample in samples]
    pairs = zip(samples, masks, strict=True)
    overlaps = [mask_overlap(sample.semantic, mask) for sample, mask in pairs]
    both = 2 * sum(o.intersection for o in overlaps)
    areas = sum(o.truth + o.prediction for o in overlaps)
    return {
        "dice": _mean([o.dice for o in overlaps]),
        "pooled_dice": both / areas,
    }, masks


def write_row(labels: dict[str, object], scores: Scores, file: Path | None = None) -> None:
    """Print a header and a row; append them to a file if one is given."""
    row = labels | {name: f"{value:.4f}" for name, value in scores.items()}
    writer = csv.DictWriter(sys.stdout, list(row))
    writer.writeheader()
    writer.writerow(row)
    if file is not None:
        new = not file.exists()
        with file.open("a", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    print("not a program: functions that the baselines share")
