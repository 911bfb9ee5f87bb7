"""Which of what was reviewed scores the model and is not learnt: the same for the same reviews."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet

WHOLE_IMAGES_FROM = 4
"""With so many images, whole ones are held back; of fewer, a strip of each."""
LEAST, MOST = 0.75, 1.5
"""Of what is wanted: whole images that come to less or more than that are not held back."""


class Divided(NamedTuple):
    """What is learnt and what is held back. Either may have no images."""

    to_learn: tuple[ReviewedImage, ...]
    held_back: tuple[ReviewedImage, ...]


def hold_back(reviewed: ReviewedSet, fraction: float) -> Divided:
    """Hold back about `fraction` of the reviewed pixels.

    Of `WHOLE_IMAGES_FROM` images or more, whole ones, in the order of the hashes of their names;
    of fewer a strip at one end of each, across its longer side. So it is as well where images
    differ so much in size that no whole ones come to about what is wanted, or where one task would
    be all learnt or all held back. What was reviewed for one task alone has a strip for each task.
    Objects that the strip's border cuts are neither learnt nor scored.
    """
    images = reviewed.images
    if not fraction:
        return Divided(images, ())
    names = {image.name for image in images}
    held = _chosen(images, fraction) if len(names) >= WHOLE_IMAGES_FROM else set()
    if held:
        return Divided(
            tuple(image for image in images if image.name not in held),
            tuple(image for image in images if image.name in held),
        )
    strips = [_strips(image, fraction) for image in images]
    pairs = list(zip(images, strips, strict=True))
    learnt = [image.within(~regions, ~objects) for image, (regions, objects) in pairs]
    held_parts = [image.within(regions, objects) for image, (regions, objects) in pairs]
    return Divided(
        tuple(image for image in learnt if image.reviewed.any()),
        tuple(image for image in held_parts if image.reviewed.any()),
    )


def _chosen(images: tuple[ReviewedImage, ...], fraction: float) -> set[str]:
    """Names of whole images, passing over those too large; none where the others are too few."""
    areas: dict[str, int] = {}
    for image in images:
        areas[image.name] = areas.get(image.name, 0) + int(image.reviewed.sum())
    wanted = fraction * sum(areas.values())
    chosen: set[str] = set()
    area = 0
    for name in sorted(areas, key=_hash):
        if area + areas[name] <= MOST * wanted and len(chosen) + 1 < len(areas):
            chosen.add(name)
            area += areas[name]
        if area >= LEAST * wanted:
            return chosen if _serves_each_task(images, chosen) else set()
    return set()


def _serves_each_task(images: tuple[ReviewedImage, ...], held: set[str]) -> bool:
    """Whether each task that was reviewed has something to learn and something to score."""
    for task in ("semantic_reviewed", "objects_reviewed"):
        sides = {image.name in held for image in images if _any(getattr(image, task))}
        if len(sides) == 1:
            return False
    return True


def _any(mask: np.ndarray | None) -> bool:
    return mask is not None and bool(mask.any())


def _strips(image: ReviewedImage, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """For regions and for objects; the same where the same was reviewed, or one of them alone."""
    regions, objects = image.semantic_reviewed, image.objects_reviewed
    if regions is None or objects is None or not (regions.any() and objects.any()):
        strip = _strip(image.reviewed, image.name, fraction)
        return strip, strip
    return _strip(regions, image.name, fraction), _strip(objects, image.name, fraction)


def _strip(mask: np.ndarray, name: str, fraction: float) -> np.ndarray:
    """Bool (Y, X): the last rows or columns of what was reviewed, or the first."""
    spans = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    axis = int(np.argmax([span[-1] - span[0] for span in spans]))
    along = mask.sum(axis=1 - axis).cumsum()
    if _hash(name) & 1:
        rows = np.arange(len(along)) < np.searchsorted(along, fraction * along[-1])
    else:
        rows = np.arange(len(along)) > np.searchsorted(along, (1 - fraction) * along[-1])
    strip = np.zeros(mask.shape, bool)
    strip[rows if axis == 0 else (slice(None), rows)] = True
    return strip


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
