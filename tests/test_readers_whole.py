"""A file of which a part is missing is refused; what is left out of a file is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_coseg.cli.main import main
from napari_coseg.core.errors import ImageError
from napari_coseg.images.readers.registry import read_image

STACK = np.random.default_rng(0).integers(1, 255, (6, 32, 48), np.uint8)
GREY = {"photometric": "minisblack"}
OME_AXES = {"axes": "ZYX", "PhysicalSizeZ": 1.0, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}

STACKS = [
    pytest.param({"imagej": True, "metadata": {"axes": "ZYX"}}, id="ImageJ"),
    pytest.param({"ome": True, "metadata": OME_AXES}, id="OME"),
    pytest.param({"ome": True, "metadata": OME_AXES, "compression": "zlib"}, id="packed OME"),
    pytest.param(GREY, id="tifffile's"),
    pytest.param(GREY | {"metadata": None}, id="plain pages"),
    pytest.param(GREY | {"metadata": None, "compression": "zlib"}, id="packed pages"),
]


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("how", STACKS)
@pytest.mark.parametrize("loaded_bytes", [2**29, 0], ids=["loaded", "read by windows"])
def test_a_stack_that_was_cut_short_is_refused(
    tmp_path, monkeypatch, how: dict, part: float, loaded_bytes: int
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, **how)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    monkeypatch.setattr("napari_coseg.images.readers.tiff.LOADED_BYTES", loaded_bytes)
    with pytest.raises(ImageError, match=r"a\.tif (was cut short|cannot be read)"):
        np.asarray(read_image(path).data)


def test_fewer_pages_than_imagej_names(tmp_path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for number, plane in enumerate(STACK):
            named = None if number else "ImageJ=1.53\nimages=8\nslices=8\n"
            file.write(plane, description=named, metadata=None, contiguous=False, **GREY)
    with pytest.raises(ImageError, match="names 8 planes and holds 6"):
        read_image(path)


def write_in_two_files(folder: Path) -> None:
    uuids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{number}" for number in (1, 2)]
    parts = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="m{z}.ome.tif">{uuid}</UUID>'
        "</TiffData>"
        for z, uuid in enumerate(uuids)
    )
    for z, uuid in enumerate(uuids):
        text = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            'Type="uint8" SizeX="48" SizeY="32" SizeZ="2" SizeC="1" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{parts}</Pixels></Image></OME>'
        )
        tifffile.imwrite(
            folder / f"m{z}.ome.tif", STACK[z], description=text, metadata=None, **GREY
        )


def test_an_ome_tiff_that_lacks_a_file_is_refused(tmp_path, capsys) -> None:
    write_in_two_files(tmp_path)
    path = tmp_path / "m0.ome.tif"
    np.testing.assert_array_equal(read_image(path).data, STACK[:2])
    (tmp_path / "m1.ome.tif").unlink()
    with pytest.raises(ImageError, match="lacks 1 of the 2 planes"):
        read_image(path)
    assert main(["export", str(path), "--format", "csv", "--pixel-size-um", "1"]) == 2
    assert "lacks 1 of the 2 planes" in capsys.readouterr().err


@pytest.mark.parametrize("ome", [True, False])
def test_that_the_first_of_several_images_is_read_is_told(tmp_path, ome: bool) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, ome=ome) as file:
        file.write(STACK[0], **GREY)
        file.write(STACK[1, :16, :16], **GREY)
    with pytest.warns(UserWarning, match="the first of 2 images"):
        image = read_image(path)
    np.testing.assert_array_equal(image.data, STACK[0])
    assert any("first of 2 images" in text for text in image.geometry.source.assumed)


@pytest.mark.filterwarnings("error")
def test_smaller_copies_are_no_other_images(tmp_path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(STACK[0], subifds=1, **GREY)
        file.write(STACK[0, ::2, ::2], subfiletype=1, **GREY)
    np.testing.assert_array_equal(read_image(path).data, STACK[0])
