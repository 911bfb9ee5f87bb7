"""Values that a file stores are those that are read: masks, deep colours, pixel sizes."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile

from napari_coseg.cli.main import main
from napari_coseg.formats.results import find_results, read_result
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.readers.registry import read_image

RNG = np.random.default_rng(0)
MASK = np.zeros((50, 60), bool)
MASK[10:20, 10:20] = True
NUMBERS = np.where(MASK, 3, 0).astype(np.uint8)


def of_two_colours(path: Path) -> None:
    picture = PIL.Image.fromarray(MASK.astype(np.uint8)).convert("P")
    picture.putdata(MASK.astype(np.uint8).ravel().tolist())
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.save(path)


MASKS = [
    pytest.param("m.tif", lambda path: tifffile.imwrite(path, MASK), id="boolean, white is zero"),
    pytest.param(
        "m.tif",
        lambda path: tifffile.imwrite(path, NUMBERS, photometric="miniswhite"),
        id="8 bits, white is zero",
    ),
    pytest.param(
        "m.tif",
        lambda path: tifffile.imwrite(path, NUMBERS.astype(np.uint16), photometric="miniswhite"),
        id="16 bits, white is zero",
    ),
    pytest.param("m.tif", lambda path: PIL.Image.fromarray(MASK).save(path), id="Pillow's bits"),
    pytest.param("m.png", lambda path: PIL.Image.fromarray(MASK).save(path), id="PNG of one bit"),
    pytest.param("m.png", of_two_colours, id="PNG with a palette"),
    pytest.param(
        "m.tif",
        lambda path: tifffile.imwrite(
            path,
            NUMBERS,
            photometric="palette",
            colormap=RNG.integers(0, 65535, (3, 256)).astype(np.uint16),
        ),
        id="TIFF with a palette",
    ),
]


@pytest.mark.parametrize(("name", "save"), MASKS)
def test_a_mask_has_the_pixels_that_it_stores(tmp_path, name, save) -> None:
    save(tmp_path / name)
    found = read_result(find_results([tmp_path / name])[0], pixel_size_um=[1.0])
    assert found.instances.table["area_um2"].tolist() == [100]
    np.testing.assert_array_equal(found.instances.labels > 0, MASK)


def test_a_mask_is_exported_as_it_is_stored(tmp_path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", MASK)
    how = ["--format", "csv", "--pixel-size-um", "1"]
    assert main(["export", str(tmp_path / "m.tif"), *how]) == 0
    assert pd.read_csv(tmp_path / "m_objects.csv")["area_um2"].tolist() == [100]


def png(values: np.ndarray, transparent: tuple[int, ...] = ()) -> bytes:
    """Of 16 bits a channel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width, count = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    clear = chunk(b"tRNS", struct.pack(">3H", *transparent)) if transparent else b""
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[count], 0, 0, 0)
    parts = chunk(b"IHDR", header) + clear + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


@pytest.mark.parametrize("count", [3, 4], ids=["colours", "colours with alpha"])
@pytest.mark.parametrize("largest", [255, 4095, 65535])
def test_colours_of_16_bits_keep_their_low_bytes(tmp_path, count: int, largest: int) -> None:
    values = RNG.integers(0, largest, (9, 7, count), np.uint16, endpoint=True)
    values[0, 0] = largest
    (tmp_path / "a.png").write_bytes(png(values))
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.data, values)
    shown = RgbSource(understand(image), channels=(0, 1, 2)).read(0, slice(0, 9), slice(0, 7))
    np.testing.assert_allclose(shown, values[..., :3] * (255 / largest), atol=1e-2)


def test_a_transparent_colour_of_16_bits(tmp_path) -> None:
    values = np.uint16([[[1, 2, 3], [257, 2, 3]]])
    (tmp_path / "a.png").write_bytes(png(values, (257, 2, 3)))
    data = read_image(tmp_path / "a.png").data
    np.testing.assert_array_equal(data[..., :3], values)
    assert data[..., 3].tolist() == [[65535, 0]]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0.2465", 0.2465),
        ("4.5e-1", 0.45),
        ("2.5E-01", 0.25),
        ("+0.5", 0.5),
        ("0,25", 0.25),
        (".5", 0.5),
        ("0", None),
        ("-0.5", None),
        ("1.2.3", None),
        ("unknown", None),
        ("inf", None),
        ("", None),
    ],
)
def test_the_pixel_size_of_a_slide_scanner(tmp_path, text: str, size: float | None) -> None:
    described = f"Aperio Image|AppMag = 40|MPP = {text}|Left = 1"
    tifffile.imwrite(tmp_path / "a.tif", NUMBERS, description=described, metadata=None)
    assert read_image(tmp_path / "a.tif").pixel_size_um == (None if size is None else (size, size))
