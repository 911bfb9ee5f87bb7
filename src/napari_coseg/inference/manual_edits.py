"""Find manual edits by comparing labels with the results of a run and its refinements.

This needs no list of edits, so it works with any editor and undo, and with discarded results.
"""

from __future__ import annotations

import numpy as np

from napari_coseg.core.types import Prediction
from napari_coseg.inference.splice import Objects

RESULTS_COMPARED = 5
"""Number of results whose planes are stored: the run's and the latest refinements'."""
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(31))


class RunResults:
    """Results of a run and its refinements on one plane."""

    def __init__(self) -> None:
        self._objects: set[int] = set()
        self._planes: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, prediction: Prediction) -> None:
        """Store a result."""
        objects = Objects.of(prediction.instances.labels, prediction.instances.table)
        self._objects |= set(_fingerprints(objects.labels, objects.class_ids).tolist())
        self._planes.append((prediction.semantic, np.packbits(objects.labels > 0)))
        del self._planes[1:-RESULTS_COMPARED]  # the run's own stays

    def edited_objects(self, labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
        """Bool by id: objects whose pixels or class are in no result."""
        prints = _fingerprints(labels, class_ids)
        edited = np.array([value not in self._objects for value in prints.tolist()], bool)
        edited &= np.bincount(labels.ravel(), minlength=len(edited)) > 0
        edited[0] = False
        return edited

    def deleted_objects(self, labels: np.ndarray) -> np.ndarray:
        """Bool, shape of `labels`: background where every result has an object."""
        deleted = labels == 0
        for _, packed in self._planes:
            mask = np.unpackbits(packed, count=labels.size).reshape(labels.shape)
            deleted &= mask.astype(bool)
        return deleted

    def edited_regions(self, regions: np.ndarray) -> np.ndarray:
        """Bool, shape of `regions`: pixels whose class is in no result."""
        edited = np.ones(regions.shape, bool)
        for plane, _ in self._planes:
            edited &= regions != plane
        return edited


def _fingerprints(labels: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Hash, uint64 by id, of an object's pixels and class."""
    at = np.flatnonzero(labels)
    prints = np.zeros(len(class_ids), np.uint64)
    np.add.at(prints, labels.reshape(-1)[at], _mixed(at.astype(np.uint64)))
    return prints ^ _mixed(class_ids.astype(np.uint64) + np.uint64(1))


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Hash integers modulo 2^64."""
    factor, other, bits = _MIX
    numbers = (numbers + np.uint64(1)) * factor
    numbers = (numbers ^ (numbers >> bits)) * other
    mixed: np.ndarray = numbers ^ (numbers >> bits)
    return mixed
