"""Classes of a dataset become those of a card by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.core.errors import DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.base import Dataset, Layout, Sample
from napari_coseg.training.classes import ClassMap

GREY = (9, 9, 9)


def dataset(regions: str = "", types: str = "") -> Dataset:
    """Classes in the order of their ids, 1, 2, ..."""
    region_classes, type_classes = (
        tuple(LabelClass(i, name, GREY) for i, name in enumerate(names.split(), 1))
        for names in (regions, types)
    )
    return Dataset(Path(), "mine", ("all",), 1.0, Layout(), region_classes, type_classes)


def card(regions: str = "", types: str = "") -> ModelCard:
    entries = (
        tuple(ClassEntry(id=i, name=name, color=GREY) for i, name in enumerate(names.split(), 1))
        for names in (regions, types)
    )
    region_entries, type_entries = entries
    return ModelCard(
        name="net",
        family="coseg-plus",
        config={},
        semantic_classes=region_entries,
        instance_classes=type_entries,
        pixel_size_um=1.0,
    )


def sample() -> Sample:
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2)
    objects = labels.astype(np.int32)
    return Sample("a", np.zeros((2, 2, 3), np.uint8), 1.0, labels, objects, labels)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("tumor stroma vessel", "tumor stroma vessel", [0, 1, 2, 3]),
        ("tumor stroma vessel", "stroma Tumor vessel", [0, 2, 1, 3]),
        ("tumor stroma vessel", "tumor", [0, 1, 0, 0]),
        ("tumor stroma vessel", "necrosis vessel", [0, 0, 0, 2]),
        ("", "tumor stroma vessel", [0, 1, 2, 3]),
        ("tumor stroma vessel", "", None),
    ],
    ids=["the same", "another order", "some are background", "others", "unnamed", "none wanted"],
)
def test_regions(theirs: str, ours: str, expected: list[int] | None) -> None:
    found = ClassMap.between(dataset(theirs), card(ours))(sample()).semantic
    assert (None if found is None else found.ravel().tolist()) == expected
    assert found is None or found.dtype == np.uint8


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ("round long thin", "long thin round", [0, 3, 1, 2]),
        ("round long thin", "long thin round star", [0, 3, 1, 2]),
        ("round long thin", "", None),
    ],
    ids=["another order", "fewer than the card's", "no types wanted"],
)
def test_types_of_objects(theirs: str, ours: str, expected: list[int] | None) -> None:
    found = ClassMap.between(dataset("", theirs), card("", ours))(sample())
    types = found.instance_types
    assert (None if types is None else types.ravel().tolist()) == expected
    assert found.instances is not None
    assert found.instances.ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (("tumour", ""), ("tumor", ""), "region classes tumour, which .* it names tumor"),
        (("", "round long"), ("", "long"), "object classes round, which .* it names long"),
    ],
    ids=["no region in common", "objects without a class"],
)
def test_what_cannot_be_learnt_is_told(
    theirs: tuple[str, str], ours: tuple[str, str], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        ClassMap.between(dataset(*theirs), card(*ours))
