"""How well predicted objects match true ones: every score from one contingency table.

table = contingency(truth, prediction)          # the only step that reads pixels
panoptic_quality(table).pq
aggregated_jaccard_index(table)
{c: panoptic_quality(t).pq for c, t in by_class(table, truth_classes, predicted_classes).items()}
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_coseg.errors import ImageError


@dataclass(frozen=True, eq=False)
class Contingency:
    """How many pixels each true object shares with each predicted one; only pairs that touch.

    Parameters
    ----------
    truth_ids, prediction_ids
        (N,) and (M,): the ids found, rising, without 0.
    truth_areas, prediction_areas
        int64 (N,) and (M,), in pixels.
    pair_truth, pair_prediction
        (P,): *positions* in `truth_ids` and `prediction_ids` of objects that overlap; sorted by
        truth, then by prediction.
    intersections
        int64 (P,), in pixels.
    """

    truth_ids: np.ndarray
    prediction_ids: np.ndarray
    truth_areas: np.ndarray
    prediction_areas: np.ndarray
    pair_truth: np.ndarray
    pair_prediction: np.ndarray
    intersections: np.ndarray

    @property
    def unions(self) -> np.ndarray:
        """int64 (P,), in pixels."""
        areas = self.truth_areas[self.pair_truth] + self.prediction_areas[self.pair_prediction]
        return areas - self.intersections

    @property
    def ious(self) -> np.ndarray:
        """float64 (P,): intersection over union of each pair."""
        return self.intersections / self.unions

    def restricted_to(self, truth: np.ndarray, prediction: np.ndarray) -> Contingency:
        """The table of some objects alone, as if the others were erased from both images.

        Parameters
        ----------
        truth, prediction
            bool (N,) and (M,): which objects to keep.
        """
        kept = truth[self.pair_truth] & prediction[self.pair_prediction]
        return Contingency(
            self.truth_ids[truth],
            self.prediction_ids[prediction],
            self.truth_areas[truth],
            self.prediction_areas[prediction],
            (np.cumsum(truth) - 1)[self.pair_truth[kept]],
            (np.cumsum(prediction) - 1)[self.pair_prediction[kept]],
            self.intersections[kept],
        )


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
    def pq(self) -> float:
        """Panoptic quality; 0 where one side has no object, nan where neither has."""
        return _ratio(self.iou_sum, self._mean_count)

    @property
    def dq(self) -> float:
        """Detection quality, the F1 of objects; 0 where one side is empty, nan where both are."""
        return _ratio(self.true_positives, self._mean_count)

    @property
    def sq(self) -> float:
        """Segmentation quality, mean IoU of the matched pairs; nan where nothing matched."""
        return _ratio(self.iou_sum, self.true_positives)

    @property
    def precision(self) -> float:
        """Matched share of the predictions; nan where there is none."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Matched share of the truths; nan where there is none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def _mean_count(self) -> float:
        return self.true_positives + (self.false_positives + self.false_negatives) / 2


def contingency(truth: np.ndarray, prediction: np.ndarray) -> Contingency:
    """Compare two label images of one shape, two- or three-dimensional.

    Both are cut into stretches where neither label changes, so that what is sorted are a few
    stretches an object and not pixels.

    Parameters
    ----------
    truth, prediction
        Integer ids, 0 is background; ids may have holes, and need not correspond.

    Raises
    ------
    ImageError
        Where the shapes differ, or the ids are not integers.
    """
    _check(truth, prediction)
    truth_run, prediction_run, length = _runs(truth.reshape(-1), prediction.reshape(-1))
    truth_ids, truth_areas, truth_position = _objects(truth_run, length)
    prediction_ids, prediction_areas, prediction_position = _objects(prediction_run, length)

    both = (truth_position >= 0) & (prediction_position >= 0)
    stride = max(len(prediction_ids), 1)
    key = truth_position[both] * stride + prediction_position[both]
    pairs, pair_of_run = np.unique(key, return_inverse=True)
    intersections = _sums(pair_of_run, length[both], len(pairs))
    pair_truth, pair_prediction = np.divmod(pairs, stride)
    return Contingency(
        truth_ids,
        prediction_ids,
        truth_areas,
        prediction_areas,
        pair_truth,
        pair_prediction,
        intersections,
    )


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
    return panoptic_quality(table, iou_threshold).dq


def aggregated_jaccard_index(table: Contingency) -> float:
    """AJI of Kumar et al. 2017 (algorithm 1).

    Each true object takes the prediction with the highest IoU, of equal ones that with the lowest
    id; the intersections are summed over the unions; true objects that touch no prediction and
    predictions that no truth took add their areas to the unions. A prediction may be taken by
    several truths (unlike in AJI+ of HoVer-Net, which pairs one to one), and is then counted in
    the union of each.

    0 where one side has no object, nan where neither has.
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
    return _ratio(int(table.intersections[taken].sum()), int(union))


def by_class(
    table: Contingency,
    truth_classes: np.ndarray,
    prediction_classes: np.ndarray,
    class_ids: Iterable[int] | None = None,
) -> dict[int, Contingency]:
    """One table a class: what `contingency` gives on images that hold only objects of that class.

    Parameters
    ----------
    table
        Of all objects.
    truth_classes, prediction_classes
        (N,) and (M,): the class of every object, in the order of `truth_ids` and `prediction_ids`.
    class_ids
        Which classes, in which order; None takes all that occur on either side, rising.

    Raises
    ------
    ValueError
        Where there is not exactly one class an object.
    """
    truth_classes, prediction_classes = np.asarray(truth_classes), np.asarray(prediction_classes)
    expected = (len(table.truth_ids), len(table.prediction_ids))
    got = (len(truth_classes), len(prediction_classes))
    if got != expected:
        raise ValueError(f"{got} classes for {expected} true and predicted objects; give one each")
    if class_ids is None:
        class_ids = np.union1d(truth_classes, prediction_classes).tolist()
    return {
        int(c): table.restricted_to(truth_classes == c, prediction_classes == c) for c in class_ids
    }


def _check(truth: np.ndarray, prediction: np.ndarray) -> None:
    if truth.shape != prediction.shape:
        raise ImageError(
            f"truth has shape {truth.shape}, prediction {prediction.shape}; "
            "bring both to one pixel grid first"
        )
    if truth.dtype.kind not in "iu" or prediction.dtype.kind not in "iu":
        raise ImageError(
            f"truth is {truth.dtype}, prediction {prediction.dtype}; expected integer ids"
        )


def _runs(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stretches of flat images on which both labels stay the same: both labels and the length."""
    changes = truth[1:] != truth[:-1]
    changes |= prediction[1:] != prediction[:-1]
    start = np.append(0, np.flatnonzero(changes) + 1) if truth.size else np.empty(0, dtype=np.int64)
    return truth[start], prediction[start], np.diff(start, append=truth.size)


def _objects(labels: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids without 0, their areas, and for each stretch the position of its id (-1: background)."""
    ids, position = np.unique(labels, return_inverse=True)
    areas = _sums(position, length, len(ids))
    objects = ids != 0
    new_position = np.where(objects, np.cumsum(objects) - 1, -1)
    return ids[objects], areas[objects], new_position[position]


def _sums(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    # bincount sums in float64, exact for counts below 2**53.
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
