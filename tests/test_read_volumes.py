"""Volumes of every format: values and world positions, against SimpleITK and nibabel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from cases.placed_volumes import ORIGIN, SPACING, rotation
from cases.volume_twins import VALUES
from napari_coseg.core.errors import ImageError
from napari_coseg.images.readers.registry import read_image

TILTED = rotation((12.0, -7.0, 20.0))
KINDS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32")


def itk_image(kind: str = "int16", orientation: str = "LPS", tilt: np.ndarray = TILTED):
    image = SimpleITK.GetImageFromArray(VALUES.astype(kind))
    image.SetSpacing(SPACING)
    image = SimpleITK.DICOMOrient(image, orientation)
    turned = tilt @ np.array(image.GetDirection()).reshape(3, 3)
    image.SetDirection(turned.ravel().tolist())
    image.SetOrigin((tilt @ image.GetOrigin() + ORIGIN).tolist())
    return image


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("orientation", ["LPS", "RAI", "PSL"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
def test_positions_and_values_are_those_of_the_file(tmp_path: Path, ending, orientation, packed):
    itk = itk_image(orientation=orientation)
    SimpleITK.WriteImage(itk, str(tmp_path / f"v{ending}"), useCompression=packed)
    image = read_image(tmp_path / f"v{ending}")
    assert (image.name, image.axes, image.geometry.unit) == ("v", "ZYX", "mm")
    for z, y, x in np.ndindex(image.data.shape):
        head, back, left = image.geometry.world((z, y, x))
        there = itk.TransformPhysicalPointToContinuousIndex((left, back, head))
        place = itk.TransformContinuousIndexToPhysicalPoint(np.rint(there).tolist())
        assert place == pytest.approx((left, back, head), abs=1e-4)
        assert image.data[z, y, x] == itk[tuple(int(n) for n in np.rint(there))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_every_type_of_values_is_read(tmp_path: Path, kind: str, ending: str) -> None:
    SimpleITK.WriteImage(itk_image(kind, tilt=np.eye(3)), str(tmp_path / f"v{ending}"))
    image = read_image(tmp_path / f"v{ending}")
    assert image.data.dtype == kind
    np.testing.assert_array_equal(image.data, VALUES.astype(kind))


NRRD = """NRRD0004
type: short
dimension: 3
sizes: 6 4 5
{lines}
encoding: {encoding}

"""
PLACED = "space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,2)\nendian: little"


def write_nrrd(path: Path, lines: str = PLACED, encoding: str = "raw", kind: str = "<i2") -> Path:
    text = NRRD.format(lines=lines, encoding=encoding)
    path.write_bytes(text.encode() + VALUES.astype(kind).tobytes())
    return path


@pytest.mark.parametrize(
    ("lines", "kind", "unit", "space", "assumed"),
    [
        (PLACED, "<i2", "mm", "patient", 0),
        (PLACED.replace("little", "big"), ">i2", "mm", "patient", 0),
        (PLACED + '\nspace units: "um" "um" "um"', "<i2", "um", "patient", 0),
        ("spacings: 1 1 2\nendian: little", "<i2", "mm", "image", 1),
        ("endian: little", "<i2", "px", "image", 1),
    ],
    ids=["placed", "big-endian", "micrometres", "spacing alone", "nothing"],
)
def test_what_a_nrrd_header_says_and_does_not(tmp_path, lines, kind, unit, space, assumed) -> None:
    image = read_image(write_nrrd(tmp_path / "v.nrrd", lines, kind=kind))
    np.testing.assert_array_equal(image.data, VALUES)
    geometry = image.geometry
    assert (geometry.unit, geometry.space) == (unit, space)
    assert len(geometry.source.assumed) == assumed
    assert geometry.spacing == ((1, 1, 1) if unit == "px" else (2, 1, 1))


@pytest.mark.parametrize(
    ("lines", "encoding", "message"),
    [
        (PLACED + "\ndata file: ../secret", "raw", "not beside it"),
        (PLACED + "\ndata file: LIST", "raw", "another file"),
        (PLACED + "\ndata file: v%03d.raw 1 5 1", "raw", "another file"),
        (PLACED + "\nbyte skip: 7", "raw", "in a way that is not read"),
        (PLACED, "ascii", "in a way that is not read"),
        (PLACED, "bzip2", "in a way that is not read"),
        (PLACED.replace("(0,0,2)", "(0,0,x)"), "raw", "header is invalid"),
        (PLACED + "\nkinds: vector domain domain", "raw", "header is invalid"),
        (PLACED + "\nsizes: 900 900 900", "raw", "invalid|cannot hold"),
    ],
)
def test_a_nrrd_that_is_not_read_is_told(tmp_path: Path, lines, encoding, message) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(write_nrrd(tmp_path / "v.nrrd", lines, encoding))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(
    ("ending", "part"), [(".nrrd", ".nrrd"), (".mhd", "raw"), (".nhdr", "raw")]
)
def test_a_volume_that_was_cut_short_is_told(tmp_path: Path, ending, part, packed) -> None:
    SimpleITK.WriteImage(itk_image(), str(tmp_path / f"v{ending}"), useCompression=packed)
    held = next(file for file in tmp_path.iterdir() if part in file.suffixes or part in file.name)
    held.write_bytes(held.read_bytes()[:-12])
    with pytest.raises(ImageError, match=r"cut short|ended|cannot hold"):
        read_image(tmp_path / f"v{ending}")
