"""Reviewed images from a labelled folder (`napari_coseg.datasets.folder`), or another dataset."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.folder import Folder
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet


def is_labelled_folder(path: Path) -> bool:
    """Whether ``dataset.json`` describes it."""
    return (path / "dataset.json").is_file()


def read_folder(path: Path) -> ReviewedSet:
    """All images of a labelled folder, of every split.

    All of an image counts as reviewed, or what ``known/`` says where there is one.
    """
    dataset = Folder.open(path)
    samples = (sample for split in dataset.splits for sample in dataset.load_all(split))
    return from_samples(samples, dataset, str(path))


def from_samples(samples: Iterable[Sample], dataset: Dataset, source: str = "") -> ReviewedSet:
    """Samples of a dataset as if a person had reviewed all that is known of them."""
    return ReviewedSet(
        tuple(map(_reviewed, samples)),
        dataset.semantic_classes,
        dataset.instance_classes,
        source or dataset.name,
    )


def _reviewed(sample: Sample) -> ReviewedImage:
    def reviewed(labels: np.ndarray | None, known: np.ndarray | None) -> np.ndarray | None:
        return None if labels is None else np.ones(labels.shape, bool) if known is None else known

    return ReviewedImage(
        name=sample.name,
        image=sample.image,
        pixel_size_um=sample.pixel_size_um,
        semantic=sample.semantic,
        objects=sample.instances,
        types=sample.instance_types if sample.instances is not None else None,
        semantic_reviewed=reviewed(sample.semantic, sample.semantic_known),
        objects_reviewed=reviewed(sample.instances, sample.instances_known),
    )
