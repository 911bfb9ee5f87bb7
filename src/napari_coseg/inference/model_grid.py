"""Sides of an image on a model's grid, and which models serve pixels of a size."""

from __future__ import annotations

from napari_coseg.core.errors import CheckpointError, ImageError
from napari_coseg.inference.loading import SHIPPED, weights_path

SAME_SIZE_TOLERANCE = 0.02
"""Images whose pixel size differs from the model's by at most this fraction are not resampled."""
LARGEST_FACTOR = 64.0
"""Largest ratio of the image's and the model's pixel sizes; larger ones come from a wrong unit."""


def side_on_model_grid(side: int, image_um: float, model_um: float) -> int:
    """A side of an image on a model's grid; `ImageError` if their pixel sizes do not fit."""
    factor = image_um / model_um
    if not 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise ImageError(
            f"the image's pixels are {factor:.3g} times the model's; ratios beyond "
            f"{LARGEST_FACTOR:g} are not supported: check that the pixel size is in micrometres"
            + _others(image_um)
        )
    return side if keeps_its_grid(factor) else max(1, round(side * factor))


def keeps_its_grid(factor: float) -> bool:
    """Whether an image with pixels of `factor` times the model's size is not resampled."""
    return abs(factor - 1) <= SAME_SIZE_TOLERANCE


def models_for(image_um: float) -> list[str]:
    """Names of the shipped models that take pixels of this size."""
    from napari_coseg.models.checkpoints.native import read_card

    found = []
    for name in SHIPPED:
        try:
            factor = image_um / read_card(weights_path(name)).pixel_size_um
        except CheckpointError:  # missing here; it cannot serve
            continue
        if 1 / LARGEST_FACTOR <= factor <= LARGEST_FACTOR:
            found.append(name)
    return found


def _others(image_um: float) -> str:
    names = models_for(image_um)
    if not names:
        return ""
    size = f"{image_um / 1000:g} mm" if image_um >= 100 else f"{image_um:g} um"
    return f". If {size} is right, use a model of that scale: {', '.join(names)}"
