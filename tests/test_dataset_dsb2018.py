"""DSB 2018: one mask an object as released, or one label image an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cases.data_root import data_root
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.dsb2018 import merge_masks
from napari_coseg.datasets.registry import open_dataset

A = np.kron(np.array([[1, 1, 0], [1, 0, 0]]), np.ones((4, 4))).astype(np.uint8) * 255
B = np.kron(np.array([[0, 1, 0], [0, 0, 0]]), np.ones((4, 4))).astype(np.uint8) * 255
C = np.kron(np.array([[0, 0, 0], [0, 0, 1]]), np.ones((4, 4))).astype(np.uint8) * 255
GREY, COLOUR = np.full((8, 12), 90, np.uint8), np.full((8, 12, 4), (10, 20, 30, 255), np.uint8)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_official(root: Path, split: str = "stage1_train") -> Path:
    for name, picture, masks in (("aa", COLOUR, [A, C]), ("b0", GREY, [A, B, C]), ("c1", GREY, [])):
        write(root / split / name / "images" / f"{name}.png", picture)
        (root / split / name / "masks").mkdir()
        for number, mask in enumerate(masks):
            write(root / split / name / "masks" / f"{number}f.png", mask)
    return root


def make_grouped(root: Path) -> Path:
    for split, picture in (("colour-bright", COLOUR), ("fluorescence", GREY)):
        write(root / split / "images" / "x.png", picture)
        write(root / split / "labels" / "x.png", (A // 255).astype(np.uint16) * 700)
    return root


@pytest.mark.parametrize("inner", ["", "stage1_train"], ids=["parent", "stage1_train itself"])
def test_released_folders_are_read(tmp_path: Path, inner: str) -> None:
    dataset = open_dataset("dsb2018", make_official(tmp_path / "dsb2018") / inner)
    report = dataset.check()
    report.raise_if_broken()
    assert dataset.splits == ("stage1_train",)
    assert dataset.names("stage1_train") == ("aa", "b0", "c1")
    assert (report.splits["stage1_train"].images, report.splits["stage1_train"].objects) == (3, 5)


def test_pictures_become_rgb_and_masks_labels(tmp_path: Path) -> None:
    dataset = open_dataset("dsb2018", make_official(tmp_path))
    colour, grey, empty = dataset.load_all("stage1_train")
    assert colour.image[0, 0].tolist() == [10, 20, 30]
    assert grey.image[0, 0].tolist() == [90, 90, 90]
    np.testing.assert_array_equal(colour.instances, (A > 0) * 1 + (C > 0) * 2)
    assert not empty.instances.any()
    assert (colour.semantic, colour.instance_types) == (None, None)


def test_where_masks_overlap_the_smaller_object_wins(tmp_path: Path) -> None:
    for number, mask in enumerate([B, A]):
        write(tmp_path / f"{number}.png", mask)
    labels = merge_masks([tmp_path / "0.png", tmp_path / "1.png"], A.shape)
    np.testing.assert_array_equal(labels, np.where(B > 0, 1, (A > 0) * 2))


def test_label_images_are_read(tmp_path: Path) -> None:
    dataset = open_dataset("dsb2018", make_grouped(tmp_path))
    dataset.check().raise_if_broken()
    assert dataset.splits == ("colour-bright", "fluorescence")
    sample = dataset.load("fluorescence", "x")
    assert sample.image.shape == (8, 12, 3)
    np.testing.assert_array_equal(sample.instances, (A > 0) * 700)


def test_images_without_masks_are_no_split(tmp_path: Path) -> None:
    make_official(tmp_path)
    write(tmp_path / "stage1_test" / "t" / "images" / "t.png", GREY)
    assert open_dataset("dsb2018", tmp_path).splits == ("stage1_train",)


def remove_masks(root: Path) -> None:
    for mask in (root / "stage1_train/aa/masks").iterdir():
        mask.unlink()
    (root / "stage1_train/aa/masks").rmdir()


def put(relative: str, array: np.ndarray):
    return lambda root: write(root / "stage1_train" / relative, array)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("b0/masks/x.png", np.ones((5, 5), np.uint8)), r"shape \(5, 5\)"),
        (put("b0/masks/x.png", np.zeros((8, 12), np.uint8)), "marks no pixel"),
        (put("b0/masks/x.png", np.zeros((8, 12, 3), np.uint8)), "one channel"),
        (put("b0/images/second.png", GREY), "holds 2 images"),
        (lambda root: (root / "stage1_train/b0/masks/x.png").write_text("no"), "cannot read"),
        (lambda root: (root / "stage1_train/b0/images/b0.png").unlink(), "holds 0 images"),
        (remove_masks, "masks"),
    ],
    ids=["size", "empty mask", "colour mask", "two images", "broken mask", "no image", "no masks"],
)
def test_a_damaged_folder_is_told(tmp_path: Path, damage, message: str) -> None:
    damage(make_official(tmp_path))
    report = open_dataset("dsb2018", tmp_path).check()
    assert len(report.problems) == 1
    with pytest.raises(DatasetError, match=message):
        report.raise_if_broken()


def test_a_folder_of_neither_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="stage1_train"):
        open_dataset("dsb2018", tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("split", "images", "objects"), [("colour-bright", 107, 4_550), ("fluorescence", 74, 4_347)]
)
def test_the_real_images_are_as_told(split: str, images: int, objects: int) -> None:
    root = data_root()
    if root is None:
        pytest.skip("no shared research images here (set NAPARI_COSEG_DATA); the twins ran")
    dataset = open_dataset("dsb2018", root)
    samples = dataset.load_all(split)
    assert len(samples) == images
    assert sum(len(np.unique(sample.instances)) - 1 for sample in samples) == objects
