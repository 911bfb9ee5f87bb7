"""How well predicted objects match true ones: every score from one contingency table.

table = contingency(truth, prediction)          # the only step that reads pixels
panoptic_quality(table).pq                      # also dq, sq, f1, precision, recall
aggregated_jaccard(table).index
{c: panoptic_quality(t).pq for c, t in by_class(table, truth_classes, predicted_classes).items()}

Conventions, those of the field's tables
----------------------------------------
Two objects match where their IoU is *above* 0.5, so that nobody has two partners. Precision, recall
and F1 count such matches; F1 is the detection quality DQ by another name, and PQ = DQ x SQ.

A class is scored on the objects of that class alone, as if all others were erased from both
images: an object found with the wrong class is missed in one class and a false find in the other.

Where the truth has no object of a class, whatever is found makes PQ, DQ, F1, precision and AJI 0,
and recall and SQ nan; where nothing is found either, all are nan. How images without a class count
in a mean over images is a choice made in `napari_coseg.labels.metrics.averaging`, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_coseg.labels.metrics.contingency import Contingency, by_class, contingency

__all__ = [
    "AggregatedJaccard",
    "Contingency",
    "PanopticQuality",
    "aggregated_jaccard",
    "aggregated_jaccard_index",
    "by_class",
    "connected_regions",
    "contingency",
    "object_f1",
    "panoptic_quality",
]


@dataclass(frozen=True)
class PanopticQuality:
    """Matched and unmatched objects, and the scores they give; add them to pool over images.

    Parameters
    ----------
    true_positives, false_positives, false_negatives
        Matched pairs, predictions without a truth, truths without a prediction.
    iou_sum
        Sum of the intersection over union of the matched pairs.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    iou_sum: float

    def __add__(self, other: PanopticQuality) -> PanopticQuality:
        return PanopticQuality(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou_sum + other.iou_sum,
        )

    @property
    def truth_count(self) -> int:
        """True objects, matched or not."""
        return self.true_positives + self.false_negatives

    @property
    def prediction_count(self) -> int:
        """Predicted objects, matched or not."""
        return self.true_positives + self.false_positives

    @property
    def pq(self) -> float:
        """Panoptic quality; 0 where one side has no object, nan where neither has."""
        return _ratio(self.iou_sum, self._mean_count)

    @property
    def dq(self) -> float:
        """Detection quality, the F1 of objects; 0 where one side is empty, nan where both are."""
        return _ratio(self.true_positives, self._mean_count)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), which is `dq`."""
        return self.dq

    @property
    def sq(self) -> float:
        """Segmentation quality, mean IoU of the matched pairs; nan where nothing matched.

        The authors' released code says 0 there; `labels.metrics.averaging` does so too where
        it averages their way.
        """
        return _ratio(self.iou_sum, self.true_positives)

    @property
    def precision(self) -> float:
        """Matched share of the predictions; nan where there is none."""
        return _ratio(self.true_positives, self.prediction_count)

    @property
    def recall(self) -> float:
        """Matched share of the truths; nan where there is none."""
        return _ratio(self.true_positives, self.truth_count)

    @property
    def _mean_count(self) -> float:
        return self.true_positives + (self.false_positives + self.false_negatives) / 2


@dataclass(frozen=True)
class AggregatedJaccard:
    """Pixels that objects share with their partners; add them to pool over images.

    Parameters
    ----------
    intersection
        Pixels that true objects share with the predictions they took.
    union
        Pixels of these pairs, of the truths without a partner and of the predictions nobody took.
    """

    intersection: int
    union: int

    def __add__(self, other: AggregatedJaccard) -> AggregatedJaccard:
        return AggregatedJaccard(self.intersection + other.intersection, self.union + other.union)

    @property
    def index(self) -> float:
        """AJI; 0 where one side has no object, nan where neither has."""
        return _ratio(self.intersection, self.union)


def panoptic_quality(table: Contingency, iou_threshold: float = 0.5) -> PanopticQuality:
    """Match objects whose IoU is above the threshold (Kirillov et al. 2019, equation 1).

    From 0.5 on no object can have two partners, so nothing has to be assigned.

    Parameters
    ----------
    table
        From `contingency`, whole or restricted.
    iou_threshold
        0.5 or more, exclusive.

    Raises
    ------
    ValueError
        Below 0.5, where partners would not be unique.
    """
    if not 0.5 <= iou_threshold < 1:
        raise ValueError(f"iou_threshold is {iou_threshold}; matches are unique only in 0.5 to 1")
    ious = table.ious
    matched = ious[ious > iou_threshold]
    return PanopticQuality(
        len(matched),
        len(table.prediction_ids) - len(matched),
        len(table.truth_ids) - len(matched),
        float(matched.sum()),
    )


def object_f1(table: Contingency, iou_threshold: float = 0.5) -> float:
    """F1 of objects at one IoU threshold (exclusive); at 0.5 it is the detection quality.

    0 where one side has no object, nan where neither has. Precision and recall are in
    `PanopticQuality`.
    """
    return panoptic_quality(table, iou_threshold).f1


def aggregated_jaccard(table: Contingency) -> AggregatedJaccard:
    """What the AJI of Kumar et al. 2017 (algorithm 1) is the ratio of.

    Each true object takes the prediction with the highest IoU, of equal ones that with the lowest
    id; the intersections are summed over the unions; true objects that touch no prediction and
    predictions that no truth took add their areas to the unions. A prediction may be taken by
    several truths (unlike in AJI+ of HoVer-Net, which pairs one to one), and is then counted in
    the union of each.
    """
    # Sorted by truth, then falling IoU, then rising prediction: the first of each truth is its own.
    order = np.lexsort((table.pair_prediction, -table.ious, table.pair_truth))
    first = np.diff(table.pair_truth[order], prepend=-1) > 0
    taken = order[first]
    truth_alone = np.ones(len(table.truth_ids), dtype=bool)
    truth_alone[table.pair_truth] = False
    prediction_left = np.ones(len(table.prediction_ids), dtype=bool)
    prediction_left[table.pair_prediction[taken]] = False
    union = (
        table.unions[taken].sum()
        + table.truth_areas[truth_alone].sum()
        + table.prediction_areas[prediction_left].sum()
    )
    return AggregatedJaccard(int(table.intersections[taken].sum()), int(union))


def aggregated_jaccard_index(table: Contingency) -> float:
    """AJI of one image; 0 where one side has no object, nan where neither has."""
    return aggregated_jaccard(table).index


def connected_regions(mask: np.ndarray) -> np.ndarray:
    """The connected parts of a mask as objects, for the panoptic quality of regions.

    Pixels that touch at a corner are connected, as in the authors' released code.

    Returns
    -------
    np.ndarray
        int32, ids 1..N in scan order, 0 outside.
    """
    from scipy import ndimage

    labels: np.ndarray = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))[0]
    return labels


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
