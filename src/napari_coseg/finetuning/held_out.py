"""Chooses which reviewed parts are held out of training to score the model, always the same."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet

WHOLE_IMAGES_FROM = 4
"""With so many images, whole ones are held out; of fewer, a strip of each."""
LEAST, MOST = 0.75, 1.5
"""Of what is wanted: whole images that come to less or more than that are not held out."""


class Divided(NamedTuple):
    """What is trained on and what is held out. Either may have no images."""

    training: tuple[ReviewedImage, ...]
    held_out: tuple[ReviewedImage, ...]


def hold_out(reviewed: ReviewedSet, fraction: float) -> Divided:
    """Hold out about `fraction` of the reviewed pixels.

    Of `WHOLE_IMAGES_FROM` images or more, whole ones, in the order of the hashes of their names;
    of fewer a strip at one end of each, across its longer side. Strips are also taken where images
    differ so much in size that no whole ones come to about what is wanted, or where one task would
    be trained or held out as a whole. Areas reviewed for one task alone have a strip for each task.
    Objects that the strip's border cuts are neither trained on nor scored.
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
    pairs = [(image, *_strips(image, fraction)) for image in images]
    training = [image.within(~regions, ~objects) for image, regions, objects in pairs]
    strips = [image.within(regions, objects) for image, regions, objects in pairs]
    return Divided(
        tuple(image for image in training if image.reviewed.any()),
        tuple(image for image in strips if image.reviewed.any()),
    )


def _chosen(images: tuple[ReviewedImage, ...], fraction: float) -> set[str]:
    """Names of whole images, without those too large; none where the others are too few."""
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
    """Whether each task that was reviewed has something to train on and something to score."""
    for task in ("semantic_known", "instances_known"):
        sides = {
            image.name in held
            for image in images
            if (mask := getattr(image, task)) is not None and mask.any()
        }
        if len(sides) == 1:
            return False
    return True


def _strips(image: ReviewedImage, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """For regions and for objects; the same where the same was reviewed, or one of them alone."""
    regions, objects = image.semantic_known, image.instances_known
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
