"""Volumes: nnU-Net raw folders and ToothFairy2, slice by slice, and files that are not right."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cases.volume_twins import LABELS, NNUNET, VALUES, WRITERS, make_raw, write_mha, write_nifti
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.datasets.slices import label_planes
from napari_coseg.images.volumes import planes, read_header

# ---------------------------------------------------------------------------------------------
# Files


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("kind", ["<i2", ">i2", "<f4", "|u1"])
def test_mha_files_come_back(tmp_path: Path, kind: str, packed: bool) -> None:
    volume = (VALUES % 256).astype(kind)
    write_mha(tmp_path / "x.mha", volume, packed, spacing="0.5 0.6 2")
    header = read_header(tmp_path / "x.mha")
    assert (header.shape, header.spacing_mm) == ((5, 4, 6), (2, 0.6, 0.5))
    np.testing.assert_array_equal(np.stack(list(planes(header))), volume)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("slope", "intercept"), [(None, None), (2.0, -1000.0)])
def test_nifti_files_come_back(tmp_path: Path, ending: str, slope, intercept) -> None:
    write_nifti(tmp_path / f"x{ending}", VALUES, slope=slope, intercept=intercept)
    header = read_header(tmp_path / f"x{ending}")
    assert header.spacing_mm == pytest.approx((0.3, 0.3, 0.3))
    expected = VALUES * 1.0 * (slope or 1) + (intercept or 0)
    np.testing.assert_array_equal(np.stack(list(planes(header))), expected)


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nii"])
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "SLP", "PIR", "ARS"])
def test_files_of_another_program_are_understood_alike(
    tmp_path: Path, ending: str, orientation: str
) -> None:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((0.5, 0.75, 2.0))
    turned = sitk.DICOMOrient(image, orientation)
    sitk.WriteImage(turned, str(tmp_path / f"x{ending}"), useCompression=True)
    header = read_header(tmp_path / f"x{ending}")
    upright = header.upright(np.stack(list(planes(header))))
    np.testing.assert_array_equal(upright, VALUES)
    assert header.upright_spacing_mm == pytest.approx((2.0, 0.75, 0.5))


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1, 1, 1), 0),
        ((3, 1, 1), 0),
        ((0.5, 1, 1), 0),
        ((1, 3, 1), 1),
        ((1, 1, 3), 2),
        ((1, 1.005, 1), 0),
    ],
)
def test_slices_are_cut_so_that_pixels_are_square(tmp_path: Path, spacing, axis: int) -> None:
    write_mha(tmp_path / "x.mha", VALUES, spacing=" ".join(map(str, spacing[::-1])))
    assert read_header(tmp_path / "x.mha").slicing_axis() == axis


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nii"])
def test_a_file_that_was_cut_short_is_told(tmp_path: Path, ending: str) -> None:
    WRITERS[ending](tmp_path / f"x{ending}", np.concatenate([VALUES] * 40))
    cut_short(tmp_path / f"x{ending}")
    with pytest.raises(DatasetError, match=r"cut short|ended"):
        list(planes(read_header(tmp_path / f"x{ending}")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "60000 60000 6000"}, "at most"),
        ({"size": "900 900 900"}, "cannot hold"),
        ({"size": "6 4 -5"}, "voxels"),
        ({"size": "6 4 five"}, "header is invalid"),
        ({"dims": 4, "size": "6 4 5 1", "spacing": "1 1 1 1"}, "axes"),
        ({"spacing": "0 1 1"}, "mm"),
        ({"spacing": "nan 1 1"}, "mm"),
        ({"spacing": "1 1"}, "header is invalid"),
        ({"kind": "MET_LONG"}, "MET_LONG"),
        ({"kind": "MET_SHORT\nElementNumberOfChannels = 3"}, "one channel"),
        ({"kind": "MET_SHORT\nElementDataFile = ../secret.raw"}, "another file"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
def test_a_header_that_cannot_be_is_refused(tmp_path: Path, changes, message, packed) -> None:
    write_mha(tmp_path / "x.mha", VALUES, packed, **changes)
    with pytest.raises(DatasetError, match=message):
        read_header(tmp_path / "x.mha")


@pytest.mark.parametrize("content", [b"", b"\0" * 600, b"ObjectType = Image\n", b"\xff" * 9000])
@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nii"])
def test_what_is_no_volume_is_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    (tmp_path / f"x{ending}").write_bytes(content)
    with pytest.raises(DatasetError, match="cannot read"):
        read_header(tmp_path / f"x{ending}")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dim", [3, 30000, 30000, 3000, 1, 1, 1, 1], "at most"),
        ("dim", [3, 900, 900, 900, 1, 1, 1, 1], "cannot hold"),
        ("dim", [4, 6, 4, 5, 2, 1, 1, 1], "axes"),
        ("dim", [3, 6, 4, -5, 1, 1, 1, 1], "voxels"),
        ("vox_offset", 2e9, "byte"),
        ("pixdim", [1, 0, 1, 1, 0, 0, 0, 0], "voxel size"),
        ("magic", b"ni1", "another file"),
        ("datatype", 128, "numbers"),
    ],
)
def test_a_nifti_header_that_cannot_be_is_refused(tmp_path: Path, field, value, message) -> None:
    import nibabel

    write_nifti(tmp_path / "x.nii", VALUES)
    data = (tmp_path / "x.nii").read_bytes()
    header = nibabel.Nifti1Header(data[:348])
    header[field] = value
    (tmp_path / "x.nii.gz").write_bytes(gzip.compress(header.binaryblock + data[348:]))
    with pytest.raises(DatasetError, match=message):
        read_header(tmp_path / "x.nii.gz")


@pytest.mark.parametrize(
    ("labels", "ok"),
    [(LABELS * 1.0, True), (LABELS * 0.5, False), (LABELS - 1.0, False), (LABELS * 300.0, False)],
    ids=["whole floats", "fractions", "negative", "above 255"],
)
def test_labels_are_whole_numbers_up_to_255(tmp_path: Path, labels: np.ndarray, ok: bool) -> None:
    write_mha(tmp_path / "x.mha", labels.astype("<f4"))
    header = read_header(tmp_path / "x.mha")
    if ok:
        np.testing.assert_array_equal(np.stack(list(label_planes(header))), LABELS)
    else:
        with pytest.raises(DatasetError, match="whole numbers"):
            list(label_planes(header))


# ---------------------------------------------------------------------------------------------
# nnU-Net raw folders


@pytest.mark.parametrize("ending", [".mha", ".nii.gz", ".nii"])
def test_an_nnunet_folder_is_read_slice_by_slice(tmp_path: Path, ending: str) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path, ending))
    assert dataset.names("train") == ("a_2_0001", "a_2_0003", "a_10_0001", "a_10_0003")
    sample = dataset.load("train", "a_10_0003")
    np.testing.assert_array_equal(sample.semantic, LABELS[3])
    grey = np.clip((VALUES[3] + 1000.0) * 255 / 2000, 0, 255).round()
    np.testing.assert_array_equal(sample.image, np.stack([grey] * 3, axis=-1))
    assert sample.pixel_size_um == pytest.approx(300)
    assert (sample.instances, sample.instance_types, sample.semantic_known) == (None, None, None)
    report = dataset.check()
    report.raise_if_broken()
    assert report.splits["train"].region_pixels == {"liver": 12, "kidney": 16}


def test_labels_of_a_test_folder_make_a_split(tmp_path: Path) -> None:
    make_raw(tmp_path)
    write_mha(tmp_path / "imagesTs" / "t_0000.mha", VALUES)
    write_mha(tmp_path / "labelsTs" / "t.mha", LABELS)
    dataset = open_dataset("nnunet-raw", tmp_path)
    assert dataset.splits == ("train", "test")
    assert dataset.load("test", "t_0001").semantic.max() == 1


def test_slices_without_labels_come_when_asked_for(tmp_path: Path) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    assert len(dataset.names("train")) == 4
    assert len(replace(dataset, every_slice=True).names("train")) == 10


@pytest.mark.parametrize("ending", [".mha", ".nii.gz"])
def test_a_flat_image_is_a_volume_of_one_slice(tmp_path: Path, ending: str) -> None:
    make_raw(tmp_path, ending, values=VALUES[1], labels=LABELS[1])
    changes = {"spacing": "0.3 0.3"} if ending == ".mha" else {}
    for case in ("a_2", "a_10"):
        WRITERS[ending](tmp_path / "labelsTr" / f"{case}{ending}", LABELS[1], **changes)
        WRITERS[ending](tmp_path / "imagesTr" / f"{case}_0000{ending}", VALUES[1], **changes)
    dataset = open_dataset("nnunet-raw", tmp_path)
    assert dataset.names("train") == ("a_2_0000", "a_10_0000")
    np.testing.assert_array_equal(dataset.load("train", "a_2_0000").semantic, LABELS[1])


def test_slices_of_one_case_have_one_source(tmp_path: Path) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    assert [dataset.source(n) for n in dataset.names("train")] == ["a_2"] * 2 + ["a_10"] * 2


def test_names_ask_for_no_image_and_a_volume_is_read_once(tmp_path: Path, monkeypatch) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    for image in (tmp_path / "imagesTr").iterdir():
        image.rename(image.with_suffix(".away"))
    names = dataset.names("train")
    for image in (tmp_path / "imagesTr").iterdir():
        image.rename(image.with_suffix(".mha"))
    dataset.load("train", names[0])
    (tmp_path / "imagesTr" / "a_2_0000.mha").unlink()
    dataset.load("train", names[1])  # of the volume in memory
    dataset.load("train", names[2])
    with pytest.raises(DatasetError, match=r"a_2_0000\.mha"):
        dataset.load("train", names[0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_lie_across_the_largest_spacing(tmp_path: Path, axis: int) -> None:
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = 3.0
    make_raw(tmp_path, cases=())
    text = " ".join(map(str, spacing[::-1]))
    write_mha(tmp_path / "imagesTr" / "c_0000.mha", VALUES, spacing=text)
    write_mha(tmp_path / "labelsTr" / "c.mha", LABELS, spacing=text)
    dataset = open_dataset("nnunet-raw", tmp_path)
    upright = np.moveaxis(LABELS, axis, 0)
    expected = upright if axis == 0 else upright[:, ::-1]  # the head on top
    held = [f"c_{i:04d}" for i in range(len(expected)) if expected[i].any()]
    assert dataset.names("train") == tuple(held)
    last = int(held[-1][-4:])
    np.testing.assert_array_equal(dataset.load("train", held[-1]).semantic, expected[last])


@pytest.mark.parametrize(
    ("matrix", "slices"),
    [
        ("1 0 0 0 1 0 0 0 1", (1, 2)),
        ("-1 0 0 0 -1 0 0 0 -1", (2, 3)),
        ("0 0 1 1 0 0 0 1 0", (4, 5)),
        ("0 0 -1 1 0 0 0 1 0", (0, 1)),
        ("1 0 0 0 0 -1 0 1 0", (2, 3)),
    ],
    ids=["upright", "all flipped", "x to the head", "x to the feet", "y to the feet"],
)
def test_slices_are_found_however_the_volume_lies(tmp_path: Path, matrix: str, slices) -> None:
    labels = np.zeros((5, 4, 6), np.uint8)
    labels[1:3, :2, 4:] = 1
    make_raw(tmp_path, cases=())
    write_mha(tmp_path / "imagesTr" / "c_0000.mha", labels * np.int16(1000), matrix=matrix)
    write_mha(tmp_path / "labelsTr" / "c.mha", labels, matrix=matrix)
    dataset = open_dataset("nnunet-raw", tmp_path)
    assert dataset.names("train") == tuple(f"c_{i:04d}" for i in slices)
    for sample in dataset.load_all("train"):
        assert sample.semantic.sum() == labels.sum() / len(slices)
        np.testing.assert_array_equal(sample.image[..., 0] == 255, sample.semantic == 1)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (["CT"], [[0, 0, 0], [255, 255, 255]]),
        (["CT", "PET"], [[0, 0, 0], [255, 255, 0]]),
        (["T1", "T2", "FLAIR", "DWI"], [[0, 0, 0], [255, 255, 255]]),
    ],
)
def test_channels_become_colours(tmp_path: Path, channels: list[str], expected) -> None:
    description = NNUNET | {"channel_names": {str(i): name for i, name in enumerate(channels)}}
    values = np.where(LABELS, 1000, -1000).astype(np.int16)
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path, ".mha", description, values))
    image = dataset.load("train", "a_2_0001").image
    assert [image[3, 5].tolist(), image[0, 0].tolist()] == expected


def test_the_window_can_be_chosen(tmp_path: Path) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path))
    dataset.load("train", "a_2_0001")  # what was read with another window is not given again
    image = replace(dataset, window_hu=(0.0, 255.0)).load("train", "a_2_0001").image
    np.testing.assert_array_equal(image[..., 0], np.clip(VALUES[1], 0, 255))
    with pytest.raises(DatasetError, match="lower end first"):
        replace(dataset, window_hu=(5.0, 5.0)).load("train", "a_2_0001")


def test_what_is_ignored_is_not_known(tmp_path: Path) -> None:
    description = NNUNET | {"labels": {"background": 0, "liver": 1, "ignore": 2}}
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path, description=description))
    assert dataset.names("train") == ("a_2_0001", "a_10_0001")
    sample = replace(dataset, every_slice=True).load("train", "a_2_0003")
    np.testing.assert_array_equal(sample.semantic_known, LABELS[3] == 0)
    assert not sample.semantic.any()


@pytest.mark.parametrize(
    ("entries", "classes"),
    [
        ({"labels": {"background": 0, "b": 2, "a": 1}}, ["a", "b"]),
        ({"labels": {"0": "background", "1": "a", "7": "b"}}, ["a", "b"]),
        (
            {"labels": {"background": 0, "all": [1, 2], "core": 2}, "regions_class_order": [1, 2]},
            ["all", "core"],
        ),
    ],
    ids=["version 2", "version 1", "regions"],
)
def test_classes_come_from_the_description(tmp_path: Path, entries, classes: list[str]) -> None:
    dataset = open_dataset("nnunet-raw", make_raw(tmp_path, description=NNUNET | entries))
    assert [c.name for c in dataset.semantic_classes] == classes
    assert [c.id for c in dataset.semantic_classes] == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no dataset.json"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "JSON object"),
        ({"labels": None}, "nnU-Net"),
        ({"channel_names": {}}, "channel_names"),
        ({"channel_names": {"1": "CT"}}, "numbered"),
        ({"file_ending": ".png"}, "file_ending"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "one number"),
        ({"labels": {"background": 0, "a": 300}}, "300"),
        ({"labels": {"background": 0, "a": [1, 2]}}, "regions_class_order"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_badly_described_folder_is_told(tmp_path: Path, content, message: str) -> None:
    make_raw(tmp_path)
    (tmp_path / "dataset.json").unlink()
    if isinstance(content, dict):
        content = json.dumps(NNUNET | {"file_ending": ".mha"} | content)
    if content is not None:
        (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=message):
        open_dataset("nnunet-raw", tmp_path)


ELSEWHERE = "1 0 0 0 1 0 0 0 1\nOffset = 0 0 0.3"
TILTED = "0.96 0.28 0 -0.28 0.96 0 0 0 1"


def remove(relative: str):
    return lambda root: (root / relative).unlink()


def put(relative: str, volume: np.ndarray, **changes):
    return lambda root: write_mha(root / relative, volume, **changes)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("imagesTr/a_2_0000.mha"), "there is no"),
        (remove("labelsTr/a_2.mha"), "lists 2 training cases"),
        (put("imagesTr/a_2_0000.mha", VALUES[:4]), "shape and spacing"),
        (put("imagesTr/a_2_0000.mha", VALUES, spacing="1 1 1"), "shape and spacing"),
        (put("imagesTr/a_2_0000.mha", VALUES, matrix=ELSEWHERE), "is displaced"),
        (put("imagesTr/a_2_0000.mha", VALUES, matrix=TILTED), "is displaced"),
        (put("labelsTr/a_2.mha", LABELS * 9), "values 9, 18"),
        (put("labelsTr/a_2.mha", LABELS, spacing="1 2 3"), "resample"),
        (lambda root: cut_short(root / "labelsTr/a_2.mha"), "cut short"),
        (lambda root: cut_short(root / "imagesTr/a_2_0000.mha"), "cut short"),
        (lambda root: (root / "labelsTr").rename(root / "labels"), "labelsTr"),
    ],
    ids=[
        "image missing",
        "labels missing",
        "shape",
        "spacing",
        "position",
        "directions",
        "unknown number",
        "no square pixels",
        "labels cut",
        "image cut",
        "no labels",
    ],
)
def test_a_damaged_folder_is_told_once(tmp_path: Path, damage, message: str) -> None:
    make_raw(tmp_path, description=NNUNET | {"numTraining": 2})
    damage(tmp_path)
    report = open_dataset("nnunet-raw", tmp_path).check()
    assert len(report.problems) == 1
    assert message in report.problems[0]


def test_a_case_without_labels_is_noted(tmp_path: Path) -> None:
    make_raw(tmp_path)
    write_mha(tmp_path / "labelsTr" / "a_2.mha", LABELS * 0)
    report = open_dataset("nnunet-raw", tmp_path).check()
    assert report.problems == ()
    assert report.notes == ("1 cases hold no labels: a_2",)


@pytest.mark.parametrize("name", ["a_2", "a_2_0099", "a_3_0001", "nothing"])
def test_unknown_names_are_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError):
        open_dataset("nnunet-raw", make_raw(tmp_path)).load("train", name)
