"""Draws training crops around what was reviewed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.batches import Batch, stack
from napari_coseg.datasets.transforms import AugmentationSettings, Crop, training_crop
from napari_coseg.finetuning.reviewed import ReviewedImage

OBJECT_FRACTION = 0.5
"""Share of crops laid around an object whose class was drawn first."""
PLACES_AN_IMAGE = 512
"""Reviewed pixels of an image that crops are laid around."""


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
        self.samples = [as_sample(image, pixel_size_um) for image in images]
        self.size_px, self.pixel_size_um = size_px, pixel_size_um
        self.seed, self.settings = seed, settings
        self.anywhere = _reviewed_places(images, seed)
        self.objects = _object_places(images)

    def draw(self, number: int, crops: int, augmented: bool = True) -> Batch:
        """The crops of one step, the same whenever it is drawn."""
        rngs = [np.random.default_rng([self.seed, number, slot]) for slot in range(crops)]
        return stack([self._crop(rng, augmented) for rng in rngs])

    def _crop(self, rng: np.random.Generator, augmented: bool) -> Crop:
        places = self.anywhere
        if self.objects and rng.random() < OBJECT_FRACTION:
            places = self.objects[rng.integers(len(self.objects))]
        number, near = places.draw(rng)
        settings = self.settings if augmented else AugmentationSettings.none()
        return training_crop(
            self.samples[number], self.size_px, self.pixel_size_um, rng, settings, near
        )


def as_sample(image: ReviewedImage, pixel_size_um: float) -> Sample:
    """A sample that is known where it was reviewed; the class of an object may be unknown.

    Parameters
    ----------
    pixel_size_um
        Of an image that has none.
    """
    types_known = None
    if image.objects is not None and image.types is not None:
        types_known = (image.objects == 0) | (image.types > 0)
    return Sample(
        name=image.name,
        image=image.image,
        pixel_size_um=image.pixel_size_um or pixel_size_um,
        semantic=image.semantic,
        instances=image.objects,
        instance_types=image.types,
        semantic_known=image.semantic_reviewed,
        instances_known=image.objects_reviewed,
        types_known=types_known,
    )


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
