"""How well two masks overlap: Dice and intersection over union."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_coseg.errors import ImageError


@dataclass(frozen=True)
class Overlap:
    """The pixel counts that every overlap score is made of; add them to pool over images.

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
    """Count what two masks of one shape share. Everything but 0 counts as inside.

    For one class of a semantic image give ``truth == id`` and ``prediction == id``.

    Raises
    ------
    ImageError
        Where the shapes differ.
    """
    if truth.shape != prediction.shape:
        raise ImageError(
            f"truth has shape {truth.shape}, prediction {prediction.shape}; "
            "bring both to one pixel grid first"
        )
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
