"""Scores of predicted objects, all from one contingency table.

table = contingency(truth, prediction)          # the only step that reads pixels
panoptic_quality(table).pq                      # also dq, sq, f1, precision, recall
aggregated_jaccard(table).index
object_dice(table).dice
{c: panoptic_quality(t).pq for c, t in by_class(table, truth_classes, predicted_classes).items()}

Conventions, those of the field's tables
----------------------------------------
Two objects match if their IoU is *above* 0.5, so that no object has two partners. Precision, recall
and F1 count such matches; F1 equals the detection quality DQ, and PQ = DQ x SQ.

A class is scored on the objects of that class alone, as if all others were erased from both images:
an object with the wrong class is a false negative in one class and a false positive in the other.

If the truth has no object of a class, any prediction makes PQ, DQ, F1, precision and AJI 0, and
recall and SQ nan; without predictions all are nan. How images without a class count in a mean over
images is decided in `napari_coseg.labels.metrics.averaging`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_coseg.labels.metrics.contingency import Contingency, by_class, contingency

__all__ = [
    "AggregatedJaccard",
    "Contingency",
    "ObjectDice",
    "PanopticQuality",
    "aggregated_jaccard",
    "aggregated_jaccard_index",
    "by_class",
    "connected_regions",
    "contingency",
    "object_dice",
    "object_f1",
    "panoptic_quality",
]


@dataclass(frozen=True)
class PanopticQuality:
    """Matched and unmatched objects, and their scores; add them to pool over images.

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
        """2 TP / (2 TP + FP + FN), equal to `dq`."""
        return self.dq

    @property
    def sq(self) -> float:
        """Segmentation quality, mean IoU of the matched pairs; nan where nothing matched.

        The authors' released code gives 0; so does `labels.metrics.averaging.mean_as_released`.
        """
        return _ratio(self.iou_sum, self.true_positives)

    @property
    def precision(self) -> float:
        """Matched fraction of the predictions; nan without predictions."""
        return _ratio(self.true_positives, self.prediction_count)

    @property
    def recall(self) -> float:
        """Matched fraction of the true objects; nan without true objects."""
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
        Pixels of these pairs, of true objects without a partner and of predictions not taken.
    """

    intersection: int
    union: int

    def __add__(self, other: AggregatedJaccard) -> AggregatedJaccard:
        return AggregatedJaccard(self.intersection + other.intersection, self.union + other.union)

    @property
    def index(self) -> float:
        """AJI; 0 where one side has no object, nan where neither has."""
        return _ratio(self.intersection, self.union)


@dataclass(frozen=True)
class ObjectDice:
    """Dice of objects with their partners, weighted by area; add them to pool over images.

    Parameters
    ----------
    truth_sum, prediction_sum
        Sums over true and over predicted objects: area times Dice with the partner.
    truth_area, prediction_area
        Pixels of all true and of all predicted objects.
    """

    truth_sum: float
    truth_area: int
    prediction_sum: float
    prediction_area: int

    def __add__(self, other: ObjectDice) -> ObjectDice:
        return ObjectDice(
            self.truth_sum + other.truth_sum,
            self.truth_area + other.truth_area,
            self.prediction_sum + other.prediction_sum,
            self.prediction_area + other.prediction_area,
        )

    @property
    def dice(self) -> float:
        """Mean of both directions; 0 where one side has no object, nan where neither has."""
        if not self.truth_area or not self.prediction_area:
            return 0.0 if self.truth_area or self.prediction_area else float("nan")
        truth = self.truth_sum / self.truth_area
        return (truth + self.prediction_sum / self.prediction_area) / 2


def panoptic_quality(table: Contingency, iou_threshold: float = 0.5) -> PanopticQuality:
    """Match objects whose IoU is above the threshold (Kirillov et al. 2019, equation 1).

    From 0.5 on no object can have two partners, so no assignment has to be solved.

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
    """Intersection and union of the AJI of Kumar et al. 2017, algorithm 1.

    Each true object takes the prediction with the highest IoU, on a tie the lowest id.
    Intersections and unions of these pairs are summed; true objects that overlap no prediction, and
    predictions not taken, add their areas to the union. A prediction may be taken by several true
    objects (unlike in AJI+ of HoVer-Net, which pairs one to one), and then counts in the union of
    each.
    """
    # Sorted by truth, then IoU descending, then prediction: the first of each truth is its partner.
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


def object_dice(table: Contingency) -> ObjectDice:
    """Object-level Dice of the GlaS challenge (Sirinukunwattana et al. 2017, equation 6).

    The partner of an object is the one of the other side that shares most pixels with it, on a tie
    the lowest id; an object without a partner has a Dice of 0. Each side's mean is weighted by
    the objects' areas.
    """
    areas = table.truth_areas[table.pair_truth] + table.prediction_areas[table.pair_prediction]
    dice = 2 * table.intersections / areas

    def one_way(side: np.ndarray, other: np.ndarray, area: np.ndarray) -> tuple[float, int]:
        order = np.lexsort((other, -table.intersections, side))
        partner = order[np.diff(side[order], prepend=-1) > 0]
        return float((area[side[partner]] * dice[partner]).sum()), int(area.sum())

    truth = one_way(table.pair_truth, table.pair_prediction, table.truth_areas)
    return ObjectDice(
        *truth, *one_way(table.pair_prediction, table.pair_truth, table.prediction_areas)
    )


def connected_regions(mask: np.ndarray) -> np.ndarray:
    """Connected components of a mask as objects, for the panoptic quality of regions.

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
