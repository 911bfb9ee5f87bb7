"""Datasets on disk: what is read, what is counted, and what is said where a folder is not right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cases.data_root import data_root
from cases.histology_twins import HISTOLOGY_TWINS
from napari_coseg.core.errors import CosegError, DatasetError
from napari_coseg.datasets.base import Dataset, Layout
from napari_coseg.datasets.files import natural_key, read_labels, read_rgb
from napari_coseg.datasets.held_out import hold_out, load_split, save_split, split_names
from napari_coseg.datasets.registry import DATASETS, open_dataset

INSTANCES = np.kron(np.array([[0, 1, 2], [3, 0, 70_000], [5, 0, 0]]), np.ones((4, 4))).astype(int)
FILE_IDS = (INSTANCES % 65536).astype(np.uint16)
FILE_IDS_OR_IGNORE = np.where(FILE_IDS == 2, 65535, FILE_IDS).astype(np.uint16)
FILE_TYPES = np.kron(np.array([[0, 1, 2], [3, 0, 4], [2, 0, 0]]), np.ones((4, 4))).astype(np.uint8)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_picture(path: Path) -> None:
    write(path, np.full((12, 12, 3), 200, np.uint8))


def make_consep(root: Path) -> None:
    for split in ("train", "test"):
        for number in (1, 2, 10):
            stem = f"{split}_{number}"
            write_picture(root / split / "images" / f"{stem}.png")
            write(root / split / "inst" / f"{stem}.png", FILE_IDS)
            write(root / split / "type4" / f"{stem}.png", FILE_TYPES)


def make_glas(root: Path) -> None:
    for split in ("train", "testA"):
        write_picture(root / split / "images" / f"{split}_1.png")
        write(root / split / "gland" / f"{split}_1.png", (FILE_TYPES > 1).astype(np.uint8))


def make_unpacked(images: str, labels: str, values: np.ndarray):
    """What writes a folder of images and one of labels."""

    def make(root: Path) -> None:
        for name in ("01_1", "01_2", "02_1"):
            write_picture(root / images / f"{name}.png")
            write(root / labels / f"{name}.png", values)

    return make


def make_folder(root: Path) -> None:
    import tifffile

    classes = [{"id": i, "name": f"kind {i}", "color": [i, 0, 0]} for i in (1, 2, 3, 4)]
    description = {"pixel_size_um": 0.3, "semantic_classes": classes, "instance_classes": classes}
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(description))
    write_picture(root / "images" / "one.png")
    write(root / "regions" / "one.png", FILE_TYPES)
    (root / "objects").mkdir()
    tifffile.imwrite(root / "objects" / "one.tif", INSTANCES.astype(np.uint32))
    write(root / "object_classes" / "one.png", FILE_TYPES)


UNPACKED = {
    "consep": make_consep,
    "glas": make_glas,
    "folder": make_folder,
    "monuseg": make_unpacked("train/images", "train/inst", FILE_IDS),
    "tnbc": make_unpacked("images", "inst", FILE_IDS),
    "nuinsseg": make_unpacked("images", "inst_or_ignore", FILE_IDS_OR_IGNORE),
    "ebhi": make_unpacked("images", "gland", FILE_TYPES // 3),
}
MAKERS = HISTOLOGY_TWINS | UNPACKED
# In test_dataset_dsb2018, test_dataset_volumes, test_dataset_toothfairy2, test_synthetic_cbct.
ELSEWHERE = {"dsb2018", "nnunet-raw", "toothfairy2", "synthetic-cbct"}


def test_every_dataset_has_a_generated_twin() -> None:
    assert set(MAKERS) | ELSEWHERE == set(DATASETS)


@pytest.mark.parametrize(
    ("name", "split", "images", "objects", "pixel_size_um"),
    [
        ("consep", "train", 3, 15, 0.25),
        ("glas", "testA", 1, 0, 0.5),
        ("folder", "all", 1, 5, 0.3),
        ("monuseg", "train", 3, 15, 0.25),
        ("tnbc", "all", 3, 15, 0.25),
        ("nuinsseg", "all", 3, 12, 0.25),
        ("ebhi", "all", 3, 0, 1.0),
    ],
)
def test_a_generated_folder_is_read_and_counted(
    tmp_path: Path, name: str, split: str, images: int, objects: int, pixel_size_um: float
) -> None:
    MAKERS[name](tmp_path / name)
    dataset = open_dataset(name, tmp_path)  # the parent folder does too
    report = dataset.check()
    report.raise_if_broken()
    assert report.splits[split].images == images
    assert report.splits[split].objects == objects
    assert dataset.load_all(split)[0].pixel_size_um == pixel_size_um


@pytest.mark.parametrize(
    ("splits", "scored"),
    [
        ("all", "all"),
        ("test train", "test"),
        ("train testA testB", "testA"),
        ("stage1_train stage1_test", "stage1_test"),
        ("train val", "val"),
        ("train valid", "valid"),
        ("train validation test", "test"),
        ("mine train", "mine"),
        ("fold1 fold2 fold3", "fold3"),
        ("train", "train"),
        ("stage1_train train", "train"),
    ],
    ids=lambda value: value.replace(" ", "+"),
)
def test_what_is_scored_where_nobody_names_a_split(splits: str, scored: str) -> None:
    names = tuple(splits.split())
    dataset = Dataset(Path(), "folder", names, pixel_size_um=0.5, layout=Layout())
    assert dataset.split_to_score == scored


def test_consep_types_are_renamed_to_our_order(tmp_path: Path) -> None:
    make_consep(tmp_path)
    sample = open_dataset("consep", tmp_path).load("train", "train_1")
    names = {c.id: c.name for c in open_dataset("consep", tmp_path).instance_classes}
    both = zip(FILE_TYPES.flat, sample.instance_types.flat, strict=True)
    seen = {int(theirs): names[int(ours)] for theirs, ours in both if theirs}
    assert seen == {1: "miscellaneous", 2: "inflammatory", 3: "epithelial", 4: "spindle"}
    assert sample.semantic is None


def test_where_objects_are_not_told_apart_they_are_not_known(tmp_path: Path) -> None:
    UNPACKED["nuinsseg"](tmp_path)
    sample = open_dataset("nuinsseg", tmp_path).load("all", "01_1")
    np.testing.assert_array_equal(sample.instances_known, FILE_IDS != 2)
    assert not sample.instances[~sample.instances_known].any()


def test_ids_above_16_bits_survive(tmp_path: Path) -> None:
    make_folder(tmp_path)
    sample = open_dataset("folder", tmp_path).load("all", "one")
    assert sample.instances.dtype == np.int32
    assert sample.instances.max() == 70_000


def test_a_folder_may_lack_any_kind_of_label(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"pixel_size_um": 0.5}')
    for split in ("a", "b"):
        write_picture(tmp_path / split / "images" / "x.png")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.splits == ("a", "b")
    sample = dataset.load("b", "x")
    assert (sample.semantic, sample.instances, sample.instance_types) == (None, None, None)


def drop(relative: str):
    return lambda root: (root / relative).unlink()


def put(relative: str, array: np.ndarray):
    return lambda root: write(root / relative, array)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("train/inst/train_2.png"), "no file train_2"),
        (put("train/inst/train_2.png", np.zeros((5, 5), np.uint16)), "shape (5, 5)"),
        (put("train/inst/train_2.png", np.zeros((12, 12, 3), np.uint8)), "one channel"),
        (put("train/type4/train_2.png", np.full((12, 12), 9, np.uint8)), "values [9]"),
        (lambda root: (root / "train/images/train_2.png").write_text("no"), "cannot read"),
        (lambda root: (root / "test/images").rename(root / "test/pictures"), "test/images"),
    ],
    ids=["label missing", "size", "channels", "class", "broken image", "folder missing"],
)
def test_a_damaged_folder_is_told(tmp_path: Path, damage, message: str) -> None:
    make_consep(tmp_path)
    damage(tmp_path)
    report = open_dataset("consep", tmp_path).check()
    assert len(report.problems) == 1
    assert message in report.problems[0]
    with pytest.raises(DatasetError, match="consep"):
        report.raise_if_broken()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no dataset.json"),
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ('{"pixel_size": 1}', "pixel_size_um"),
        ('{"pixel_size_um": 1}', "images"),
    ],
)
def test_a_badly_described_folder_is_told(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(CosegError, match=message):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [("consepp", ".", "consep"), ("consep", "nowhere", "does not exist")],
)
def test_what_cannot_be_opened_is_told(tmp_path: Path, name: str, root: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(name, tmp_path / root)


def test_unknown_splits_and_names_are_told(tmp_path: Path) -> None:
    make_glas(tmp_path)
    with pytest.raises(DatasetError, match="train, testA"):
        open_dataset("glas", tmp_path).names("validation")
    with pytest.raises(DatasetError, match="train_9"):
        open_dataset("glas", tmp_path).load("train", "train_9")


def test_names_come_in_counting_order(tmp_path: Path) -> None:
    make_consep(tmp_path)
    assert open_dataset("consep", tmp_path).names("test") == ("test_1", "test_2", "test_10")
    assert sorted(["b", "a10", "10", "a2"], key=natural_key) == ["10", "a2", "a10", "b"]


@pytest.mark.parametrize(
    ("mode", "value"), [("L", 7), ("RGBA", (7, 7, 7, 0)), ("P", 7), ("1", 255)]
)
def test_pictures_of_any_mode_become_rgb(tmp_path: Path, mode: str, value) -> None:
    Image.new(mode, (4, 3), value).save(tmp_path / "x.png")
    assert read_rgb(tmp_path / "x.png").shape == (3, 4, 3)


def test_one_bit_labels_are_read(tmp_path: Path) -> None:
    Image.new("1", (4, 3), 1).save(tmp_path / "x.png")
    assert read_labels(tmp_path / "x.png").tolist() == [[1] * 4] * 3


@pytest.mark.parametrize(("count", "fraction", "held"), [(27, 0.15, 4), (2, 0.01, 1), (3, 0.99, 2)])
def test_a_drawn_split_is_a_partition(count: int, fraction: float, held: int) -> None:
    names = [f"image_{i}" for i in range(count)]
    split = split_names(names, fraction, seed=3)
    assert len(split.validation) == held
    assert sorted(split.train + split.validation) == sorted(names)
    assert split == split_names(reversed(names), fraction, seed=3)


@pytest.mark.parametrize(("names", "fraction"), [(["a"], 0.5), (["a", "b"], 0.0), (["a", "b"], 1)])
def test_a_split_that_cannot_be_drawn_is_refused(names: list[str], fraction: float) -> None:
    with pytest.raises(DatasetError):
        split_names(names, fraction, seed=0)


def test_a_saved_split_comes_back(tmp_path: Path) -> None:
    held = {"consep": ("train_1", "train_2"), "glas": ()}
    save_split(tmp_path / "split.json", held, note="why")
    assert load_split(tmp_path / "split.json") == held


def test_a_split_may_rest_on_another(tmp_path: Path) -> None:
    make_consep(tmp_path)
    held = {"consep": ("train_1",), "tnbc": ("01_1",)}
    save_split(tmp_path / "base.json", held)
    parts = {"train": ["train_2"], "validation": ["train_10"], "test": ["test_1"], "left_out": []}
    parts["left_out"] = ["train_1", "test_2", "test_10"]
    own = {"base": str(tmp_path / "base.json"), "datasets": {"consep": parts}}
    (tmp_path / "own.json").write_text(json.dumps(own))
    (tmp_path / "third.json").write_text(json.dumps({"base": str(tmp_path / "own.json")}))
    assert load_split(tmp_path / "own.json") == held
    dataset = open_dataset("consep", tmp_path, partition=tmp_path / "own.json")
    assert dataset.names("validation") == ("train_10",)
    with pytest.raises(DatasetError, match="has a base itself"):
        load_split(tmp_path / "third.json")


def test_a_dataset_is_read_by_the_names_held_out(tmp_path: Path) -> None:
    make_consep(tmp_path)
    save_split(tmp_path / "split.json", {"consep": ("train_1",)})
    dataset = open_dataset("consep", tmp_path, partition=tmp_path / "split.json")
    assert {part: len(dataset.names(part)) for part in dataset.splits} == {
        "train": 2,
        "validation": 1,
        "test": 3,
    }
    save_split(tmp_path / "split.json", {"tnbc": ("01_1",)})
    with pytest.raises(DatasetError, match="only tnbc"):
        open_dataset("consep", tmp_path, partition=tmp_path / "split.json")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"validation": 3}'])
def test_a_broken_split_file_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DatasetError, match="validation"):
        load_split(tmp_path / "split.json")


def test_a_split_cannot_hold_out_what_is_not_there() -> None:
    with pytest.raises(DatasetError, match="train_3"):
        hold_out(["train_1", "train_2"], ["train_3"])
    with pytest.raises(DatasetError, match="colon_defalt"):
        load_split("colon_defalt")


@pytest.mark.parametrize(("name", "train", "held"), [("consep", 23, 4), ("glas", 75, 10)])
def test_the_shipped_split_fits_the_official_names(name: str, train: int, held: int) -> None:
    official = [f"train_{i + 1}" for i in range(train + held)]
    split = hold_out(official, load_split("colon_default")[name])
    assert (len(split.train), len(split.validation)) == (train, held)


HELD_OUT = [
    *(("colon_default", name, "train", held, None) for name, held in (("consep", 4), ("glas", 10))),
    ("multi_organ", "consep", "train", 4, 14),
    ("multi_organ", "glas", "train", 13, 60),
    ("multi_organ", "monuseg", "train", 7, 0),
    ("multi_organ", "tnbc", "all", 9, 0),
    ("multi_organ", "nuinsseg", "all", 16, 0),
    ("multi_organ", "ebhi", "all", 33, 0),
    ("multi_organ_without_bladder", "monuseg", "train", 6, 2),
    ("multi_organ_without_kidney", "monuseg", "train", 6, 6),
    ("multi_organ_without_stomach", "monuseg", "train", 6, 2),
    ("multi_organ_without_stomach", "tnbc", "all", 9, 0),
]


@pytest.mark.data
@pytest.mark.parametrize(("split", "name", "home", "held", "test"), HELD_OUT)
def test_the_shipped_splits_fit_the_real_images_and_tear_no_patient_apart(
    split: str, name: str, home: str, held: int, test: int | None
) -> None:
    root = data_root()
    if root is None or not (root / name).is_dir():
        pytest.skip("no shared research images here (set NAPARI_COSEG_DATA); the twins ran")
    parts = open_dataset(name, root, partition=split)
    assert len(parts.names("validation")) == held
    if test is None:  # drawn before its patients were known
        return
    assert len(parts.names("test")) == test
    everything = open_dataset(name, root).names(home)
    assert set(parts.names("train") + parts.names("validation")) <= set(everything)
    sources = [{parts.source(n) for n in parts.names(part)} for part in ("train", "validation")]
    assert not sources[0] & sources[1]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "split", "images", "objects"),
    [
        ("consep", "train", 27, 15_555),
        ("consep", "test", 14, 8_777),
        ("glas", "train", 85, 0),
        ("monuseg", "train", 30, 16_958),
        ("tnbc", "all", 50, 4_028),
        ("nuinsseg", "all", 333, None),
        ("ebhi", "all", 1_685, 0),
    ],
)
def test_the_real_images_are_as_published(name: str, split: str, images: int, objects: int) -> None:
    root = data_root()
    if root is None:
        pytest.skip("no shared research images here (set NAPARI_COSEG_DATA); the twins ran")
    dataset = open_dataset(name, root)
    assert len(dataset.names(split)) == images
    first = dataset.load(split, dataset.names(split)[0])
    assert (first.instances is None) == (objects == 0)
    if objects:
        counted = sum(len(np.unique(s.instances)) - 1 for s in dataset.load_all(split))
        assert counted == objects
