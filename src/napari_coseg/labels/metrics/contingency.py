"""Contingency table: which objects of two label images overlap, and by how many pixels.

table = contingency(truth, prediction)          # the only step that reads pixels
for class_id, of_class in by_class(table, truth_classes, prediction_classes).items(): ...

The table is sparse, and every score in `labels.metrics.instances` comes from it: time grows with
the pixels and the pairs that overlap, not with all pairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.labels.metrics.overlap import check_same_shape


@dataclass(frozen=True, eq=False)
class Contingency:
    """Common pixels of true and predicted objects, for pairs that overlap.

    Parameters
    ----------
    truth_ids, prediction_ids
        (N,) and (M,): the ids that occur, ascending, without 0.
    truth_areas, prediction_areas
        int64 (N,) and (M,), in pixels.
    pair_truth, pair_prediction
        (P,): *positions* in `truth_ids` and `prediction_ids` of objects that overlap, sorted by
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
        """The table of some objects, as if the others were erased from both images.

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


def contingency(truth: np.ndarray, prediction: np.ndarray) -> Contingency:
    """Compare two label images of one shape, two- or three-dimensional.

    Both are cut into runs in which neither label changes, so that a few runs per object are sorted
    instead of pixels.

    Parameters
    ----------
    truth, prediction
        Integer ids, 0 is background; ids may have gaps and need not correspond.

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


def by_class(
    table: Contingency,
    truth_classes: np.ndarray,
    prediction_classes: np.ndarray,
    class_ids: Iterable[int] | None = None,
) -> dict[int, Contingency]:
    """One table per class: what `contingency` returns for images of the objects of that class.

    Parameters
    ----------
    table
        Of all objects.
    truth_classes, prediction_classes
        (N,) and (M,): the class of every object, in the order of `truth_ids` and `prediction_ids`.
    class_ids
        Which classes, in which order; None takes all that occur on either side, ascending.

    Raises
    ------
    ValueError
        Where there is not exactly one class per object.
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
    check_same_shape(truth, prediction)
    if truth.dtype.kind not in "iu" or prediction.dtype.kind not in "iu":
        raise ImageError(
            f"truth is {truth.dtype}, prediction {prediction.dtype}; expected integer ids"
        )


def _runs(truth: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of flat images in which both labels are constant: both labels and the length."""
    changes = truth[1:] != truth[:-1]
    changes |= prediction[1:] != prediction[:-1]
    start = np.append(0, np.flatnonzero(changes) + 1) if truth.size else np.empty(0, dtype=np.int64)
    return truth[start], prediction[start], np.diff(start, append=truth.size)


def _objects(labels: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids without 0, their areas, and for each run the position of its id (-1: background)."""
    ids, position = np.unique(labels, return_inverse=True)
    areas = _sums(position, length, len(ids))
    objects = ids != 0
    new_position = np.where(objects, np.cumsum(objects) - 1, -1)
    return ids[objects], areas[objects], new_position[position]


def _sums(group: np.ndarray, values: np.ndarray, groups: int) -> np.ndarray:
    # bincount sums in float64, exact for counts below 2**53.
    return np.bincount(group, weights=values, minlength=groups).astype(np.int64)
