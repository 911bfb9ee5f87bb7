"""What the baselines share: how their answers are scored, and one row of CSV an answer.

Scores are means over images, as in the papers that report them; `pooled_` ones count all images
as one.
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
    """The folder given, else NAPARI_COSEG_DATA, else ../shared/data beside the repository."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from cases.data_root import data_root as find

    root = Path(argument) if argument else find()
    if root is None or not root.is_dir():
        print("no research images here: give --root, or set NAPARI_COSEG_DATA")
        raise SystemExit(0)
    return root


def _mean(values: Sequence[float]) -> float:
    """Over the images where the score means something; nan where it never does."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def score_nuclei(
    samples: Sequence[Sample], segment: Callable[[Sample], np.ndarray]
) -> tuple[Scores, list[np.ndarray]]:
    """Object scores of `segment`, which gives int labels on the sample's own pixels."""
    rows, pooled, answers = [], PanopticQuality(0, 0, 0, 0.0), []
    for sample in samples:
        answer = segment(sample)
        table = contingency(sample.instances, answer)
        quality = panoptic_quality(table)
        dice = mask_overlap(sample.instances, answer).dice
        pooled = pooled + quality
        rows.append((quality.pq, quality.dq, quality.sq, aggregated_jaccard_index(table), dice))
        answers.append(answer)
    means = [_mean(column) for column in zip(*rows, strict=True)]
    scores = dict(zip(("pq", "dq", "sq", "aji", "dice"), means, strict=True))
    return scores | {"pooled_pq": pooled.pq}, answers


def score_glands(
    samples: Sequence[Sample], segment: Callable[[Sample], np.ndarray]
) -> tuple[Scores, list[np.ndarray]]:
    """Dice of `segment`, which gives a mask on the sample's own pixels."""
    answers = [segment(sample) for sample in samples]
    pairs = zip(samples, answers, strict=True)
    overlaps = [mask_overlap(sample.semantic, answer) for sample, answer in pairs]
    both = 2 * sum(o.intersection for o in overlaps)
    areas = sum(o.truth + o.prediction for o in overlaps)
    return {
        "dice": _mean([o.dice for o in overlaps]),
        "pooled_dice": both / areas,
    }, answers


def write_row(labels: dict[str, object], scores: Scores, file: Path | None = None) -> None:
    """Header and one row, on screen and, where a file is given, appended to it."""
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
    print("nothing to run: shared by the baselines")
