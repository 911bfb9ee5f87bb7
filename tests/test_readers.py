"""What files say of their pixels is what comes out; broken ones are told, never half read."""

from __future__ import annotations

import gzip
import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile

from cases.volume_twins import VALUES, WRITERS
from napari_coseg.core.errors import ImageError
from napari_coseg.images.readers.registry import READERS, read_image, stem_of

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 255, (24, 36), np.uint8)
RGB = RNG.integers(0, 255, (24, 36, 3), np.uint8)
DEEP = RNG.integers(0, 60000, (24, 36), np.uint16)
STACK = RNG.integers(0, 255, (5, 24, 36), np.uint8)
MULTI = RNG.integers(0, 255, (3, 5, 24, 36), np.uint8)
OME = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
NM = {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
NM |= {"PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"}

TIFFS = [
    # array, how it is written, axes and pixel size that come out
    pytest.param(PLANE, {}, "YX", None, id="plain"),
    pytest.param(RGB, {"photometric": "rgb"}, "YXC", None, id="colour"),
    pytest.param(STACK, {"photometric": "minisblack"}, "ZYX", None, id="pages are slices"),
    pytest.param(DEEP, {"compression": "zlib", "tile": (16, 16)}, "YX", None, id="tiles"),
    pytest.param(
        PLANE,
        {"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"},
        "YX",
        (0.5, 0.25),
        id="dots a centimetre",
    ),
    pytest.param(
        PLANE, {"resolution": (72, 72), "resolutionunit": "INCH"}, "YX", None, id="72 dpi"
    ),
    pytest.param(
        PLANE, {"ome": True, "metadata": {"axes": "YX"} | OME}, "YX", (0.5, 0.25), id="OME"
    ),
    pytest.param(
        PLANE, {"ome": True, "metadata": {"axes": "YX"} | NM}, "YX", (0.5, 0.25), id="OME in nm"
    ),
    pytest.param(
        STACK,
        {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeZ": 2} | OME},
        "ZYX",
        (2.0, 0.5, 0.25),
        id="OME stack",
    ),
    pytest.param(
        MULTI,
        {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CZYX"}},
        "ZCYX",
        None,
        id="OME channels before slices",
    ),
    pytest.param(
        STACK[:3],
        {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}},
        "CYX",
        None,
        id="OME channels",
    ),
    pytest.param(
        STACK,
        {
            "imagej": True,
            "resolution": (4, 2),
            "metadata": {"axes": "ZYX", "spacing": 1.5, "unit": "um"},
        },
        "ZYX",
        (1.5, 0.5, 0.25),
        id="ImageJ",
    ),
    pytest.param(
        RGB,
        {"photometric": "rgb", "description": "Aperio|AppMag = 40|MPP = 0.2465|x = 1"},
        "YXC",
        (0.2465, 0.2465),
        id="a slide scanner's",
    ),
]


@pytest.mark.parametrize("loaded_bytes", [2**29, 0], ids=["loaded", "read by windows"])
@pytest.mark.parametrize(("array", "how", "axes", "size"), TIFFS)
def test_tiff(tmp_path, monkeypatch, array, how, axes, size, loaded_bytes):
    monkeypatch.setattr("napari_coseg.images.readers.tiff.LOADED_BYTES", loaded_bytes)
    path = tmp_path / ("a b.ome.tif" if how.get("ome") else "a b.tif")
    tifffile.imwrite(path, array, **how)
    image = read_image(path)
    assert image.axes == axes
    assert image.name == "a b"
    assert isinstance(image.data, np.ndarray) == bool(loaded_bytes)
    expected = np.moveaxis(array, 0, 1) if axes == "ZCYX" else array
    np.testing.assert_array_equal(np.asarray(image.data), expected)
    assert image.pixel_size_um == (None if size is None else pytest.approx(size))


def test_a_stack_without_spacing_takes_the_rows_and_says_so(tmp_path):
    metadata = {"axes": "ZYX"} | OME
    tifffile.imwrite(tmp_path / "s.tif", STACK, ome=True, metadata=metadata)
    with pytest.warns(UserWarning, match="no slice spacing"):
        assert read_image(tmp_path / "s.tif").pixel_size_um == (0.5, 0.5, 0.25)


PICTURES = [
    pytest.param("RGB", "png", RGB, "YXC", id="colour PNG"),
    pytest.param("L", "png", PLANE, "YX", id="grey PNG"),
    pytest.param("I;16", "png", DEEP, "YX", id="16-bit PNG"),
    pytest.param("RGB", "bmp", RGB, "YXC", id="BMP"),
    pytest.param("RGBA", "png", np.dstack([RGB, PLANE]), "YXC", id="alpha"),
]


@pytest.mark.parametrize(("mode", "ending", "array", "axes"), PICTURES)
def test_pictures(tmp_path, mode, ending, array, axes):
    path = tmp_path / f"p.{ending.upper()}"
    picture = PIL.Image.fromarray(array)
    assert picture.mode == mode
    picture.save(path)
    image = read_image(path)
    np.testing.assert_array_equal(image.data, array)
    assert (image.axes, image.pixel_size_um, image.name) == (axes, None, "p")


def test_palettes_become_colours_and_dots_a_pixel_size(tmp_path):
    PIL.Image.fromarray(RGB).quantize(200).save(tmp_path / "p.png", dpi=(50800, 25400))
    image = read_image(tmp_path / "p.png")
    assert image.data.shape == (24, 36, 3)
    assert image.pixel_size_um == pytest.approx((1.0, 0.5), rel=1e-3)


def test_jpeg(tmp_path):
    PIL.Image.fromarray(np.full((24, 36, 3), 120, np.uint8)).save(tmp_path / "p.jpg", dpi=(72, 72))
    image = read_image(str(tmp_path / "p.jpg"))
    np.testing.assert_allclose(image.data, 120, atol=1)
    assert image.pixel_size_um is None


def test_npy_is_mapped_not_loaded(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    image = read_image(tmp_path / "a.npy")
    assert isinstance(image.data, np.memmap)
    np.testing.assert_array_equal(image.data, STACK)
    assert image.axes == "ZYX"


def broken(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_no_pickle_is_ever_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match="numpy array"):
        read_image(tmp_path / "a.npy")


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=PLANE)
    return file.getvalue()


BROKEN = [
    pytest.param("a.tif", b"", id="an empty TIFF"),
    pytest.param("a.tif", b"II*\x00\x08\x00\x00\x00", id="a TIFF cut after its header"),
    pytest.param("a.tif", b"<html>not found</html>", id="a web page named TIFF"),
    pytest.param("a.png", b"\x89PNG\r\n\x1a\n", id="a PNG cut after its header"),
    pytest.param("a.jpg", b"", id="an empty JPEG"),
    pytest.param("a.npy", b"\x93NUMPY\x01\x00", id="a cut numpy file"),
    pytest.param("a.npy", npz(), id="several numpy arrays named as one"),
    pytest.param("a.npy", npy("{'descr': '|u1', 'fortran"), id="a numpy header cut off"),
    pytest.param("a.npy", npy("{'descr': '|u1', 'shape': (4"), id="cut within its shape"),
    pytest.param(
        "a.npy",
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (True, 4)}"),
        id="a numpy shape that is no number",
    ),
    pytest.param("a.xyz", b"", id="an unknown ending"),
    pytest.param("a", b"", id="no ending"),
]


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_broken_files_are_told(tmp_path, name, content):
    with pytest.raises(ImageError, match=name):
        read_image(broken(tmp_path, name, content))


@pytest.mark.parametrize("ending", sorted(READERS))
def test_every_reader_refuses_what_it_cannot_read(tmp_path, ending):
    with pytest.raises(ImageError):
        read_image(broken(tmp_path, f"noise{ending}", RNG.bytes(3000)))


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_cut_file_is_never_half_an_image(tmp_path, part):
    for name, save in (
        ("a.png", lambda path: PIL.Image.fromarray(RGB).save(path)),
        ("a.tif", lambda path: tifffile.imwrite(path, RGB, compression="zlib")),
        ("a.npy", lambda path: np.save(path, RGB)),
    ):
        save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        with pytest.raises(ImageError, match=name):
            read_image(broken(tmp_path, name, whole[: int(len(whole) * part)]))


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path):
    with open(tmp_path / "bomb.npy", "wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ImageError, match="numpy array"):
        read_image(tmp_path / "bomb.npy")
    size = struct.pack(">II5B", 10**6, 10**6, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    broken(tmp_path, "bomb.png", b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\4IDAT" + b"\0" * 8)
    with pytest.raises(ImageError, match="too many pixels"):
        read_image(tmp_path / "bomb.png")


FLIPPED = "-1 0 0 0 1 0 0 0 -1"


@pytest.mark.parametrize(
    ("name", "changes", "turned"),
    [
        pytest.param("v.mha", {}, VALUES, id="mha"),
        pytest.param("v.mha", {"matrix": FLIPPED}, VALUES[::-1, :, ::-1], id="lies otherwise"),
        pytest.param("v.nii", {}, VALUES, id="nii"),
        pytest.param("v.nii.gz", {}, VALUES, id="packed"),
        pytest.param("v.nii.gz", {"slope": 2.0, "intercept": -9.0}, VALUES * 2.0 - 9, id="scaled"),
    ],
)
def test_volumes_are_turned_upright_with_their_own_values(tmp_path, name, changes, turned):
    if name != "v.mha":
        pytest.importorskip("nibabel")
    WRITERS[name.removeprefix("v")](tmp_path / name, VALUES, **changes)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(image.data, turned)
    assert (image.axes, image.name) == ("ZYX", "v")
    assert image.pixel_size_um == pytest.approx((300, 300, 300))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("intercept", [float("nan"), float("inf")], ids=["NaN", "infinite"])
def test_a_volume_scaled_beyond_numbers_is_told(tmp_path, ending, intercept):
    path = tmp_path / f"v{ending}"
    WRITERS[ending](path, VALUES, slope=2.0, intercept=1.0)
    packed = ending.endswith(".gz")
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = content[:116] + struct.pack("<f", intercept) + content[120:]  # scl_inter
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ImageError, match=r"v\.nii"):
        read_image(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ImageError, match="no image file"):
        read_image(tmp_path / "gone.tif")
    with pytest.raises(ImageError, match="no DICOM image"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.ome.tif", "a"),
        ("a.b.png", "a.b"),
        ("a", "a"),
        (".ome.tif", ""),
        ("ct.nii.gz", "ct"),
        ("a.b.NII.GZ", "a.b"),
        ("a.gz", "a"),
    ],
)
def test_stems(tmp_path, name, stem):
    assert stem_of(tmp_path / name) == stem


def test_the_sample_is_a_colour_image_with_a_pixel_size() -> None:
    from napari_coseg.images.readers.samples import colon

    image = colon()
    assert (image.data.shape, image.data.dtype, image.axes) == ((512, 512, 3), np.uint8, "YXC")
    assert image.pixel_size_um == (0.45, 0.45)
    lumen, epithelium = image.data[300:320, :10], image.data[150:250, 50:150]
    assert lumen.mean() > 200 > epithelium.mean()
    red, green, _ = image.data.reshape(-1, 3).mean(0)
    assert red > green  # pink, not brown or blue
