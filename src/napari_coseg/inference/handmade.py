"""What a person made, told from what runs made: by comparing labels with every result so far.

No list of edits is needed, so that it works with any editor, with undo, and with results that were
discarded.
"""

from __future__ import annotations

import numpy as np

from napari_coseg.core.types import Prediction
from napari_coseg.inference.splice import Objects

RESULTS_COMPARED = 5
"""Planes of so many results are kept: of the run, and of the latest refinements."""
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(31))


class Made:
    """What a run and its refinements made of one plane."""

    def __init__(self) -> None:
        self._objects: set[int] = set()
        self._planes: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, prediction: Prediction) -> None:
        """Remember a result."""
        objects = Objects.of(prediction.instances.labels, prediction.instances.table)
        self._objects |= set(_fingerprints(objects.labels, objects.class_ids).tolist())
        self._planes.append((prediction.semantic, np.packbits(objects.labels > 0)))
        del self._planes[1:-RESULTS_COMPARED]  # never the run's own

    def hand_objects(self, labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """Bool by id: objects whose pixels or class no result has.

        Parameters
        ----------
        class_ids
            By id, as in `Objects`.
        """
        prints = _fingerprints(labels, class_ids)
        found = np.array([value not in self._objects for value in prints.tolist()], bool)
        found &= np.bincount(labels.ravel(), minlength=len(found)) > 0
        found[0] = False
        return found

    def hand_background(self, labels: np.ndarray) -> np.ndarray:
        """Bool, of the labels' shape: where no object is any more, though every result has one."""
        gone = labels == 0
        for _, packed in self._planes:
            mask = np.unpackbits(packed, count=labels.size).reshape(labels.shape)
            gone &= mask.astype(bool)
        return gone

    def hand_regions(self, regions: np.ndarray) -> np.ndarray:
        """Bool, of the regions' shape: where no result has this class."""
        changed = np.ones(regions.shape, bool)
        for plane, _ in self._planes:
            changed &= regions != plane
        return changed


def _fingerprints(labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """uint64 by id: a number that another set of pixels, or another class, hardly ever has."""
    place = np.flatnonzero(labels)
    prints = np.zeros(len(class_ids), np.uint64)
    np.add.at(prints, labels.reshape(-1)[place], _mixed(place.astype(np.uint64)))
    return prints ^ _mixed(class_ids.astype(np.uint64) + np.uint64(1))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers that are near each other become numbers that are not; wraps at 64 bits."""
    factor, other, bits = _MIX
    numbers = (numbers + np.uint64(1)) * factor
    numbers = (numbers ^ (numbers >> bits)) * other
    mixed: np.ndarray = numbers ^ (numbers >> bits)
    return mixed
