"""Histology datasets as released: what is read, how classes are grouped, what is said if broken."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from cases.data_root import data_root
from cases.histology_twins import (
    APERIO_SQUARES,
    GLANDS,
    HISTOLOGY_TWINS,
    NUCLEI,
    feature,
    make_bcss,
    make_consep_mat,
    make_crag_lizard,
    make_glas_bmp,
    make_glas_lizard,
    make_lizard,
    make_monuseg_xml,
    make_nuinsseg_organs,
    make_puma,
    picture,
    square,
    write,
    write_geojson,
)
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.registry import open_dataset

TWINS = HISTOLOGY_TWINS | {"glas": make_glas_bmp, "consep": make_consep_mat}
PUMA_1 = "training_set_primary_roi_001"


@pytest.mark.parametrize(
    ("name", "images", "objects"),
    [
        ("glas", {"train": 3, "testA": 1, "testB": 1}, 0),
        ("glas-glands", {"train": 3, "testA": 1, "testB": 1}, 2),
        ("glas-lizard", {"train": 1, "testA": 1, "testB": 0}, 4),
        ("crag", {"train": 1, "valid": 1}, 0),
        ("crag-glands", {"train": 1, "valid": 1}, 2),
        ("crag-lizard", {"train": 1, "valid": 1}, 4),
        ("lizard", {"fold1": 1, "fold2": 1, "fold3": 1}, 4),
        ("puma", {"all": 2}, 4),
        ("puma-10", {"all": 2}, 4),
        ("consep", {"train": 1, "test": 1}, 7),
        ("bcss", {"all": 2}, 0),
        ("bcss-5", {"all": 2}, 0),
        ("monuseg", {"train": 2, "test": 1}, 4),
        ("tnbc", {"all": 3}, 4),
        ("nuinsseg", {"all": 2}, 4),
        ("ebhi", {"all": 4}, 0),
    ],
)
def test_a_released_layout_is_read_and_counted(
    tmp_path: Path, name: str, images: dict[str, int], objects: int
) -> None:
    TWINS[name](tmp_path)
    dataset = open_dataset(name, tmp_path)
    dataset.prepare()
    report = dataset.check()
    report.raise_if_broken()
    assert report.name == name
    assert {split: counts.images for split, counts in report.splits.items()} == images
    for counts in report.splits.values():
        assert counts.objects == objects * counts.images


def counts_of(name: str, root: Path) -> dict[str, int]:
    """Objects, or pixels of regions, of the first image of a twin, by class name."""
    TWINS[name](root)
    dataset = open_dataset(name, root)
    dataset.prepare()
    split = dataset.splits[0]
    counts = dataset.check().splits[split]
    found = counts.objects_by_class or counts.region_pixels
    return {kind: count // counts.images for kind, count in found.items() if count}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("puma", {"tumor": 1, "lymphocyte": 2, "other": 1}),
        ("puma-10", {"tumor": 1, "lymphocyte": 1, "plasma_cell": 1, "melanophage": 1}),
        ("lizard", {"epithelial": 1, "lympho-reticular": 2, "connective": 1}),
        ("glas-lizard", {"epithelial": 1, "lympho-reticular": 2, "connective": 1}),
        ("consep", {"inflammatory": 1, "epithelial": 2, "spindle": 3, "miscellaneous": 1}),
        ("glas", {"gland": 112}),
        ("glas-glands", {"gland": 2}),
        ("crag", {"gland": 112}),
        ("ebhi", {"gland": 112}),
        ("bcss", {"tumor": 24, "stroma": 8}),
        (
            "bcss-5",
            {"tumor": 24, "stroma": 8, "inflammatory": 24, "necrosis": 8, "other": 112},
        ),
    ],
)
def test_classes_are_grouped(tmp_path: Path, name: str, counts: dict[str, int]) -> None:
    assert counts_of(name, tmp_path) == counts


@pytest.mark.parametrize(
    ("name", "pixels"), [("puma", [84, 48, 60, 0]), ("puma-10", [80, 48, 60, 4])]
)
def test_tissue_of_puma_has_holes_and_what_lies_within(
    tmp_path: Path, name: str, pixels: list[int]
) -> None:
    make_puma(tmp_path)
    semantic = open_dataset(name, tmp_path).load("all", PUMA_1).semantic
    found = [int((semantic == i).sum()) for i in (0, 1, 2, 5)]
    assert found == pixels  # background, tumour, stroma, vessel, where it is a class
    assert semantic[3, 3] == 0  # the hole


def test_a_nucleus_in_two_pieces_is_one_object(tmp_path: Path) -> None:
    make_puma(tmp_path)
    sample = open_dataset("puma", tmp_path).load("all", PUMA_1)
    assert np.argwhere(sample.instances == 4).min(axis=0).tolist() == [9, 1]
    assert (sample.instances == 4).sum() == 8


def test_puma_in_one_folder_without_tissue_is_nuclei_alone(tmp_path: Path) -> None:
    make_puma(tmp_path / "there")
    for path in (tmp_path / "there").rglob("*_001*"):
        if "tissue" not in path.name:
            shutil.copy(path, tmp_path)
    shutil.rmtree(tmp_path / "there")
    dataset = open_dataset("puma", tmp_path)
    assert dataset.load("all", PUMA_1).semantic is None
    notes = dataset.check().notes
    assert any("206" in note for note in notes) and any("tissue" in note for note in notes)


def test_glands_of_glas_keep_their_ids_where_they_are_objects(tmp_path: Path) -> None:
    make_glas_bmp(tmp_path)
    sample = open_dataset("glas-glands", tmp_path).load("train", "train_2")
    assert (sample.instances == GLANDS).all()
    assert (sample.semantic == (GLANDS > 0)).all()
    assert open_dataset("glas", tmp_path).load("train", "train_2").instances is None
    assert open_dataset("glas", tmp_path).names("train") == ("train_1", "train_2", "train_10")


def test_grades_of_glas_tell_patients(tmp_path: Path) -> None:
    make_glas_bmp(tmp_path)
    dataset = open_dataset("glas", tmp_path)
    assert dataset.grades()["train_10"] == ("4", "benign")
    (dataset.root / "testB_1.bmp").rename(dataset.root / "testB_2.bmp")
    assert any("testB_1" in note for note in dataset.check().notes)
    (dataset.root / "Grade.csv").unlink()
    assert any("Grade.csv" in note for note in dataset.check().notes)


def test_images_of_lizard_find_their_partners_by_what_they_show(tmp_path: Path) -> None:
    make_glas_lizard(tmp_path)
    dataset = open_dataset("glas-lizard", tmp_path)
    with pytest.raises(DatasetError, match="prepare"):
        dataset.names("train")
    assert dataset.prepare() == (tmp_path / "glas-lizard.json",)
    assert dataset.pairs() == {"train_2": "glas_1", "testA_1": "glas_2"}
    sample = dataset.load("train", "train_2")
    assert (sample.image == picture(3)).all()
    assert (sample.instances == NUCLEI).all() and (sample.semantic == (GLANDS > 0)).all()


@pytest.mark.parametrize(
    ("name", "sources"),
    [
        ("tnbc", {"patient 01": 2, "patient 02": 1}),
        ("ebhi", {"case GT2012149": 2, "case GT2012150": 2}),
        ("glas", {"patient 0": 1, "patient 1": 1, "patient 2": 1, "patient 3": 1, "patient 4": 1}),
    ],
)
def test_a_split_keeps_images_of_one_patient_together(
    tmp_path: Path, name: str, sources: dict[str, int]
) -> None:
    TWINS[name](tmp_path)
    dataset = open_dataset(name, tmp_path)
    names = [name for split in dataset.splits for name in dataset.names(split)]
    assert Counter(map(dataset.source, names)) == sources


def test_vague_areas_of_nuinsseg_are_not_known(tmp_path: Path) -> None:
    make_nuinsseg_organs(tmp_path)
    dataset = open_dataset("nuinsseg", tmp_path)
    assert dataset.load("all", "human_bladder_01").instances_known is None
    known = dataset.load("all", "mouse_liver_01").instances_known
    assert not known[:6].any() and known[6:].all()


def test_outlines_of_monuseg_are_filled(tmp_path: Path) -> None:
    make_monuseg_xml(tmp_path)
    dataset = open_dataset("monuseg", tmp_path)
    sample = dataset.load("train", dataset.names("train")[0])
    for number, (x, y, side) in enumerate(APERIO_SQUARES, start=1):
        assert (sample.instances[y : y + side, x : x + side] == number).all()
        assert (sample.instances == number).sum() == side * side
    assert sample.instance_types is None and sample.semantic is None


def test_one_image_under_two_names_in_lizard_is_refused(tmp_path: Path) -> None:
    make_crag_lizard(tmp_path)
    make_lizard(tmp_path / "lizard", {"crag_7": 10, "crag_8": 10})
    with pytest.raises(DatasetError, match="both look like train_1"):
        open_dataset("crag-lizard", tmp_path).prepare()


def test_pixels_that_nobody_annotated_are_not_known(tmp_path: Path) -> None:
    make_bcss(tmp_path)
    sample = open_dataset("bcss", tmp_path).load("all", "TCGA-A1-A0SK-DX1")
    assert (~sample.semantic_known).sum() == 16  # outside_roi and exclude
    assert not sample.semantic_known[0, 0]


def drop(pattern: str):
    return lambda root: next(root.rglob(pattern)).unlink()


def nuclei(*features: dict):
    return lambda root: write_geojson(next(root.rglob("*001_nuclei.geojson")), *features)


def mat(pattern: str, **arrays: object):
    return lambda root: savemat(next(root.rglob(pattern)), arrays)


ONE_VERTEX = (
    '<Annotations><Region><Vertex X="1" Y="1"/><Vertex X="2" Y="1"/><Vertex {x} Y="2"/>'
    "</Region></Annotations>"
)


def xml(text: str):
    return lambda root: next(root.rglob("*.xml")).write_text(text)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("puma", drop("*001_nuclei.geojson"), "001_nuclei.geojson"),
        ("puma", drop("*001_tissue.geojson"), "001_tissue.geojson"),
        ("puma", nuclei(feature("nuclei_odd", square(1, 1, 2))), "nuclei_odd"),
        ("puma", nuclei(feature("nuclei_tumor", square(900, 1, 2))), "far from its image"),
        ("consep", drop("train_1.mat"), "train_1.mat"),
        ("consep", mat("train_1.mat", inst_map=NUCLEI), "no array 'type_map'"),
        ("consep", mat("train_1.mat", inst_map=NUCLEI, type_map=NUCLEI + 0.5), "fractions"),
        ("consep", mat("train_1.mat", inst_map=NUCLEI, type_map=NUCLEI * 9), "values [9"),
        ("lizard", mat("glas_1.mat", inst_map=NUCLEI, id=[[1]], **{"class": [[2]]}), "[2, 3, 7]"),
        ("lizard", mat("glas_1.mat", inst_map=NUCLEI, id=[[1]], **{"class": [[2, 2]]}), "classes"),
        ("lizard", drop("glas_1.mat"), "glas_1.mat"),
        ("glas", drop("testA_1_anno.bmp"), "testA_1_anno.bmp"),
        ("glas", lambda root: next(root.rglob("Grade.csv")).write_bytes(b"\xff"), "not a table"),
        ("crag", lambda root: shutil.rmtree(root / "CRAG/valid/Annotation"), "valid/Annotation"),
        ("bcss", lambda root: write(next(root.rglob("masks/*.png")), GLANDS * 30), "holds 60"),
        ("bcss", drop("masks/*SP-DX1.png"), "A0SP"),
        ("monuseg", xml("<!DOCTYPE x [<!ENTITY a 'b'>]><Annotations/>"), "document type"),
        ("monuseg", xml("<Annotations><Region>"), "cannot read the Aperio"),
        ("monuseg", xml("<html/>"), "expected Annotations"),
        ("monuseg", xml(ONE_VERTEX.format(x="")), "Aperio"),
        ("monuseg", xml(ONE_VERTEX.format(x='X="nan"')), "finite"),
        ("monuseg", xml(ONE_VERTEX.format(x='X="9000"')), "far from its image"),
        ("monuseg", drop("*5592*.xml"), "5592"),
        ("tnbc", drop("GT_01/01_2.png"), "01_2.png"),
        ("nuinsseg", drop("label masks/human*"), "human_bladder_01"),
        ("ebhi", drop("Low-grade IN/label/*149*.png"), "GT2012149"),
    ],
)
def test_check_collects_what_is_wrong(tmp_path: Path, name: str, damage, message: str) -> None:
    TWINS[name](tmp_path)
    damage(tmp_path)
    problems = open_dataset(name, tmp_path).check().problems
    assert len(problems) == 1
    assert message in problems[0]


@pytest.mark.parametrize("name", sorted(set(TWINS) - {"consep", "glas"}))
def test_a_folder_without_the_dataset_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError):
        open_dataset(name, tmp_path)


def test_the_layouts_already_read_are_read_as_before(tmp_path: Path) -> None:
    """`test_datasets.py` holds what; here only that an empty folder still says what it expects."""
    (tmp_path / "train").mkdir()
    for name, folder in (("glas", "train/images"), ("consep", "train/images")):
        with pytest.raises(DatasetError, match=folder):
            open_dataset(name, tmp_path).names("train")


@pytest.mark.data
def test_the_real_image_of_puma_has_its_nuclei() -> None:
    root = data_root()
    if root is None or not (root / "puma").is_dir():
        pytest.skip("no shared research images here (set NAPARI_COSEG_DATA); the twins ran")
    three = open_dataset("puma", root).check()
    ten = open_dataset("puma-10", root).check()
    assert three.problems == ten.problems == ()
    assert three.splits["all"].objects == 671
    assert three.splits["all"].objects_by_class == {"tumor": 180, "lymphocyte": 477, "other": 14}
    assert ten.splits["all"].objects_by_class["plasma_cell"] == 2


@pytest.mark.data
@pytest.mark.parametrize(("name", "stem"), [("consep", "train_1"), ("glas", "train_1")])
def test_real_labels_read_the_same_in_the_released_layout(
    tmp_path: Path, name: str, stem: str
) -> None:
    root = data_root()
    if root is None or not (root / name).is_dir():
        pytest.skip("no shared research images here (set NAPARI_COSEG_DATA); the twins ran")
    known = open_dataset(name, root).load("train", stem)
    if name == "consep":
        released = np.array([0, 2, 3, 5, 1])  # inflammatory, epithelial, fibroblast, other
        write(tmp_path / "Train" / "Images" / f"{stem}.png", known.image)
        (tmp_path / "Train" / "Labels").mkdir()
        maps = {
            "inst_map": known.instances.astype(float),
            "type_map": released[known.instance_types].astype(float),
        }
        savemat(tmp_path / "Train" / "Labels" / f"{stem}.mat", maps)
    else:
        write(tmp_path / f"{stem}.bmp", known.image)
        write(tmp_path / f"{stem}_anno.bmp", known.semantic * 7)
    read = open_dataset(name, tmp_path).load("train", stem)
    for kind in ("image", "semantic", "instances", "instance_types"):
        assert np.array_equal(getattr(read, kind), getattr(known, kind)), kind
