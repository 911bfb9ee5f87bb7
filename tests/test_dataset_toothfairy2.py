"""ToothFairy2: jawbones and pharynx as regions, teeth as objects; and real volumes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from cases.data_root import data_root
from cases.volume_twins import make_toothfairy2, write_mha
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.datasets.slices import label_planes, read_numbers
from napari_coseg.images.volumes import read_header


@pytest.mark.parametrize("inner", ["", "Dataset112_ToothFairy2"])
def test_classes_are_those_of_the_paper(tmp_path: Path, inner: str) -> None:
    dataset = open_dataset("toothfairy2", make_toothfairy2(tmp_path) / inner)
    assert [c.name for c in dataset.semantic_classes] == [
        "lower jawbone",
        "upper jawbone",
        "pharynx",
    ]
    assert [c.name for c in dataset.instance_classes] == ["lower tooth", "upper tooth"]
    report = dataset.check()
    report.raise_if_broken()
    assert report.splits["train"].images == 8  # slices 1 to 4 of two cases; 5 shows a sinus only
    assert report.splits["train"].objects_by_class == {"lower tooth": 4, "upper tooth": 2}


def test_teeth_keep_their_numbers_and_are_no_region(tmp_path: Path) -> None:
    dataset = open_dataset("toothfairy2", make_toothfairy2(tmp_path))
    sample = dataset.load("train", "ToothFairy2F_002_0002")
    assert sorted(np.unique(sample.instances)) == [0, 28, 31, 48]
    types = {number: sample.instance_types[sample.instances == number][0] for number in (28, 31)}
    assert types == {28: 2, 31: 1}
    assert not sample.semantic[sample.instances > 0].any()
    assert sample.semantic[14, 14] == 0  # the canal
    assert sample.semantic[7, 7] == 3
    assert sample.image[0, 0].tolist() == [128] * 3  # 1000 of -1000 to 3000
    assert sample.pixel_size_um == pytest.approx(300)


def test_an_unknown_number_is_told(tmp_path: Path) -> None:
    folder = make_toothfairy2(tmp_path) / "Dataset112_ToothFairy2"
    write_mha(folder / "labelsTr" / "ToothFairy2F_001.mha", np.full((6, 16, 16), 51, np.uint8))
    with pytest.raises(DatasetError, match="values 51"):
        open_dataset("toothfairy2", tmp_path).load("train", "ToothFairy2F_001_0000")


def test_two_folders_are_not_guessed_between(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"Dataset{number}_ToothFairy2").mkdir()
    with pytest.raises(DatasetError, match="2 ToothFairy2 folders"):
        open_dataset("toothfairy2", tmp_path)


def real(relative: str) -> Path:
    root = data_root()
    if root is None or not (root / relative).is_file():
        pytest.skip("no shared research volumes here (set NAPARI_COSEG_DATA); the twins ran")
    return root / relative


def raw_folder(root: Path, name: str, labels: dict[str, int], channels: list[str]) -> Path:
    """An nnU-Net raw folder to be filled with one case of ``.nii.gz``."""
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "channel_names": {str(i): channel for i, channel in enumerate(channels)},
        "labels": {"background": 0} | labels,
        "file_ending": ".nii.gz",
        "numTraining": 1,
    }
    (root / "dataset.json").write_text(json.dumps(description))
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir()
    return root


@pytest.mark.data
def test_a_real_ct_is_read(tmp_path: Path) -> None:
    image = real("ct/example_ct.nii.gz")
    labels = real("ct/example_seg_fast_force_split.nii.gz")
    numbers = read_numbers(read_header(labels))
    names = {f"structure {n}": int(n) for n in np.unique(numbers) if n}
    root = raw_folder(tmp_path, "ct", names, ["CT"])
    (root / "imagesTr" / "ct_0000.nii.gz").symlink_to(image)
    (root / "labelsTr" / "ct.nii.gz").symlink_to(labels)
    dataset = open_dataset("nnunet-raw", root)
    report = dataset.check()
    report.raise_if_broken()
    assert sum(report.splits["train"].region_pixels.values()) == (numbers > 0).sum()
    assert report.splits["train"].images == (numbers > 0).any(axis=(1, 2)).sum()
    sample = dataset.load("train", dataset.names("train")[40])
    assert sample.pixel_size_um == pytest.approx(3000)
    bone = sample.image[..., 0][sample.semantic > 0].mean()
    assert bone > sample.image[..., 0][sample.semantic == 0].mean()


@pytest.mark.data
def test_real_jaws_are_read_as_toothfairy2(tmp_path: Path) -> None:
    """The label volume at hand has no image; its numbers are turned into those of the release."""
    header = read_header(real("dental/PostDentalSurgery_Segmentation.nii.gz"))
    theirs = np.stack(list(itertools.islice(label_planes(header), 120, 150)))
    table = np.array([0, 2, 1, 11, 31, 3], np.uint8)  # skull, mandible, upper, lower teeth, canal
    numbers = table[theirs]
    values = np.where(numbers, 1200, -200).astype(np.int16)
    folder = make_toothfairy2(tmp_path) / "Dataset112_ToothFairy2"
    write_mha(folder / "imagesTr" / "ToothFairy2F_001_0000.mha", values)
    write_mha(folder / "labelsTr" / "ToothFairy2F_001.mha", numbers)
    dataset = open_dataset("toothfairy2", tmp_path)
    names = [name for name in dataset.names("train") if name.startswith("ToothFairy2F_001")]
    samples = dataset.load_all("train", tuple(names))
    regions = sum(np.bincount(sample.semantic.ravel(), minlength=4) for sample in samples)
    assert regions[1] == (theirs == 2).sum()
    assert regions[2] == (theirs == 1).sum()
    assert sum((sample.instance_types == 1).sum() for sample in samples) == (theirs == 4).sum()
