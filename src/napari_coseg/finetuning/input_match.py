"""Chooses the linear change of intensities under which the base has the lowest loss.

A network trained on dark nuclei on pale tissue does not find bright ones on black. Before the first
step, the reviewed labels select one of a few linear changes: the image as
it is, its negative, background and objects brought to the colours that they have in H&E; each image
by itself stretched before, or not. The change is no code of its own: ``(a v + b - mean) / std`` is
``(v - mean') / std'``, so it is kept as the normalisation of the adapted model's card.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from napari_coseg.core.card import Normalisation
from napari_coseg.finetuning.reviewed import ReviewedImage

PALE, DARK = (232.0, 214.0, 230.0), (118.0, 88.0, 152.0)
"""Red, green, blue of tissue around nuclei, and of nuclei, in H&E."""
LEAST_CONTRAST = 4.0
"""Of background and objects, in 0..255; below it no colours are matched."""
LEAST_GAIN = 0.05
"""Part of the loss that a change must save to be taken."""
AS_IT_IS = "as it is"
Loss = Callable[[Normalisation], float]


def match_input(
    base: Normalisation, images: Sequence[ReviewedImage], loss: Loss
) -> tuple[str, Normalisation]:
    """The candidate with the lowest loss, in words and as a normalisation."""
    losses = {name: (loss(n), n) for name, n in candidates(base, images).items()}
    name = min(losses, key=lambda key: losses[key][0])
    if not losses[name][0] < (1 - LEAST_GAIN) * losses[AS_IT_IS][0]:
        name = AS_IT_IS
    return name, losses[name][1]


def candidates(base: Normalisation, images: Sequence[ReviewedImage]) -> dict[str, Normalisation]:
    """Normalisations to try, by name; the base's own is the first."""
    found = {AS_IT_IS: base, "inverted": changed(base, (-1.0,) * 3, (255.0,) * 3)}
    found |= _tinted(base, images, "")
    stretched = base.model_copy(update={"stretch": True})
    found["stretched"] = stretched
    return found | _tinted(stretched, [image.stretched() for image in images], "stretched and ")


def _tinted(
    base: Normalisation, images: Sequence[ReviewedImage], how: str
) -> dict[str, Normalisation]:
    """Background and objects as in H&E; none where there are no objects, or no contrast."""
    levels = _levels(images)
    if levels is None:
        return {}
    background, objects = levels
    contrast = objects - background
    if np.abs(contrast).min() < LEAST_CONTRAST:
        return {}
    pale, dark = np.array(PALE), np.array(DARK)
    found = {}
    # Half-way as well: nuclei of other stains are paler than hematoxylin's.
    for name, target in (("tinted as H&E", dark), ("tinted as pale H&E", (pale + dark) / 2)):
        gain = (target - pale) / contrast
        found[how + name] = changed(base, tuple(gain), tuple(pale - gain * background))
    return found


def changed(base: Normalisation, gain: Sequence[float], offset: Sequence[float]) -> Normalisation:
    """The normalisation that does what `base` does after ``gain * value + offset``."""
    mean = [(m - b) / a for m, a, b in zip(base.mean, gain, offset, strict=True)]
    std = [s / a for s, a in zip(base.std, gain, strict=True)]
    return base.model_copy(update={"mean": tuple(map(float, mean)), "std": tuple(map(float, std))})


def _levels(images: Sequence[ReviewedImage]) -> tuple[np.ndarray, np.ndarray] | None:
    """Median red, green, blue of background and of objects: the medians over images; or None."""
    rows = []
    for image in images:
        if image.instances is None or image.instances_known is None:
            continue
        inside = image.instances_known & (image.instances > 0)
        outside = image.instances_known & (image.instances == 0)
        if inside.any() and outside.any():
            rows.append([np.median(image.image[mask], axis=0) for mask in (outside, inside)])
    if not rows:
        return None
    background, objects = np.median(np.array(rows), axis=0)
    return background, objects
