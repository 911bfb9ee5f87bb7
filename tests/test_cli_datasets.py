"""`napari-coseg datasets`: list, check and prepare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cases.volume_twins import LABELS, NNUNET, VALUES, make_raw, make_toothfairy2, write_mha
from napari_coseg.cli.main import main
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.held_out import load_split
from napari_coseg.datasets.plain_copy import draw_split, resample, write_plain_copy
from napari_coseg.datasets.registry import DATASETS, open_dataset


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def make_folder(root: Path, splits=("",), images=4, first_id=1) -> Path:
    """Images of 8 x 10 with one object of class 2 in a region of class 1."""
    root.mkdir(parents=True, exist_ok=True)
    classes = [{"id": i, "name": f"kind {i}", "color": [i, 0, 0]} for i in (1, 2)]
    description = {"pixel_size_um": 0.5, "semantic_classes": classes, "instance_classes": classes}
    (root / "dataset.json").write_text(json.dumps(description))
    square = np.zeros((8, 10), np.uint8)
    square[2:5, 3:7] = 1
    for split in splits:
        for number in range(images):
            name = f"{split or 'image'}_{number}.png"
            write(root / split / "images" / name, np.full((8, 10, 3), number, np.uint8))
            write(root / split / "regions" / name, np.ones((8, 10), np.uint8))
            objects = square.astype(np.uint32) * (number + first_id)
            if objects.max() < 2**16:
                write(root / split / "objects" / name, objects.astype(np.uint16))
            else:
                (root / split / "objects").mkdir(exist_ok=True)
                tifffile.imwrite(root / split / "objects" / f"{name[:-4]}.tif", objects)
            write(root / split / "object_classes" / name, square * 2)
    return root


# ---------------------------------------------------------------------------------------------
# list and check


def test_list_prints_every_dataset(capsys) -> None:
    assert main(["datasets", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == list(DATASETS)
    assert all(len(line.split()) > 2 for line in lines)


def test_check_counts_images_objects_and_classes(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path, ("test", "train"))
    assert main(["datasets", "check", "folder", "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:6] == [
        "test: 4 images, 4 objects",
        "  object class kind 1       0    0.0%",
        "  object class kind 2       4  100.0%",
        "  region class kind 1  320 px  100.0%",
        "  region class kind 2    0 px    0.0%",
        "train: 4 images, 4 objects",
    ]
    assert "folder:   0% test test_0" in printed.err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "regions/image_1.png").unlink(), "image_1"),
        (lambda root: (root / "dataset.json").unlink(), "dataset.json"),
        (lambda root: (root / "images").rename(root / "pictures"), "images"),
        (lambda root: write(root / "regions/image_2.png", np.full((8, 10), 9, np.uint8)), "[9]"),
    ],
    ids=["label missing", "description missing", "images missing", "unknown class"],
)
def test_check_of_a_broken_dataset_exits_with_2_and_one_line(
    tmp_path: Path, capsys, damage, message: str
) -> None:
    damage(make_folder(tmp_path))
    assert main(["datasets", "check", "folder", "--root", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("napari-coseg: ")
    assert message in last


def test_check_continues_after_a_problem(tmp_path: Path, capsys) -> None:
    make_folder(tmp_path)
    for number in (0, 1):
        (tmp_path / f"regions/image_{number}.png").unlink()
    assert main(["datasets", "check", "folder", "--root", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "all: 2 images, 2 objects" in printed.out
    assert printed.out.count("problem: ") == 2
    assert "has 2 problems, the first: " in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "fodler"], "'fodler' is not known"),
        (["check", "folder", "--window", "0", "100"], "are for volumes"),
        (["prepare", "folder", "--every-slice", "--output", "x"], "are for volumes"),
        (["prepare", "folder", "--pixel-size-um", "-1", "--output", "new"], "must be positive"),
        (["prepare", "folder", "--output", "images"], "already exists"),
    ],
    ids=["unknown", "window", "every slice", "pixel size", "overwriting"],
)
def test_a_user_error_is_one_line(tmp_path: Path, capsys, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(make_folder(tmp_path))
    assert main(["datasets", *arguments, "--root", "."]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------
# prepare


def same(one: Sample, other: Sample) -> bool:
    kinds = ("image", "semantic", "instances", "instance_types")
    known = ("semantic_known", "instances_known")
    pairs = [(getattr(one, kind), getattr(other, kind)) for kind in (*kinds, *known)]
    return all((a is b is None) or np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("first_id", [1, 60_000, 70_000], ids=["small ids", "16 bits", "32 bits"])
@pytest.mark.parametrize("splits", [("",), ("test", "train")], ids=["flat", "two splits"])
def test_a_prepared_folder_has_the_same_samples(
    tmp_path: Path, capsys, splits, first_id: int
) -> None:
    folder = make_folder(tmp_path / "from", splits, first_id=first_id)
    to = tmp_path / "to"
    arguments = ["--root", str(folder), "--output", str(to)]
    assert main(["datasets", "prepare", "folder", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [str(to / "split.json"), str(to)]
    one, other = open_dataset("folder", folder), open_dataset("folder", to)
    assert (one.splits, one.instance_classes) == (other.splits, other.instance_classes)
    for split in one.splits:
        pairs = zip(one.load_all(split), other.load_all(split), strict=True)
        assert all(same(a, b) and a.name == b.name for a, b in pairs)


def test_the_split_file_is_a_partition_and_a_held_out_list(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "from", images=10)
    write_plain_copy(open_dataset("folder", folder), tmp_path / "to")
    parts = open_dataset("folder", tmp_path / "to", partition=tmp_path / "to" / "split.json")
    counts = {split: len(parts.names(split)) for split in parts.splits}
    assert counts == {"train": 7, "validation": 1, "test": 2}
    held_out = load_split(tmp_path / "to" / "split.json")["folder"]
    assert held_out == parts.names("validation")


@pytest.mark.parametrize(
    ("splits", "counts"),
    [
        ({"all": 10}, (7, 1, 2)),
        ({"all": 2}, None),
        ({"train": 16, "testA": 3, "testB": 2}, (14, 2, 5)),
        ({"test": 3, "train": 16}, (14, 2, 3)),
        ({"stage1_train": 10}, (7, 1, 2)),
        ({"train": 6, "val": 2, "test": 3}, (6, 2, 3)),
        ({"bright": 5, "dark": 5}, (7, 1, 2)),
    ],
    ids=lambda value: str(value),
)
def test_a_split_is_drawn_from_the_existing_splits(tmp_path: Path, splits, counts) -> None:
    dataset = open_dataset("folder", make_folder(tmp_path))
    names = {s: {f"{s}{i}": f"{s}{i}" for i in range(n)} for s, n in splits.items()}
    parts = draw_split(dataset, names, seed=1)
    assert counts == (parts and (len(parts.train), len(parts.validation), len(parts.test)))
    if parts and "testA" in splits:
        assert all(name.startswith("test") for name in parts.test)


def test_slices_of_a_volume_stay_in_one_part(tmp_path: Path) -> None:
    cases = tuple(f"case_{i}" for i in range(10))
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path / "from", cases=cases))
    write_plain_copy(dataset, tmp_path / "to")
    parts = json.loads((tmp_path / "to" / "split.json").read_text())["datasets"]["folder"]
    volumes = {part: {dataset.source(name) for name in names} for part, names in parts.items()}
    assert {part: len(names) for part, names in volumes.items()} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert len(set().union(*volumes.values())) == 10


def test_toothfairy2_becomes_a_plain_folder(tmp_path: Path, capsys) -> None:
    make_toothfairy2(tmp_path / "from")
    arguments = ["--root", str(tmp_path / "from"), "--output", str(tmp_path / "to")]
    arguments += ["--window", "0", "1000", "--every-slice"]
    assert main(["datasets", "prepare", "toothfairy2", *arguments]) == 0
    assert "train: 12 images" in capsys.readouterr().out
    sample = open_dataset("folder", tmp_path / "to").load("train", "ToothFairy2F_001_0002")
    assert sorted(np.unique(sample.instances)) == [0, 28, 31, 48]
    assert sample.pixel_size_um == pytest.approx(300)
    assert sorted(np.unique(sample.image)) == [0, 255]


def test_unannotated_pixels_stay_unknown(tmp_path: Path) -> None:
    description = NNUNET | {"labels": {"background": 0, "liver": 1, "ignore": 2}}
    write_plain_copy(
        open_dataset("nnunet-raw", make_raw(tmp_path / "from", description=description)),
        tmp_path / "to",
    )
    sample = open_dataset("folder", tmp_path / "to").load("train", "a_2_0001")
    np.testing.assert_array_equal(sample.semantic_known, LABELS[1] < 2)


def make_two_sizes(root: Path) -> Path:
    make_raw(root)
    for folder, volume in (("imagesTr", VALUES), ("labelsTr", LABELS)):
        name = "a_10_0000.mha" if folder == "imagesTr" else "a_10.mha"
        write_mha(root / folder / name, volume, spacing="0.6 0.6 0.6")
    return root


def test_images_of_two_pixel_sizes_are_refused_or_resampled(tmp_path: Path) -> None:
    dataset = open_dataset("nnunet-raw", make_two_sizes(tmp_path / "from"))
    with pytest.raises(DatasetError, match="resample all images"):
        write_plain_copy(dataset, tmp_path / "to")
    assert [path.name for path in tmp_path.iterdir()] == ["from"]  # no partial output
    write_plain_copy(dataset, tmp_path / "to", pixel_size_um=300)
    copy = open_dataset("folder", tmp_path / "to")
    shapes = {name: copy.load("train", name).image.shape for name in copy.names("train")}
    assert shapes["a_2_0001"] == (4, 6, 3)
    assert shapes["a_10_0001"] == (8, 12, 3)
    regions = copy.load("train", "a_10_0001").semantic
    np.testing.assert_array_equal(regions, np.kron(LABELS[1], np.ones((2, 2))))


def test_resampling_to_the_wrong_unit_is_refused() -> None:
    sample = Sample("x", np.zeros((100, 100, 3), np.uint8), pixel_size_um=250.0)
    with pytest.raises(DatasetError, match="in micrometres"):
        resample(sample, 0.25)


def test_progress_runs_to_the_end(tmp_path: Path) -> None:
    fractions: list[float] = []
    write_plain_copy(
        open_dataset("folder", make_folder(tmp_path / "from", ("test", "train"))),
        tmp_path / "to",
        progress=lambda fraction, message: fractions.append(fraction),
    )
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1], len(fractions)) == (0.0, 1.0, 9)
