"""From the scores of images to the scores of a dataset, in the three ways the field knows.

`mean` (also called the authors' way)
    The mean over the images whose truth has the class; of each score, over those of them where it
    is a finite number. What is found on images without the class costs nothing.
`mean_as_released`
    The same, but as the released code of Co-Seg++ does it in detail, for a row beside its tables:
    Dice and IoU are the mean over *all* images, 1 where neither side has the class and 0 where only
    the prediction has; SQ is 0, not left out, where nothing matched. Scores of objects, and the
    panoptic quality of regions, are as in `mean`; a Hausdorff distance is left out wherever a side
    is empty.
`pooled`
    Pixels, objects and matches of all images are summed before they are divided: large images
    count more, and false finds count wherever they are. There is no pooled Hausdorff distance: one
    empty side in one image would make it infinite.

In all of them a precision is left out where nothing was found, for it is 0 / 0 there (the released
code stops); read it beside the recall.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from napari_coseg.labels.metrics.instances import AggregatedJaccard, PanopticQuality
from napari_coseg.labels.metrics.overlap import Overlap
from napari_coseg.labels.metrics.surface import HausdorffDistance

MEAN, AS_RELEASED, POOLED = "(mean)", "(mean as released)", "(pooled)"
"""Names of the three ways; they stand where the name of an image would."""

SCORES = (
    "PQ",
    "DQ",
    "SQ",
    "F1",
    "Precision",
    "Recall",
    "AJI",
    "Dice",
    "IoU",
    "HD_um",
    "HD95_um",
    "HD_1024px",
)
"""Names of all scores, in the order in which tables show them. The last is `Counts.at_1024`."""

IMAGES = "images"
"""How many images a mean is over: those with the class in the truth; of a pooled score all."""

Scores = dict[str, float]


@dataclass(frozen=True)
class Counts:
    """What was counted of one class, or of all objects, in one image or in several.

    None is what was not counted. Add them to pool over images; Hausdorff distances are lost then.

    Parameters
    ----------
    objects
        Matched and unmatched objects; of a region class, its connected parts.
    jaccard
        Pixels shared by objects.
    overlap
        Pixels shared by masks.
    surface
        Distance of the outlines, in micrometres.
    at_1024
        The same in pixels of the image stretched to 1024 x 1024, as the papers measure it
        (`napari_coseg.labels.metrics.surface.spacing_at_1024`).
    """

    objects: PanopticQuality | None = None
    jaccard: AggregatedJaccard | None = None
    overlap: Overlap | None = None
    surface: HausdorffDistance | None = None
    at_1024: HausdorffDistance | None = None

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            _sum(self.objects, other.objects),
            _sum(self.jaccard, other.jaccard),
            _sum(self.overlap, other.overlap),
        )

    @property
    def in_truth(self) -> bool:
        """Whether the truth has the class at all."""
        return bool(
            (self.objects and self.objects.truth_count) or (self.overlap and self.overlap.truth)
        )

    @property
    def in_prediction(self) -> bool:
        """Whether the prediction has the class at all."""
        return bool(
            (self.objects and self.objects.prediction_count)
            or (self.overlap and self.overlap.prediction)
        )

    def scores(self) -> Scores:
        """Every score that these counts allow, by the names of `SCORES` and in their order."""
        found: Scores = {}
        if (quality := self.objects) is not None:
            found |= {"PQ": quality.pq, "DQ": quality.dq, "SQ": quality.sq, "F1": quality.f1}
            found |= {"Precision": quality.precision, "Recall": quality.recall}
        if self.jaccard is not None:
            found |= {"AJI": self.jaccard.index}
        if (overlap := self.overlap) is not None:
            found |= {"Dice": overlap.dice, "IoU": overlap.intersection_over_union}
        if (surface := self.surface) is not None:
            found |= {"HD_um": surface.largest, "HD95_um": surface.percentile_95}
        if self.at_1024 is not None:
            found |= {"HD_1024px": self.at_1024.largest}
        return found


def mean(images: Sequence[Counts]) -> Scores:
    """Mean over the images whose truth has the class; see the module's text.

    Returns
    -------
    dict
        By name; nan where no image has the score. `IMAGES` is how many have the class.
    """
    with_class = [counts.scores() for counts in images if counts.in_truth]
    return {IMAGES: len(with_class), **_means(_names(images), with_class)}


def mean_as_released(images: Sequence[Counts]) -> Scores:
    """Mean as the released code of Co-Seg++ takes it; see the module's text.

    Returns
    -------
    dict
        By name; nan where no image has the score.
    """
    return _means(_names(images), [_as_released(counts) for counts in images])


def pooled(images: Sequence[Counts]) -> Scores:
    """Scores of the summed counts; see the module's text.

    Returns
    -------
    dict
        By name, without Hausdorff distances. `IMAGES` is how many there are.
    """
    if not images:
        return {IMAGES: 0}
    summed = replace(reduce(operator.add, images), surface=None, at_1024=None)
    return {IMAGES: len(images), **summed.scores()}


AVERAGES: dict[str, Callable[[Sequence[Counts]], Scores]] = {
    MEAN: mean,
    AS_RELEASED: mean_as_released,
    POOLED: pooled,
}


def mean_over_classes(classes: Iterable[Scores]) -> Scores:
    """Mean of each score over classes: mPQ, mean F1, mIoU and so on.

    Classes where the score is no finite number are left out: in one image those that neither side
    has, so that a class that is only found, and is not there, counts 0.
    """
    rows = list(classes)
    names = dict.fromkeys(name for scores in rows for name in scores if name != IMAGES)
    return _means(names, rows)


def finite_mean(values: Iterable[float]) -> float:
    """Mean of the finite ones; nan where there is none."""
    known = [float(value) for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")


def _as_released(counts: Counts) -> Scores:
    scores = counts.scores()
    if counts.in_truth:
        return scores | ({"SQ": 0.0} if math.isnan(scores.get("SQ", 0.0)) else {})
    value = 0.0 if counts.in_prediction else 1.0
    return {name: value for name in ("Dice", "IoU") if name in scores}


def _names(images: Iterable[Counts]) -> list[str]:
    return list(dict.fromkeys(name for counts in images for name in counts.scores()))


def _means(names: Iterable[str], rows: Sequence[Scores]) -> Scores:
    return {name: finite_mean(row.get(name, math.nan) for row in rows) for name in names}


def _sum(one: Any, other: Any) -> Any:
    return None if one is None or other is None else one + other
