"""Overlap of masks: Dice and intersection over union, of one class and over classes.

Conventions
-----------
Background is not a class and is never averaged over. A class that neither side has gives nan and is
left out of the mean over classes; one that only one side has gives 0 and counts. How images without
a class count in a mean over images is decided in `napari_coseg.labels.metrics.averaging`.

The papers' "mIoU" of one class is the mean over images of that class's intersection over union.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import ImageError


@dataclass(frozen=True)
class Overlap:
    """The pixel counts of every overlap score; add them to pool over images.

    Parameters
    ----------
    intersection
        Pixels in both masks.
    truth, prediction
        Pixels in each.
    """

    intersection: int
    truth: int
    prediction: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.intersection + other.intersection,
            self.truth + other.truth,
            self.prediction + other.prediction,
        )

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of both; nan where both are empty."""
        total = self.truth + self.prediction
        return 2 * self.intersection / total if total else float("nan")

    @property
    def intersection_over_union(self) -> float:
        """Intersection over union (Jaccard index); nan where both are empty."""
        union = self.truth + self.prediction - self.intersection
        return self.intersection / union if union else float("nan")


def mask_overlap(truth: np.ndarray, prediction: np.ndarray) -> Overlap:
    """Count the common pixels of two masks of one shape. Everything but 0 counts as inside.

    For one class of a semantic image give ``truth == id`` and ``prediction == id``.

    Raises
    ------
    ImageError
        Where the shapes differ.
    """
    check_same_shape(truth, prediction)
    inside_truth, inside_prediction = truth != 0, prediction != 0
    return Overlap(
        int(np.count_nonzero(inside_truth & inside_prediction)),
        int(np.count_nonzero(inside_truth)),
        int(np.count_nonzero(inside_prediction)),
    )


def dice(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Dice coefficient of two masks; nan where both are empty. See `mask_overlap`."""
    return mask_overlap(truth, prediction).dice


def intersection_over_union(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Jaccard index of two masks; nan where both are empty. See `mask_overlap`."""
    return mask_overlap(truth, prediction).intersection_over_union


def class_overlaps(
    truth: np.ndarray, prediction: np.ndarray, class_ids: Iterable[int]
) -> dict[int, Overlap]:
    """`mask_overlap` of each class of two semantic images.

    Parameters
    ----------
    truth, prediction
        Class ids, of one shape.
    class_ids
        Which classes; background only if listed.

    Raises
    ------
    ImageError
        Where the shapes differ.
    """
    return {int(c): mask_overlap(truth == c, prediction == c) for c in class_ids}


def mean_intersection_over_union(overlaps: Iterable[Overlap]) -> float:
    """Mean over classes (mIoU) of what `class_overlaps` returns, of one image or pooled.

    A class that neither side has is left out, one that only one side has counts 0; nan without
    classes.
    """
    ious = [overlap.intersection_over_union for overlap in overlaps]
    known = [iou for iou in ious if not np.isnan(iou)]
    return sum(known) / len(known) if known else float("nan")


def check_same_shape(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Raise `ImageError` if two label images have different shapes."""
    if truth.shape != prediction.shape:
        raise ImageError(
            f"truth has shape {truth.shape}, prediction {prediction.shape}; "
            "bring both to one pixel grid first"
        )
