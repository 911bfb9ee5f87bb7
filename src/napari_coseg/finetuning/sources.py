"""Reads reviewed images from workspaces and labelled folders, one or several together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.folder import Folder
from napari_coseg.finetuning.from_workspace import is_workspace, read_workspace
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet, class_lookup

MOST_CLASSES = 255


def read_reviewed(*paths: str | Path) -> ReviewedSet:
    """Read what is reviewed in workspaces and labelled folders, and check it.

    Parameters
    ----------
    *paths
        Workspaces, and labelled folders (``dataset.json`` beside ``images/``). Of a folder all of
        every image counts as reviewed, or what ``known/`` says where it exists.

    Returns
    -------
    ReviewedSet
        Images with labels and masks of where these were reviewed, for `finetune`.

    Raises
    ------
    CosegError
        Where a folder is neither, is damaged, or nothing in any of them is reviewed.
    """
    if not paths:
        raise DatasetError("no workspace and no labelled folder was named")
    return together([one for path in paths for one in _read(Path(path).expanduser())]).checked()


def from_samples(samples: Iterable[Sample], dataset: Dataset, source: str = "") -> ReviewedSet:
    """Samples of a dataset as if a person had reviewed all that is known of them."""
    return ReviewedSet(
        tuple(map(_reviewed, samples)),
        dataset.semantic_classes,
        dataset.instance_classes,
        source or dataset.name,
    )


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
        regions = class_lookup(one.semantic_classes, {c.name.lower(): c.id for c in semantic})
        types = class_lookup(one.instance_classes, {c.name.lower(): c.id for c in instance})
        for image in one.images:
            name = f"{number}/{image.name}" if times[image.name] > 1 else image.name
            images.append(replace(image, name=name).with_ids(regions, types))
    source = ", ".join(dict.fromkeys(one.source for one in sets))
    found_by = dict.fromkeys(finder for one in sets for finder in one.found_by)
    return ReviewedSet(tuple(images), semantic, instance, source, tuple(found_by))


def _read(path: Path) -> list[ReviewedSet]:
    if is_workspace(path):
        return read_workspace(path)
    if (path / "dataset.json").is_file():
        dataset = Folder.open(path)
        samples = (sample for split in dataset.splits for sample in dataset.load_all(split))
        return [from_samples(samples, dataset, str(path))]
    if not path.is_dir():
        raise DatasetError(f"there is no folder {path}; name a workspace or a labelled folder")
    raise DatasetError(
        f"{path} is neither a workspace (workspace.json) nor a labelled folder (dataset.json "
        "beside images/); save corrections as a workspace, or describe your labels in dataset.json"
    )


def _reviewed(sample: Sample) -> ReviewedImage:
    values = {**vars(sample), "derived": None}
    for kind in ("semantic", "instances"):
        if (labels := values[kind]) is not None and values[f"{kind}_known"] is None:
            values[f"{kind}_known"] = np.ones(labels.shape, bool)
    return ReviewedImage(**values)


def _union(groups: Iterable[tuple[LabelClass, ...]]) -> tuple[LabelClass, ...]:
    found: dict[str, LabelClass] = {}
    for classes in groups:
        for entry in classes:
            found.setdefault(entry.name.lower(), entry)
    if len(found) > MOST_CLASSES:
        raise DatasetError(f"{len(found)} classes are more than {MOST_CLASSES}")
    return tuple(replace(entry, id=number) for number, entry in enumerate(found.values(), 1))
