"""DICOM series as volumes: order, positions, values, and what is not regular."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cases.dicom_series import (
    INTERCEPT,
    SLOPE,
    SPACING,
    STORED,
    Series,
    read_by_itk,
    write_enhanced,
    zipped,
)
from napari_coseg.core.errors import ImageError
from napari_coseg.images.readers.dicom_files import SeriesChoiceError
from napari_coseg.images.readers.registry import read_image

VALUES = STORED.astype(int) * SLOPE + INTERCEPT
FEET_FIRST = (0.0, 180.0, 0.0)
SAGITTAL = (0.0, 90.0, 0.0)

SERIES = {
    "shuffled names": Series(),
    "oblique": Series(tilt=(12.0, -7.0, 20.0)),
    "turned round": Series(tilt=FEET_FIRST),
    "sagittal": Series(tilt=SAGITTAL),
    "slope": Series(changes={"RescaleSlope": 2, "RescaleIntercept": -100}),
    "fractional slope": Series(changes={"RescaleSlope": 0.25}),
    "a slope per slice": Series(changes={"RescaleSlope": lambda k: k + 1}),
    "signed": Series(changes={"PixelRepresentation": 1}),
    "16 bits": Series(changes={"PixelData": lambda k: (STORED[k] * np.uint16(21)).tobytes()}),
}


@pytest.mark.parametrize("series", SERIES.values(), ids=SERIES.keys())
@pytest.mark.parametrize("kind", ["folder", "file", "zip"])
def test_positions_and_values_are_those_of_simpleitk(tmp_path: Path, series, kind: str) -> None:
    folder = series.write(tmp_path / "scan")
    path = {"folder": folder, "file": folder / "IM0002", "zip": tmp_path / "scan.zip"}[kind]
    if kind == "zip":
        zipped(folder)
    image = read_image(path)
    itk = read_by_itk(folder)
    expected = itk_array(itk)
    for index in ((0, 0, 0), (1, 2, 3), tuple(n - 1 for n in image.data.shape)):
        head, back, left = image.geometry.world(index)
        there = itk.TransformPhysicalPointToIndex((left, back, head))
        place = itk.TransformIndexToPhysicalPoint(there)
        assert place == pytest.approx((left, back, head), abs=1e-4)
        assert image.data[index] == pytest.approx(expected[there[::-1]])
    assert (image.axes, image.geometry.unit, image.geometry.space) == ("ZYX", "mm", "patient")
    assert image.geometry.source.window == (-500, 1500)
    assert image.geometry.source.assumed == ()
    assert "Somebody" not in str(image.geometry.as_json())


def itk_array(image: object) -> np.ndarray:
    import SimpleITK

    found: np.ndarray = SimpleITK.GetArrayFromImage(image)
    return found


def test_ct_values_stay_16_bit_integers(tmp_path: Path) -> None:
    image = read_image(Series().write(tmp_path / "1.2.840.1"))
    np.testing.assert_array_equal(image.data, VALUES)
    assert (image.data.dtype, image.name) == (np.int16, "1.2.840.1")


@pytest.mark.parametrize("codec", ["jpeg2k", "jpegls", "ljpeg"])
def test_compressed_slices_are_unpacked(tmp_path: Path, codec: str) -> None:
    import imagecodecs
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    syntax = {"jpeg2k": "90", "jpegls": "80", "ljpeg": "70"}[codec]
    encode = getattr(imagecodecs, f"{codec}_encode")
    options = {"level": 0, "reversible": True} if codec == "jpeg2k" else {}
    (tmp_path / "scan").mkdir()
    for k in range(len(STORED)):
        data = Series().dataset(k, k)
        data.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.4.{syntax}")
        data.PixelData = encapsulate([encode(STORED[k], **options)])
        data.save_as(tmp_path / "scan" / f"{9 - k}.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(tmp_path / "scan").data, VALUES)


# ---------------------------------------------------------------------------------------------
# What is not regular

GAP = Series(order=(0, 1, 2, 4, 5))
DOUBLED = Series(order=(0, 1, 2, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (GAP, "1 missing slices, above at -370 mm"),
        (DOUBLED, "doubled slices at -370 mm"),
        (Series(order=(0, 1, 2, 4, 4, 5)), "doubled slices.* and 1 missing"),
        (Series(changes={"ImagePositionPatient": lambda k: [0, 0, k**1.5]}), "irregular distances"),
        (Series(changes={"ImagePositionPatient": lambda k: [k % 2, 0, k]}), "straight line"),
        (Series(changes={"ImagePositionPatient": lambda k: [0, 0, 7]}), "at one position"),
        (Series(changes={"ImagePositionPatient": None}), "no ImagePositionPatient"),
        (Series(changes={"ImageOrientationPatient": None}), "no orientation"),
        (Series(changes={"SamplesPerPixel": 3}), "in colour"),
        (Series(changes={"Rows": 9000, "Columns": 60000}), "at most"),
        (Series(changes={"Rows": 9}), "cannot be read"),
        (Series(changes={"PixelData": b"\0" * 40}), "cannot be read"),
        (
            Series(changes={"ImagePositionPatient": lambda k: [0, 0, [0, 1, 2, 3, 4, 1e8][k]]}),
            "GiB",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_irregular_series_is_refused(tmp_path: Path, series: Series, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(series.write(tmp_path / "scan"), fill_gaps="GiB" in message)


@pytest.mark.parametrize(
    ("series", "note", "expected"),
    [
        (GAP, "missing slices", np.concatenate([VALUES[:3], VALUES[4:]])),
        (DOUBLED, "doubled slices", VALUES),
    ],
)
def test_gaps_and_doubles_are_accepted_on_request_and_noted(tmp_path, series, note, expected):
    with pytest.warns(UserWarning, match=note):
        image = read_image(series.write(tmp_path / "scan"), fill_gaps=True)
    assert note in image.geometry.source.assumed[0]
    assert len(image.data) == len(VALUES)  # no gap is closed
    is_known = [bool((plane != expected.min()).any()) for plane in image.data]
    np.testing.assert_array_equal(image.data[is_known], expected)
    assert image.geometry.world((5, 0, 0))[0] == pytest.approx(-374 + 5 * SPACING[2])


def test_a_gantry_tilt_is_told_and_positions_are_right(tmp_path: Path) -> None:
    series = Series(shear=0.5)
    with pytest.warns(UserWarning, match=r"gantry tilt of 14\.0 degrees"):
        image = read_image(series.write(tmp_path / "scan"))
    assert "sheared" in image.geometry.source.assumed[0]
    for x, y, z in ((0, 0, 0), (3, 2, 1), (9, 7, 5)):
        place = (series.affine @ [x, y, z, 1])[2::-1]
        np.testing.assert_allclose(image.geometry.world((z, y, x)), place, atol=1e-4)


def test_copies_of_a_slice_are_told_and_left_out(tmp_path: Path) -> None:
    folder = Series().write(tmp_path / "scan")
    (folder / "copy").write_bytes((folder / "IM0001").read_bytes())
    with pytest.warns(UserWarning, match="1 files are copies"):
        np.testing.assert_array_equal(read_image(folder).data, VALUES)


def test_one_slice_has_its_thickness_as_spacing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="only slice: 2 mm"):
        image = read_image(Series(order=(2,)).write(tmp_path / "scan"))
    assert (image.data.shape, image.geometry.spacing) == ((1, 8, 10), (2.0, 0.75, 0.5))


def test_a_radiograph_is_a_plane(tmp_path: Path) -> None:
    changes = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    image = read_image(Series(order=(1,), changes=changes).write(tmp_path / "x"))
    assert (image.axes, image.pixel_size_um) == ("YX", (750.0, 500.0))


@pytest.mark.parametrize("frames", [(0, 1, 2, 3, 4, 5), (3, 0, 5, 1, 4, 2)])
def test_frames_of_one_file_are_a_volume(tmp_path: Path, frames) -> None:
    affine = Series(tilt=(12.0, -7.0, 20.0)).affine
    image = read_image(write_enhanced(tmp_path / "ct.dcm", frames, affine))
    np.testing.assert_array_equal(image.data, VALUES)
    place = (affine @ [3, 2, 1, 1])[2::-1]
    np.testing.assert_allclose(image.geometry.world((1, 2, 3)), place, atol=1e-4)


# ---------------------------------------------------------------------------------------------
# Several series

OTHERS = {
    "another series": Series(uid="1.2.4", prefix="b"),
    "another size": Series(prefix="b", changes={"Rows": 4, "PixelData": b"\0" * 80}),
    "another orientation": Series(prefix="b", tilt=SAGITTAL),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
@pytest.mark.parametrize("in_zip", [False, True], ids=["folder", "zip"])
def test_of_several_series_one_is_to_be_chosen(tmp_path: Path, other: Series, in_zip) -> None:
    folder = other.write(Series().write(tmp_path / "scan"))
    path = zipped(folder) if in_zip else folder
    with pytest.raises(SeriesChoiceError, match="--series") as refused:
        read_image(path)
    assert len(refused.value.choices) == 2
    number = next(i for i, text in enumerate(refused.value.choices, 1) if "10 x 8, 1.2.3" in text)
    for wanted in (number, str(number)):
        assert read_image(path, series=wanted).data.size == STORED.size
    with pytest.raises(SeriesChoiceError, match="'9'"):
        read_image(path, series="9")


def test_a_series_is_chosen_by_its_uid_or_by_one_of_its_files(tmp_path: Path) -> None:
    folder = Series(uid="1.2.4", prefix="b", changes={"RescaleIntercept": 0}).write(
        Series().write(tmp_path / "scan")
    )
    np.testing.assert_array_equal(read_image(folder, series="1.2.4").data, STORED)
    np.testing.assert_array_equal(read_image(folder / "bIM0001").data, STORED)
    np.testing.assert_array_equal(read_image(folder / "IM0001").data, VALUES)


# ---------------------------------------------------------------------------------------------
# Files from anybody


def with_notes(folder: Path) -> None:
    (folder / "readme.txt").write_text("not DICOM")
    (folder / ".hidden").write_bytes(b"\0" * 200)


def test_other_files_are_skipped(tmp_path: Path) -> None:
    folder = Series().write(tmp_path / "scan")
    with_notes(folder)
    np.testing.assert_array_equal(read_image(folder).data, VALUES)


def claims_more(path: Path) -> None:
    """The central directory says that a member unpacks to 4 GB."""
    content = path.read_bytes()
    at = content.index(b"PK\1\2") + 24
    path.write_bytes(content[:at] + struct.pack("<I", 2**32 - 2) + content[at + 4 :])


def is_encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def is_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def is_empty(path: Path) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (claims_more, "claims more than it can hold"),
        (is_encrypted, "is encrypted"),
        (is_cut, "cannot be read as a zip archive"),
        (is_empty, "no DICOM image"),
    ],
)
def test_a_harmful_archive_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = zipped(Series().write(tmp_path / "scan"))
    damage(path)
    with pytest.raises(ImageError, match=message):
        read_image(path)


def test_an_archive_writes_nothing(tmp_path: Path) -> None:
    path = zipped(Series().write(tmp_path / "a" / "scan"), prefix="../../../")
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(read_image(path).data, VALUES)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 900]
)
def test_damaged_files_are_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(ImageError):
        read_image(tmp_path / "a.dcm")
