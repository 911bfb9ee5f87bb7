"""The pixel size of an image that has none, estimated from the size of the objects in it.

A model finds objects at wrong sizes too, but they then measure too little or too much. A part of
the image is segmented as if its pixels had one size after another, and the size is taken at which
the objects measure what they do in images of known pixel size (`ModelCard.object_diameter_um`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.types import Image
from napari_coseg.inference.loading import load_model
from napari_coseg.inference.run import segment
from napari_coseg.models.base import CosegModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_coseg.models.base import SegmentationModel

ASSUMED = "the size of a pixel: estimated from the size of nuclei"
JUDGE = "multi-organ"
"""A model that knows the usual size of nuclei, for models that do not."""
SIZES_UM = (0.125, 0.18, 0.25, 0.35, 0.5, 0.7, 1.0)
"""From 80x to 10x of a microscope."""
SIDE_PX = 384
"""Of the part that is segmented, on the model's grid."""
LARGEST_SIDE_PX = 1536
"""Of the part, on the image's grid."""
LEAST_OBJECTS = 10
SPREAD = 1.7
"""Nuclei of other organs than those of the card differ by about this factor."""


@dataclass(frozen=True)
class PixelSizeEstimate:
    """Micrometres, and on how many objects they rest."""

    um: float
    objects: int

    @property
    def range_um(self) -> tuple[float, float]:
        """Between these it lies, probably."""
        return self.um / SPREAD, self.um * SPREAD

    def __str__(self) -> str:
        low, high = self.range_um
        return f"about {self.um:.2g} um ({low:.2g} to {high:.2g}, from {self.objects} objects)"


def judge_of(model: SegmentationModel) -> CosegModel | None:
    """The model whose objects tell the pixel size of images for `model`; None if none does."""
    if not isinstance(model, CosegModel):
        return None
    if model.card.object_diameter_um:
        return model
    judge = load_model(JUDGE)
    same = {c.name for c in judge.card.instance_classes}
    return judge if same & {c.name for c in model.card.instance_classes} else None


def estimate_pixel_size(
    image: Image, model: CosegModel, channels: int | Sequence[int] | None = None
) -> PixelSizeEstimate | None:
    """Estimate an image's pixel size from its middle, and the middle slice of a stack.

    Returns
    -------
    PixelSizeEstimate or None
        None where the card says nothing of its objects' size, where too few objects are found, or
        where they have the expected size at none of `SIZES_UM`.
    """
    expected = model.card.object_diameter_um
    if expected is None:
        return None
    found = []
    for size in SIZES_UM:
        side = min(math.ceil(SIDE_PX * model.card.pixel_size_um / size), LARGEST_SIDE_PX)
        diameters = _diameters_px(image, model, size, side, channels) * size
        if len(diameters) >= LEAST_OBJECTS:
            found.append((size, float(np.median(diameters)), len(diameters)))
    for (small, below, count), (large, above, _) in pairwise(found):
        if below <= expected < above:
            part = math.log(expected / below) / math.log(above / below)
            return PixelSizeEstimate(small * (large / small) ** part, count)
    return None


def _diameters_px(
    image: Image,
    model: CosegModel,
    size_um: float,
    side: int,
    channels: int | Sequence[int] | None,
) -> np.ndarray:
    """Diameters of discs of the objects' areas, in pixels of the image."""
    *depth, height, width = image.spatial_shape
    region = [(n // 2, n // 2 + 1) for n in depth]
    region += [(max(0, (n - side) // 2), min(n, (n + side) // 2)) for n in (height, width)]
    sizes = (size_um,) * len(image.spatial_shape)
    part = Image(image.data, image.axes, sizes, name=image.name)
    labels = segment(part, model, channels=channels, region=region).instances.labels
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    diameters: np.ndarray = np.sqrt(areas * 4 / math.pi)
    return diameters
