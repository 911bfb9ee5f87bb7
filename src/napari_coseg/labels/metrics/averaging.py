"""Averages over the images of a dataset, in the three ways of the literature.

`mean`
    The mean over the images whose truth has the class; of each score, over those where it is
    finite. False positives on images without the class cost nothing.
`mean_as_released`
    The same, but with the details of the released code of Co-Seg++, to compare with its tables:
    Dice and IoU are the mean over *all* images, 1 where neither side has the class and 0 where only
    the prediction has it; SQ is 0, not left out, where nothing matched. Scores of objects, and the
    panoptic quality of regions, are as in `mean`; a Hausdorff distance is left out where a side is
    empty.
`pooled`
    Pixels, objects and matches of all images are summed before dividing: large images count more,
    and false positives count on every image. There is no pooled Hausdorff distance: one empty side
    in one image would make it infinite.

In all of them precision is left out where nothing was predicted, as it is 0 / 0 (the released code
stops); read it with the recall.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from napari_coseg.labels.metrics.instances import AggregatedJaccard, ObjectDice, PanopticQuality
from napari_coseg.labels.metrics.overlap import Overlap
from napari_coseg.labels.metrics.surface import HausdorffDistance

MEAN, AS_RELEASED, POOLED = "(mean)", "(mean as released)", "(pooled)"
"""Names of the three averages, in place of an image's name."""

SCORES = (
    "PQ",
    "DQ",
    "SQ",
    "F1",
    "Precision",
    "Recall",
    "Count_error",
    "AJI",
    "Object_dice",
    "Dice",
    "IoU",
    "HD_um",
    "HD95_um",
    "HD_1024px",
)
"""Names of all scores, in the order of tables. The last is of `Counts.at_1024`."""

IMAGES = "images"
"""Number of images of a mean: those with the class in the truth; of a pooled score all."""

Scores = dict[str, float]


@dataclass(frozen=True)
class Counts:
    """Counts of one class, or of all objects, in one image or in several.

    None means not counted. Add them to pool over images, without Hausdorff distances.

    Parameters
    ----------
    objects
        Matched and unmatched objects; of a region class, its connected components.
    jaccard
        Common pixels of objects.
    overlap
        Common pixels of masks.
    surface
        Distance of the outlines, in micrometres.
    at_1024
        The same in pixels of the image stretched to 1024 x 1024, as the papers measure it
        (`napari_coseg.labels.metrics.surface.spacing_at_1024`).
    object_dice
        Dice of objects with their partners.
    """

    objects: PanopticQuality | None = None
    jaccard: AggregatedJaccard | None = None
    overlap: Overlap | None = None
    surface: HausdorffDistance | None = None
    at_1024: HausdorffDistance | None = None
    object_dice: ObjectDice | None = None

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            _sum(self.objects, other.objects),
            _sum(self.jaccard, other.jaccard),
            _sum(self.overlap, other.overlap),
            object_dice=_sum(self.object_dice, other.object_dice),
        )

    @property
    def in_truth(self) -> bool:
        """Whether the truth has the class."""
        return bool(
            (self.objects and self.objects.truth_count) or (self.overlap and self.overlap.truth)
        )

    @property
    def in_prediction(self) -> bool:
        """Whether the prediction has the class."""
        return bool(
            (self.objects and self.objects.prediction_count)
            or (self.overlap and self.overlap.prediction)
        )

    def scores(self) -> Scores:
        """Every score that follows from these counts, by name, in the order of `SCORES`."""
        found: Scores = {}
        if (quality := self.objects) is not None:
            found |= {"PQ": quality.pq, "DQ": quality.dq, "SQ": quality.sq, "F1": quality.f1}
            found |= {"Precision": quality.precision, "Recall": quality.recall}
            found |= {"Count_error": abs(quality.prediction_count - quality.truth_count)}
        if self.jaccard is not None:
            found |= {"AJI": self.jaccard.index}
        if self.object_dice is not None:
            found |= {"Object_dice": self.object_dice.dice}
        if (overlap := self.overlap) is not None:
            found |= {"Dice": overlap.dice, "IoU": overlap.intersection_over_union}
        if (surface := self.surface) is not None:
            found |= {"HD_um": surface.largest, "HD95_um": surface.percentile_95}
        if self.at_1024 is not None:
            found |= {"HD_1024px": self.at_1024.largest}
        return found


def mean(images: Sequence[Counts]) -> Scores:
    """Mean over the images whose truth has the class; see the module's docstring.

    Returns
    -------
    dict
        By name; nan where no image has the score. `IMAGES` is the number with the class.
    """
    with_class = [counts.scores() for counts in images if counts.in_truth]
    return {IMAGES: len(with_class), **_means(_names(images), with_class)}


def mean_as_released(images: Sequence[Counts]) -> Scores:
    """Mean as in the released code of Co-Seg++; see the module's docstring.

    Returns
    -------
    dict
        By name; nan where no image has the score.
    """
    return _means(_names(images), [_as_released(counts) for counts in images])


def pooled(images: Sequence[Counts]) -> Scores:
    """Scores of the summed counts; see the module's docstring.

    Returns
    -------
    dict
        By name, without Hausdorff distances. `IMAGES` is the number of all.
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

    Classes with a score that is not finite are left out: in one image those that neither side has;
    a class that only the prediction has counts 0.
    """
    rows = list(classes)
    names = dict.fromkeys(name for scores in rows for name in scores if name != IMAGES)
    return _means(names, rows)


def finite_mean(values: Iterable[float]) -> float:
    """Mean of the finite values; nan without any."""
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
