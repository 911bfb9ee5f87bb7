"""Colours of TIFF files: what is read is what a viewer of pictures shows, or it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from napari_coseg.core.errors import ImageError
from napari_coseg.images.readers.registry import read_image

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 255, (24, 36), np.uint8)
STACK = RNG.integers(0, 255, (5, 24, 36), np.uint8)
RGB = RNG.integers(0, 255, (24, 36, 3), np.uint8)
DEEP = RNG.integers(0, 60_000, (24, 36), np.uint16)
COLORS = RNG.integers(0, 255, (3, 256), np.uint8)
PALETTE = {"photometric": "palette", "colormap": COLORS.astype(np.uint16) * 257}
TWO = [1 * 257, 200 * 257, 2 * 257, 100 * 257, 3 * 257, 50 * 257]
INVERTED = {"photometric": "miniswhite"}


@pytest.mark.parametrize("loaded_bytes", [2**29, 0], ids=["loaded", "read by windows"])
@pytest.mark.parametrize(
    ("stored", "how", "axes", "expected"),
    [
        pytest.param(PLANE, PALETTE, "YXC", COLORS.T[PLANE], id="palette"),
        pytest.param(
            PLANE,
            PALETTE | {"colormap": COLORS.astype(np.uint16) * 256},
            "YXC",
            COLORS.T[PLANE],
            id="palette of the high bytes",
        ),
        pytest.param(
            PLANE,
            PALETTE | {"colormap": COLORS.astype(np.uint16)},
            "YXC",
            COLORS.T[PLANE],
            id="palette of 8 bits",
        ),
        pytest.param(STACK, PALETTE, "ZYXC", COLORS.T[STACK], id="stack with a palette"),
        pytest.param(
            PLANE, PALETTE | {"tile": (16, 16)}, "YXC", COLORS.T[PLANE], id="tiles with a palette"
        ),
        pytest.param(PLANE, INVERTED, "YX", 255 - PLANE, id="white is zero"),
        pytest.param(DEEP, INVERTED, "YX", 65535 - DEEP, id="white is zero in 16 bits"),
        pytest.param(PLANE > 99, INVERTED, "YX", PLANE <= 99, id="white is zero in one bit"),
        pytest.param(STACK, INVERTED, "ZYX", 255 - STACK, id="stack where white is zero"),
        pytest.param(
            PLANE, INVERTED | {"imagej": True}, "YX", PLANE, id="ImageJ's values, however shown"
        ),
    ],
)
def test_colours_of_tiff(
    tmp_path: Path, monkeypatch, stored, how: dict, axes: str, expected, loaded_bytes: int
) -> None:
    monkeypatch.setattr("napari_coseg.images.readers.tiff.LOADED_BYTES", loaded_bytes)
    tifffile.imwrite(tmp_path / "a.tif", stored, **how)
    image = read_image(tmp_path / "a.tif")
    assert image.axes == axes
    assert image.data.dtype == stored.dtype
    np.testing.assert_array_equal(np.asarray(image.data), expected)


def test_a_palette_of_two_colours(tmp_path: Path) -> None:
    path, bits = tmp_path / "a.tif", PLANE > 99
    tifffile.imwrite(path, bits, photometric="miniswhite", extratags=[(320, 3, 6, TWO, True)])
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["PhotometricInterpretation"].overwrite(3)
    np.testing.assert_array_equal(
        read_image(path).data, np.where(bits[..., None], (200, 100, 50), (1, 2, 3))
    )


def test_a_palette_is_read_as_from_a_png(tmp_path: Path) -> None:
    picture = PIL.Image.fromarray(RGB).quantize(200)
    for name in ("p.tif", "p.png"):
        picture.save(tmp_path / name)
    tiff, png = (read_image(tmp_path / name) for name in ("p.tif", "p.png"))
    np.testing.assert_array_equal(tiff.data, png.data)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: tifffile.imwrite(path, np.dstack([RGB, PLANE]), photometric=5), "SEPARATED"),
        (lambda path: tifffile.imwrite(path, RGB, photometric="cielab"), "CIELAB"),
        (lambda path: tifffile.imwrite(path, PLANE, photometric="cfa"), "CFA"),
        (lambda path: PIL.Image.fromarray(RGB).convert("YCbCr").save(path), "YCBCR"),
        (lambda path: tifffile.imwrite(path, PLANE / 255, photometric="miniswhite"), "MINISWHITE"),
    ],
    ids=["CMYK", "Lab", "a sensor's mosaic", "YCbCr without JPEG", "fractions where white is zero"],
)
def test_colours_that_are_not_understood_are_refused(tmp_path: Path, write, told: str) -> None:
    write(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=rf"a\.tif .*{told}.* save it as RGB"):
        read_image(tmp_path / "a.tif")


def test_jpeg_in_tiff_is_red_green_blue(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (36, 24), (200, 60, 90)).convert("YCbCr")
    picture.save(tmp_path / "a.tif", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(image.data[0, 0], (200, 60, 90), atol=4)
