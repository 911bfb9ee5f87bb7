"""A held-out image beside its labels and what was found, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from napari_coseg.core.types import Prediction
from napari_coseg.finetuning.reviewed import ReviewedImage, types_of

OBJECT_COLOR = (255, 220, 0)
LARGEST_PX = 512
GAP_PX = 4


def save_comparison(path: Path, image: ReviewedImage, found: Prediction) -> None:
    """Write image, labels and prediction side by side as PNG: outlines, and regions as a tint.

    What was not reviewed is pale in the middle panel.
    """
    known = image.reviewed
    labels = (image.instances, image.instance_types, image.semantic)
    objects, types, regions = (
        np.zeros(image.shape, np.uint8) if one is None else known * one for one in labels
    )
    truth = _drawn(image.image, objects, types, regions, found)
    truth[~known] = 0.5 * truth[~known] + 127
    objects = found.instances.labels
    types = types_of(objects, found.instances.table)
    guess = _drawn(image.image, objects, types, found.semantic, found)
    gap = np.full((image.shape[0], GAP_PX, 3), 255, np.float32)
    panels = np.concatenate([image.image, gap, truth, gap, guess], axis=1)
    picture = Image.fromarray(panels.clip(0, 255).astype(np.uint8))
    picture.thumbnail((3 * LARGEST_PX, LARGEST_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _drawn(
    pixels: np.ndarray,
    objects: np.ndarray,
    types: np.ndarray,
    regions: np.ndarray,
    found: Prediction,
) -> np.ndarray:
    from skimage.segmentation import find_boundaries

    drawn = pixels.astype(np.float32)
    for entry in found.semantic_classes:
        inside = regions == entry.id
        drawn[inside] = 0.75 * drawn[inside] + 0.25 * np.array(entry.color, np.float32)
    edge = find_boundaries(objects, mode="inner")
    drawn[edge] = OBJECT_COLOR
    for entry in found.instances.classes:
        drawn[edge & (types == entry.id)] = entry.color
    return drawn
