"""The shipped model's predictions on a sample, to replay and to measure what is forgotten.

Its training images cannot be distributed, so users have no labels of that kind. Its predictions on
an image that ships take their place (learning without forgetting, Li and Hoiem 2017): one part of
the sample is replayed, the other scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import CheckpointError
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet, types_of
from napari_coseg.images.readers.samples import colon
from napari_coseg.inference import segment
from napari_coseg.inference.loading import DEFAULT_MODEL, weights_path
from napari_coseg.models.base import CosegModel

REPLAYED, SCORED = slice(0, 336), slice(336, 512)
"""Columns of the sample. Each is segmented by itself: near a border predictions differ."""


def is_shipped(base: Path) -> bool:
    """Whether these are the weights that ship, of whose kind the sample is."""
    try:
        return base == weights_path(DEFAULT_MODEL)
    except CheckpointError:  # an installation without them
        return False


def predictions_of(
    base: CosegModel, columns: slice, should_cancel: Callable[[], bool] | None = None
) -> ReviewedSet:
    """What a base finds in some columns of the sample of colon, as if a person had reviewed it."""
    whole = colon()
    image = replace(whole, data=np.ascontiguousarray(np.asarray(whole.data)[:, columns]))
    found = segment(image, base, should_cancel=should_cancel)
    everywhere = np.ones(found.semantic.shape, bool)
    has_regions, has_types = bool(found.semantic_classes), bool(found.instances.classes)
    labels = found.instances.labels
    reviewed = ReviewedImage(
        "sample of colon",
        np.asarray(image.data),
        found.pixel_size_um[0],
        semantic=found.semantic if has_regions else None,
        instances=labels,
        instance_types=types_of(labels, found.instances.table) if has_types else None,
        semantic_known=everywhere if has_regions else None,
        instances_known=everywhere,
    )
    return ReviewedSet(
        (reviewed,), found.semantic_classes, found.instances.classes, "the sample of colon"
    )
