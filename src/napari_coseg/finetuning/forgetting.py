"""What an adapter changes in images that it was not made for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_coseg.errors import CheckpointError
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.inference import segment
from napari_coseg.inference.loading import DEFAULT_MODEL, weights_path
from napari_coseg.models.base import CosegModel
from napari_coseg.readers.samples import colon


def is_shipped(base: Path) -> bool:
    """Whether these are the weights that ship, for which the sample stands in."""
    try:
        return base == weights_path(DEFAULT_MODEL)
    except CheckpointError:  # an installation without them
        return False


def answers_of(base: CosegModel, should_cancel: Callable[[], bool] | None = None) -> ReviewedSet:
    """What a base finds in the sample of colon, as if all of it were reviewed.

    The shipped model's own images cannot be passed on, so that nobody has true labels to measure
    forgetting by. Its own answers on an image that can be need none: an adapter that gives them
    again has forgotten nothing there.
    """
    image = colon()
    found = segment(image, base, should_cancel=should_cancel)
    everywhere = np.ones(found.semantic.shape, bool)
    has_regions, has_types = bool(found.semantic_classes), bool(found.instances.classes)
    table, labels = found.instances.table, found.instances.labels
    type_of = np.zeros(int(labels.max(initial=0)) + 1, np.uint8)
    type_of[table["id"].to_numpy()] = table["class_id"].to_numpy()
    reviewed = ReviewedImage(
        "sample of colon",
        np.asarray(image.data),
        found.pixel_size_um[0],
        semantic=found.semantic if has_regions else None,
        objects=labels,
        types=type_of[labels] if has_types else None,
        semantic_reviewed=everywhere if has_regions else None,
        objects_reviewed=everywhere,
    )
    return ReviewedSet(
        (reviewed,), found.semantic_classes, found.instances.classes, "the sample of colon"
    )
