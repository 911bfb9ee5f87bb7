"""Splits in three as files: drawn by seed, kept, read again, and refused where names differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from cases.histology_twins import make_glas_bmp, make_puma
from napari_coseg.core.errors import DatasetError, OutputError
from napari_coseg.datasets.partition import (
    Partition,
    Partitioned,
    draw_partition,
    draw_partition_of,
    load_partition,
    save_partition,
)
from napari_coseg.datasets.registry import open_dataset

NAMES = tuple(f"image_{i}" for i in range(206))


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [
        (206, (7, 1, 2), (144, 21, 41)),
        (165, (7, 1, 2), (116, 16, 33)),
        (10, (7, 1, 2), (7, 1, 2)),
        (3, (7, 1, 2), (1, 1, 1)),
        (10, (1, 1, 8), (1, 1, 8)),
        (4, (1, 10, 10), (1, 1, 2)),
    ],
)
def test_parts_have_their_shares(count: int, shares: tuple, sizes: tuple) -> None:
    parts = draw_partition(NAMES[:count], 0, shares)
    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes
    assert sorted(parts.names) == sorted(NAMES[:count])


def test_the_seed_decides_and_not_the_order_of_the_names() -> None:
    assert draw_partition(NAMES, 3) == draw_partition(reversed(NAMES), 3)
    assert draw_partition(NAMES, 3) != draw_partition(NAMES, 4)


@pytest.mark.parametrize(
    ("names", "shares"),
    [(NAMES[:2], (7, 1, 2)), (NAMES, (1, 0, 1)), (NAMES, (1, float("nan"), 1))],
)
def test_parts_that_cannot_be_drawn_are_refused(names: tuple, shares: tuple) -> None:
    with pytest.raises(DatasetError):
        draw_partition(names, 0, shares)


def test_a_name_cannot_stand_in_two_parts() -> None:
    with pytest.raises(DatasetError, match="a are in"):
        Partition(("a",), ("b",), ("a",))
    with pytest.raises(DatasetError, match="b are in"):
        Partition(("a",), ("b",), ("c",), left_out=("b",))


@pytest.mark.parametrize(
    ("names", "message"),
    [("abcd", "1 of the dataset's not in the split .d."), ("ab", "1 of the split's .* .c.")],
    ids=["more", "fewer"],
)
def test_other_names_are_refused(names: str, message: str) -> None:
    parts = Partition(("a",), ("b",), ("c",), left_out=("x",))
    parts.check("abc")
    parts.check("abcx")
    with pytest.raises(DatasetError, match=message):
        parts.check(names)


def test_saved_parts_come_back(tmp_path: Path) -> None:
    parts = {"puma": draw_partition(NAMES, 0), "glas": Partition(("ä",), ("b",), ("c",), ("d",))}
    save_partition(tmp_path / "split.json", parts, note="drawn with seed 0")
    assert load_partition(tmp_path / "split.json") == parts
    with pytest.raises(OutputError, match="nowhere"):
        save_partition(tmp_path / "nowhere" / "split.json", parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"datasets": {"puma": {"train": [], "validation": []}}}',
        '{"datasets": {"puma": {"train": "abc", "validation": [], "test": []}}}',
        '{"datasets": {"puma": {"train": [1], "validation": [], "test": []}}}',
        "[" * 100_000,
    ],
)
def test_a_broken_file_of_parts_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_text(text)
    with pytest.raises(DatasetError, match="datasets"):
        load_partition(tmp_path / "split.json")


@pytest.mark.parametrize("name", ["puma_cosegg", "../splits/puma_coseg", "nowhere/split.json"])
def test_a_missing_file_of_parts_is_told(name: str) -> None:
    with pytest.raises(DatasetError, match="no split"):
        load_partition(name)


def test_the_authors_split_of_puma_is_carried() -> None:
    parts = load_partition("puma_coseg")["puma"]
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (144, 20, 41)
    official = [
        f"training_set_{kind}_roi_{i:03}"
        for kind in ("metastatic", "primary")
        for i in range(1, 104)
    ]
    parts.check(official)


def test_a_dataset_is_read_by_parts_whatever_folders_its_images_lie_in(tmp_path: Path) -> None:
    make_glas_bmp(tmp_path)
    whole = open_dataset("glas", tmp_path)
    parts = Partition(("testA_1", "train_1", "train_10"), ("train_2",), ("testB_1",))
    save_partition(tmp_path / "split.json", {"glas": parts})
    dataset = open_dataset("glas", tmp_path, partition=tmp_path / "split.json")
    assert dataset.splits == ("train", "validation", "test")
    assert dataset.names("train") == ("testA_1", "train_1", "train_10")
    assert (dataset.name, dataset.semantic_classes) == ("glas", whole.semantic_classes)
    image = dataset.load("train", "testA_1").image
    assert (image == whole.load("testA", "testA_1").image).all()
    report = dataset.check()
    report.raise_if_broken()
    assert [counts.images for counts in report.splits.values()] == [3, 1, 1]


def test_parts_of_another_dataset_are_refused(tmp_path: Path) -> None:
    make_glas_bmp(tmp_path)
    with pytest.raises(DatasetError, match="only puma"):
        open_dataset("glas", tmp_path, partition="puma_coseg")
    make_puma(tmp_path / "puma")
    for name in ("puma", "puma-10"):
        with pytest.raises(DatasetError, match="203 of the split's"):
            open_dataset(name, tmp_path, partition="puma_coseg")


def test_a_part_gives_its_own_images_alone(tmp_path: Path) -> None:
    make_glas_bmp(tmp_path)
    whole = open_dataset("glas", tmp_path)
    names = [name for split in whole.splits for name in whole.names(split)]
    parts = draw_partition(names, 0)
    dataset = Partitioned.of(whole, parts)
    with pytest.raises(DatasetError, match="not an image of train"):
        dataset.load("train", parts.test[0])
    with pytest.raises(DatasetError, match="testA"):
        dataset.names("testA")


@pytest.mark.parametrize("seed", range(5))
def test_images_of_one_patient_stand_in_one_part(tmp_path: Path, seed: int) -> None:
    make_glas_bmp(tmp_path)
    whole = open_dataset("glas", tmp_path)
    table = whole.root / "Grade.csv"
    table.write_text(table.read_text().replace("train_10,4", "train_10,0"))  # as testA_1
    parts = draw_partition_of(whole, seed)
    dataset = Partitioned.of(whole, parts)
    assert len(parts.names) == 5
    (together,) = (part for part in dataset.splits if "testA_1" in dataset.names(part))
    assert "train_10" in dataset.names(together)
    assert dataset.source("train_10") == dataset.source("testA_1") == "patient 0"
