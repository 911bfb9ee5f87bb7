"""Crops to learn from: what was reviewed of each task, and what was not.

`napari_coseg.datasets.transforms.training_crop` cuts and augments. It knows one mask of what is
known; here each task has its own, so these travel within the labels, as values of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.transforms import AugmentationSettings, training_crop
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps

UNKNOWN = 255
"""In class ids: not reviewed."""
OBJECT_FRACTION = 0.5
"""Share of crops laid around an object whose class was drawn first."""
PLACES_AN_IMAGE = 512
"""Reviewed pixels of an image that crops are laid around."""


@dataclass(frozen=True, eq=False)
class ReviewedBatch:
    """Crops, stacked, with what is known of them.

    images     float32 (B, 3, Y, X) of 0..255
    semantic   uint8 (B, Y, X), region classes; read where semantic_known
    instances  int32 (B, Y, X), object ids
    types      uint8 (B, Y, X), object classes; read where types_known
    hv         float32 (B, 2, Y, X), -1..1
    semantic_known, objects_known, types_known
               bool (B, Y, X); types are known on background, too
    """

    images: np.ndarray
    semantic: np.ndarray
    semantic_known: np.ndarray
    instances: np.ndarray
    objects_known: np.ndarray
    types: np.ndarray
    types_known: np.ndarray
    hv: np.ndarray

    def part(self, crops: slice) -> ReviewedBatch:
        """Some crops."""
        return ReviewedBatch(*(getattr(self, field.name)[crops] for field in fields(self)))


class _Places(NamedTuple):
    """Where crops are laid: index of the image, y, x in it."""

    image: np.ndarray
    y: np.ndarray
    x: np.ndarray

    def draw(self, rng: np.random.Generator) -> tuple[int, tuple[float, float]]:
        i = rng.integers(len(self.image))
        return int(self.image[i]), (float(self.y[i]), float(self.x[i]))


class ReviewedCrops:
    """Draws crops of reviewed images, each a pure function of the seed and its number.

    Parameters
    ----------
    images
        With the class ids of the model's card.
    size_px, pixel_size_um
        Of the crops; an image without a pixel size is taken to have this one.
    """

    def __init__(
        self,
        images: Sequence[ReviewedImage],
        size_px: int,
        pixel_size_um: float,
        seed: int,
        settings: AugmentationSettings,
    ) -> None:
        if not images:
            raise DatasetError("nothing is left to learn from; hold back less, or review more")
        self.packed = [_pack(image, pixel_size_um) for image in images]
        self.size_px, self.pixel_size_um = size_px, pixel_size_um
        self.seed, self.settings = seed, settings
        self.anywhere = _reviewed_places(images, seed)
        self.objects = _object_places(images)

    def draw(self, number: int, crops: int, augmented: bool = True) -> ReviewedBatch:
        """The crops of one step, the same whenever it is drawn."""
        rngs = [np.random.default_rng([self.seed, number, slot]) for slot in range(crops)]
        return _stacked([self._crop(rng, augmented) for rng in rngs])

    def _crop(self, rng: np.random.Generator, augmented: bool) -> tuple[np.ndarray, ...]:
        places = self.anywhere
        if self.objects and rng.random() < OBJECT_FRACTION:
            places = self.objects[rng.integers(len(self.objects))]
        number, near = places.draw(rng)
        settings = self.settings if augmented else AugmentationSettings.none()
        sample, hidden = self.packed[number]
        crop = training_crop(sample, self.size_px, self.pixel_size_um, rng, settings, near)
        objects_known = crop.valid & crop.has_instances & (crop.instances != hidden)
        instances = np.where(crop.instances == hidden, 0, crop.instances)
        types = np.where(instances > 0, crop.types, 0)
        hv = horizontal_vertical_maps(instances)
        semantic_known = crop.valid & crop.has_semantic & (crop.semantic != UNKNOWN)
        types_known = objects_known & crop.has_types & (types != UNKNOWN)
        semantic = np.where(semantic_known, crop.semantic, 0)
        types = np.where(types_known, types, 0)
        return (
            *(crop.image, semantic, semantic_known, instances),
            *(objects_known, types, types_known, hv),
        )


def _pack(image: ReviewedImage, pixel_size_um: float) -> tuple[Sample, int]:
    """A sample whose labels say by values of their own where nobody reviewed.

    Class ids say `UNKNOWN` there; the id of objects that does is returned.
    """
    semantic, objects, types, hidden = image.semantic, image.objects, image.types, -1
    if semantic is not None and image.semantic_reviewed is not None:
        semantic = np.where(image.semantic_reviewed, semantic, UNKNOWN).astype(np.uint8)
    if types is not None and objects is not None:
        types = np.where((objects > 0) & (types == 0), UNKNOWN, types).astype(np.uint8)
    if objects is not None and image.objects_reviewed is not None:
        hidden = int(objects.max(initial=0)) + 1
        objects = np.where(image.objects_reviewed, objects, hidden).astype(LABEL_DTYPE)
    size = image.pixel_size_um or pixel_size_um
    return Sample(image.name, image.image, size, semantic, objects, types), hidden


def _stacked(crops: Sequence[tuple[np.ndarray, ...]]) -> ReviewedBatch:
    return ReviewedBatch(*(np.stack(arrays) for arrays in zip(*crops, strict=True)))


def _reviewed_places(images: Sequence[ReviewedImage], seed: int) -> _Places:
    """As many of each image as it has a share of the reviewed pixels, at least one."""
    areas = np.array([int(image.reviewed.sum()) for image in images])
    counts = np.maximum(1, np.round(PLACES_AN_IMAGE * len(images) * areas / areas.sum()))
    rows = []
    for number, (image, count) in enumerate(zip(images, counts.astype(int), strict=True)):
        pixels = np.flatnonzero(image.reviewed)
        chosen = np.random.default_rng([seed, number]).choice(pixels, size=count)
        y, x = np.divmod(chosen, image.shape[1])
        rows.append(np.column_stack([np.full(count, number), y + 0.5, x + 0.5]))
    table = np.concatenate(rows)
    return _Places(table[:, 0].astype(int), table[:, 1], table[:, 2])


def _object_places(images: Sequence[ReviewedImage]) -> list[_Places]:
    """One entry a class that occurs; objects of no known class make one entry together."""
    rows = []
    for number, image in enumerate(images):
        if image.objects is None or image.objects_reviewed is None:
            continue
        y, x = np.nonzero((image.objects > 0) & image.objects_reviewed)
        _, first, owner, area = np.unique(
            image.objects[y, x], return_index=True, return_inverse=True, return_counts=True
        )
        kinds = np.zeros(len(area))
        if image.types is not None:
            kinds = image.types[y[first], x[first]].astype(float)
        centres = [np.bincount(owner, weights=along) / area + 0.5 for along in (y, x)]
        rows.append(np.column_stack([kinds, np.full(len(area), number), *centres]))
    table = np.concatenate(rows) if rows else np.zeros((0, 4))
    return [
        _Places(of[:, 1].astype(int), of[:, 2], of[:, 3])
        for of in (table[table[:, 0] == kind] for kind in np.unique(table[:, 0]))
    ]
