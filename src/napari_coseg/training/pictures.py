"""Pictures of training crops: image, labels and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from napari_coseg.core.card import ModelCard
from napari_coseg.datasets.batches import Batch
from napari_coseg.models.base import CosegModel, TaskMaps
from napari_coseg.models.nn.modes import evaluating
from napari_coseg.training.stepping import to_tensors

AT_MOST = 4
"""Crops of a picture, one below the other."""
GAP_PX = 4
OBJECT_COLOUR = (255, 255, 0)
"""Where objects have no classes."""


def save_picture(path: Path, batch: Batch, model: CosegModel, device: str) -> np.ndarray:
    """Draw the first crops of a batch, augmented as in training.

    Regions are tinted, objects filled, in the colours of the model card. A panel of a task that
    has no labels shows the image alone. The prediction is the network's maps as they are (the
    likeliest class, objects above one half), before they are decoded to objects.

    Returns
    -------
    np.ndarray
        uint8 (Y, X, 3), what was written.
    """
    batch = batch.part(slice(AT_MOST))
    found = _predict(batch, model, device)
    rows = []
    for i, image in enumerate(batch.images):
        pixels = image.transpose(1, 2, 0)
        objects = batch.instances[i] > 0
        truth = _draw(pixels, batch.semantic[i], objects, batch.types[i], model.card)
        rows.append(np.concatenate([pixels, truth, _draw(pixels, *found[i], model.card)], axis=1))
    picture = _stack(rows).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return picture


@torch.no_grad()
def _predict(
    batch: Batch, model: CosegModel, device: str
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Region class, object or not, and object class of every pixel, image by image."""
    images, _ = to_tensors(batch, device)
    with evaluating(model):
        maps: TaskMaps = model(model.normalise(images)).second
    semantic = maps.semantic.argmax(dim=1).cpu().numpy()
    objects = (maps.object[:, 0] > 0).cpu().numpy()
    classes = np.zeros_like(semantic)
    if maps.classes.shape[1]:
        classes = maps.classes.argmax(dim=1).cpu().numpy()
    return list(zip(semantic, objects, classes, strict=True))


def _draw(
    pixels: np.ndarray,
    semantic: np.ndarray,
    objects: np.ndarray,
    types: np.ndarray,
    card: ModelCard,
) -> np.ndarray:
    """(Y, X, 3) float: a quarter of a region's colour, three quarters of an object's."""
    drawn = pixels.astype(np.float32)
    for number, entry in enumerate(card.semantic_classes, 1):
        _blend(drawn, semantic == number, entry.color, 0.25)
    _blend(drawn, objects, OBJECT_COLOUR, 0.75 if not card.instance_classes else 0.4)
    for number, entry in enumerate(card.instance_classes, 1):
        _blend(drawn, objects & (types == number), entry.color, 0.75)
    return drawn


def _blend(
    pixels: np.ndarray, where: np.ndarray, colour: tuple[int, int, int], part: float
) -> None:
    pixels[where] = (1 - part) * pixels[where] + part * np.array(colour, np.float32)


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((GAP_PX, *rows[0].shape[1:]), 255, np.float32)
    parts = [part for row in rows for part in (row, gap)]
    return np.concatenate(parts[:-1])
