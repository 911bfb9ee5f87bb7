"""A held-back image beside its truth and what was found: to look at while a model learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from napari_coseg.core.types import Prediction
from napari_coseg.finetuning.reviewed import ReviewedImage

OBJECT_COLOR = (255, 220, 0)
LARGEST_PX = 512
GAP_PX = 4


def save_comparison(path: Path, image: ReviewedImage, found: Prediction) -> None:
    """Write image, truth and prediction side by side as PNG: outlines, and regions as a tint.

    What was not reviewed is pale in the middle panel.
    """
    known = image.reviewed
    labels = (image.objects, image.types, image.semantic)
    objects, types, regions = (
        np.zeros(image.shape, np.uint8) if one is None else known * one for one in labels
    )
    truth = _drawn(image.image, objects, types, regions, found)
    truth[~known] = 0.5 * truth[~known] + 127
    guess = _drawn(image.image, found.instances.labels, _types(found), found.semantic, found)
    gap = np.full((image.shape[0], GAP_PX, 3), 255, np.float32)
    panels = np.concatenate([image.image, gap, truth, gap, guess], axis=1)
    picture = Image.fromarray(panels.clip(0, 255).astype(np.uint8))
    picture.thumbnail((3 * LARGEST_PX, LARGEST_PX))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _types(found: Prediction) -> np.ndarray:
    of = np.zeros(len(found.instances) + 1, np.uint8)
    of[found.instances.table["id"].to_numpy()] = found.instances.table["class_id"].to_numpy()
    return of[found.instances.labels]


def _drawn(
    pixels: np.ndarray,
    objects: np.ndarray,
    types: np.ndarray,
    regions: np.ndarray,
    found: Prediction,
) -> np.ndarray:
    drawn = pixels.astype(np.float32)
    for entry in found.semantic_classes:
        inside = regions == entry.id
        drawn[inside] = 0.75 * drawn[inside] + 0.25 * np.array(entry.color, np.float32)
    edge = _outlines(objects)
    drawn[edge] = OBJECT_COLOR
    for entry in found.instances.classes:
        drawn[edge & (types == entry.id)] = entry.color
    return drawn


def _outlines(labels: np.ndarray) -> np.ndarray:
    """Bool (Y, X): pixels of objects beside another object or background."""
    edge = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        before = [(0, 0), (0, 0)]
        before[axis] = (1, 0)
        after = [(0, 0), (0, 0)]
        after[axis] = (0, 1)
        edge |= np.pad(differs, before) | np.pad(differs, after)
    return edge & (labels > 0)
