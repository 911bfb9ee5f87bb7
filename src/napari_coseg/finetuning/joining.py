"""Several sets of reviewed images as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.finetuning.reviewed import ReviewedSet

MOST_CLASSES = 255


def together(sets: Sequence[ReviewedSet]) -> ReviewedSet:
    """Several sets as one; classes of one name are one class.

    Names of images that occur in several sets get the number of their set before them.
    """
    if len(sets) == 1:
        return sets[0]
    times = Counter(name for one in sets for name in {image.name for image in one.images})
    semantic = _union(one.semantic_classes for one in sets)
    instance = _union(one.instance_classes for one in sets)
    images = []
    for number, one in enumerate(sets, 1):
        regions, types = _ids(one.semantic_classes, semantic), _ids(one.instance_classes, instance)
        for image in one.images:
            images.append(
                replace(
                    image,
                    name=f"{number}/{image.name}" if times[image.name] > 1 else image.name,
                    semantic=None if image.semantic is None else regions[image.semantic],
                    types=None if image.types is None else types[image.types],
                )
            )
    source = ", ".join(one.source for one in sets)
    found_by = dict.fromkeys(finder for one in sets for finder in one.found_by)
    return ReviewedSet(tuple(images), semantic, instance, source, tuple(found_by))


def _union(groups: Iterable[tuple[LabelClass, ...]]) -> tuple[LabelClass, ...]:
    found: dict[str, LabelClass] = {}
    for classes in groups:
        for entry in classes:
            found.setdefault(entry.name.lower(), entry)
    if len(found) > MOST_CLASSES:
        raise DatasetError(f"{len(found)} classes are more than {MOST_CLASSES}")
    return tuple(replace(entry, id=number) for number, entry in enumerate(found.values(), 1))


def _ids(theirs: tuple[LabelClass, ...], ours: tuple[LabelClass, ...]) -> np.ndarray:
    number_of = {entry.name.lower(): entry.id for entry in ours}
    table = np.zeros(256, np.uint8)
    for entry in theirs:
        table[entry.id] = number_of[entry.name.lower()]
    return table
