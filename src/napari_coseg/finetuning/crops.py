"""Draws training crops around reviewed pixels, mixed with crops of images to replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.batches import Batch, Places, objects_by_class, stack
from napari_coseg.datasets.transforms import AugmentationSettings, Crop, training_crop
from napari_coseg.finetuning.reviewed import ReviewedImage

OBJECT_FRACTION = 0.5
"""Share of crops laid around an object whose class was drawn first."""
PLACES_AN_IMAGE = 512
"""Reviewed pixels of an image that crops are laid around."""
REPLAY_STREAM = 1
"""Keeps the choice between own and replayed images apart from the crops' random numbers."""


class CropPlaces:
    """Reviewed images, and where crops are laid in them.

    Parameters
    ----------
    images
        With the class ids of the model's card.
    pixel_size_um
        Of images without one.
    """

    def __init__(
        self,
        images: Sequence[ReviewedImage],
        pixel_size_um: float,
        seed: int,
        augmentation: AugmentationSettings,
    ) -> None:
        if not images:
            raise DatasetError("nothing is left to train on; hold out less, or review more")
        self.samples = [as_sample(image, pixel_size_um) for image in images]
        self.augmentation = augmentation
        self.anywhere = _reviewed_places(images, seed)
        self.objects = objects_by_class(self.samples)

    def draw(self, rng: np.random.Generator) -> tuple[Sample, tuple[float, float]]:
        """A sample, and y, x that a crop of it shows."""
        places = self.anywhere
        if self.objects and rng.random() < OBJECT_FRACTION:
            places = self.objects[rng.integers(len(self.objects))]
        number, near = places.draw(rng)
        return self.samples[number], near


@dataclass(frozen=True)
class ReviewedCrops:
    """Batches of crops, each a pure function of the seed and the step.

    Parameters
    ----------
    size_px, pixel_size_um
        Of the crops.
    replayed, replay_fraction
        Further images, and their share of the crops.
    """

    own: CropPlaces
    size_px: int
    pixel_size_um: float
    seed: int
    replayed: CropPlaces | None = None
    replay_fraction: float = 0.0

    def draw(self, step: int, crops: int, augmented: bool = True) -> Batch:
        """The crops of a step, the same whenever it is drawn."""
        return stack([self._crop(step, slot, augmented) for slot in range(crops)])

    def _crop(self, step: int, slot: int, augmented: bool) -> Crop:
        rng, source = np.random.default_rng([self.seed, step, slot]), self.own
        if self.replayed is not None:
            choice = np.random.default_rng([self.seed, step, slot, REPLAY_STREAM])
            if choice.random() < self.replay_fraction:
                source = self.replayed
        sample, near = source.draw(rng)
        settings = source.augmentation if augmented else AugmentationSettings.none()
        return training_crop(sample, self.size_px, self.pixel_size_um, rng, settings, near)


def as_sample(image: ReviewedImage, pixel_size_um: float) -> Sample:
    """A sample that is known where it was reviewed; the class of an object may be unknown.

    Parameters
    ----------
    pixel_size_um
        Of an image that has none.
    """
    known = image.types_known
    if image.instances is not None and image.instance_types is not None:
        has_class = (image.instances == 0) | (image.instance_types > 0)
        known = has_class if known is None else known & has_class
    size = image.pixel_size_um or pixel_size_um
    return replace(image, pixel_size_um=size, types_known=known)


def _reviewed_places(images: Sequence[ReviewedImage], seed: int) -> Places:
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
    return Places(table[:, 0].astype(int), table[:, 1], table[:, 2])
