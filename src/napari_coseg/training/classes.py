"""Maps the classes of a dataset to those of a model card, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass, id_lookup
from napari_coseg.datasets.base import Dataset, Sample


@dataclass(frozen=True, eq=False)
class ClassMap:
    """Gives samples of one dataset the class ids of one model card.

    Regions that the card does not name are background. Labels of a kind that the card has no class
    of are left out. A dataset that names no classes has the card's numbers already.

    Parameters
    ----------
    regions, types
        uint8 (256,), from the dataset's class id to the card's; None to leave the labels out.
    """

    regions: np.ndarray | None
    types: np.ndarray | None

    @classmethod
    def between(cls, dataset: Dataset, card: ModelCard) -> Self:
        """From the classes of `dataset` to those of `card`; upper and lower case are alike.

        Raises
        ------
        DatasetError
            If they share no region, or the card lacks an object class: such objects would be
            trained as objects without a class.
        """
        regions, types = card.semantic_label_classes, card.instance_label_classes
        missing = _names(dataset.semantic_classes) - _names(regions)
        if regions and dataset.semantic_classes and missing == _names(dataset.semantic_classes):
            raise DatasetError(_missing(dataset, card, "region", missing, regions))
        missing = _names(dataset.instance_classes) - _names(types)
        if types and missing:
            raise DatasetError(_missing(dataset, card, "object", missing, types))
        return cls(
            _lookup(dataset.semantic_classes, regions), _lookup(dataset.instance_classes, types)
        )

    def __call__(self, sample: Sample) -> Sample:
        """The sample with the card's numbers; its arrays may be shared."""
        return replace(
            sample,
            semantic=_through(self.regions, sample.semantic),
            instance_types=_through(self.types, sample.instance_types),
        )


def _names(classes: Iterable[LabelClass]) -> set[str]:
    return {entry.name.lower() for entry in classes}


def _missing(
    dataset: Dataset, card: ModelCard, kind: str, missing: set[str], known: tuple[LabelClass, ...]
) -> str:
    return (
        f"dataset {dataset.name!r} has the {kind} classes {', '.join(sorted(missing))}, which the "
        f"card of {card.name!r} does not name; it names {', '.join(entry.name for entry in known)}"
    )


def _lookup(theirs: tuple[LabelClass, ...], ours: tuple[LabelClass, ...]) -> np.ndarray | None:
    if not ours:
        return None
    if not theirs:
        return np.arange(256, dtype=np.uint8)
    ids = {entry.name.lower(): entry.id for entry in ours}
    return id_lookup({entry.id: ids.get(entry.name.lower(), 0) for entry in theirs})


def _through(table: np.ndarray | None, labels: np.ndarray | None) -> np.ndarray | None:
    return None if table is None or labels is None else table[labels]
