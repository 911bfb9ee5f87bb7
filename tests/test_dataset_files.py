"""Files of datasets that are not what they claim: outlines, MATLAB arrays, pictures of any size."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from scipy.io import savemat

from cases.histology_twins import feature, square, write_geojson
from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets import files, geojson, matlab
from napari_coseg.datasets.files import as_labels, find_folder, read_labels, read_rgb
from napari_coseg.datasets.geojson import Outline, draw, read_outlines
from napari_coseg.datasets.matlab import read_mat


def star(rng: np.random.Generator, centre: float, size: float, corners: int) -> np.ndarray:
    """A ring that does not cross itself, with corners anywhere between pixels."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radii = rng.uniform(0.3, 1, corners) * size
    ring = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.vstack([ring, ring[:1]])


@pytest.mark.parametrize("seed", range(5))
def test_a_pixel_belongs_where_its_centre_lies_inside(seed: int) -> None:
    """Against shapely, with a hole, and partly beyond the image."""
    rng = np.random.default_rng(seed)
    outer, hole = star(rng, 20, 30, 15), star(rng, 20, 6, 7)
    polygon = shapely.Polygon(outer).difference(shapely.Polygon(hole))
    y, x = np.mgrid[:32, :40] + 0.5
    expected = shapely.contains_xy(polygon, x, y)
    if not shapely.Polygon(outer).contains(shapely.Polygon(hole)):
        expected = shapely.contains_xy(
            shapely.Polygon(outer).symmetric_difference(shapely.Polygon(hole)), x, y
        )
    assert 0 < expected.sum() < expected.size
    assert (draw([Outline("a", (outer, hole))], [1], (32, 40), np.uint8) == expected).all()


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    """A square cut along lines through the centres of pixels."""
    corners = [[0.5, 0.5], [8.5, 0.5], [8.5, 8.5], [0.5, 8.5]]
    middle = [4.5, 4.5]
    parts = [
        Outline("a", (np.array([corners[i - 1], corners[i], middle, corners[i - 1]]),))
        for i in range(4)
    ]
    drawn = sum(draw([part], [1], (10, 10), np.int64) for part in parts)
    whole = draw([Outline("a", (np.array([*corners, corners[0]]),))], [1], (10, 10), np.int64)
    assert (drawn == whole).all() and whole.sum() == 64


def test_a_small_outline_shows_within_a_large_one_whatever_their_order() -> None:
    small, large = (Outline("a", (np.array(square(*box)),)) for box in ((2, 2, 2), (0, 0, 8)))
    for outlines, values in (((small, large), (1, 2)), ((large, small), (2, 1))):
        assert np.bincount(draw(outlines, values, (8, 8), np.uint8).ravel()).tolist() == [0, 4, 60]


def broken(**changes: object) -> dict:
    return feature("nuclei_tumor", square(1, 1, 2)) | changes


def polygon(*rings: object) -> dict:
    return broken(geometry={"type": "Polygon", "coordinates": list(rings)})


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([broken(geometry=None)], "feature 0"),
        ([broken(), broken(properties={})], "feature 1"),
        ([broken(properties={"classification": {"name": 3}})], "its name is 3"),
        ([broken(geometry={"type": "Point", "coordinates": [1, 2]})], "'Point'"),
        ([broken(geometry={"type": "Polygon", "coordinates": []})], "no ring"),
        ([polygon([[1, 1], [2, 2]])], "2 corners"),
        ([polygon([[1, 1], [2], [3, 3]])], "feature 0"),
        ([polygon([1, 2, 3])], "not a list of"),
        ([polygon([["1", "2"]] * 4)], "not a list of"),
        ([polygon([[10**400, 1]] * 4)], "not a list of"),
        (["text"], "feature 0"),
    ],
)
def test_features_that_are_no_outlines_are_told(
    tmp_path: Path, features: list, message: str
) -> None:
    write_geojson(tmp_path / "a.geojson", *features)
    with pytest.raises(DatasetError, match=message):
        read_outlines(tmp_path / "a.geojson")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not GeoJSON"),
        ("{}", "no list"),
        (DEEP, "not GeoJSON"),
        ('{"features": [NaN]}', "NaN"),
        (json.dumps([polygon([[1, 1]] * 4)]).replace("1", "1e999"), "not finite"),
        (b"\xff\xfe", "not GeoJSON"),
    ],
    ids=["empty", "no features", "deep", "NaN", "infinite", "not text"],
)
def test_texts_that_are_no_outlines_are_told(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    (tmp_path / "a.geojson").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=message):
        read_outlines(tmp_path / "a.geojson")


def test_a_list_of_features_and_an_open_ring_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps([polygon(square(1, 1, 2)[:-1])]))
    (outline,) = read_outlines(tmp_path / "a.geojson")
    assert draw([outline], [5], (4, 4), np.uint8).sum() == 20


def test_outlines_that_would_take_much_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outline = Outline("a", (np.array(square(0, 0, 8)),))
    monkeypatch.setattr(geojson, "MAX_CROSSINGS", 15)  # two edges of 8 rows
    with pytest.raises(DatasetError, match="crosses more than 15 rows"):
        draw([outline], [1], (8, 8), np.uint8)
    monkeypatch.setattr(geojson, "MAX_BYTES", 10)
    write_geojson(tmp_path / "a.geojson")
    with pytest.raises(DatasetError, match="MiB"):
        read_outlines(tmp_path / "a.geojson")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float64])
def test_matlab_arrays_are_read(tmp_path: Path, dtype: type, compressed: bool) -> None:
    wanted = np.arange(12).reshape(3, 4)
    arrays = {"other": np.zeros(3), "wanted": wanted.astype(dtype)}
    savemat(tmp_path / "a.mat", arrays, do_compression=compressed)
    (read,) = read_mat(tmp_path / "a.mat", ("wanted",)).values()
    assert (as_labels(read, "a") == wanted).all()
    assert as_labels(read, "a").dtype == np.int32


def mat_of(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def packed(content: bytes) -> bytes:
    body = zlib.compress(content)
    return struct.pack("<II", 15, len(body)) + body


def matrix(shape: tuple[int, int], declared: int) -> bytes:
    """An array "a" of bytes that declares a shape and a number of bytes, and holds none."""
    fields = [
        struct.pack("<IIII", 6, 8, 9, 0),
        struct.pack("<IIii", 5, 8, *shape),
        struct.pack("<II", 1, 1) + b"a".ljust(8, b"\0"),
        struct.pack("<II", 2, declared),
    ]
    body = b"".join(fields)
    return struct.pack("<II", 14, len(body)) + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MATLAB file"),
        (b"\x89HDF\r\n" + bytes(200), "not a MATLAB file"),
        (mat_of(), "no array 'a'; it has none"),
        (mat_of(packed(matrix((2**30, 2**30), 0))), "more than"),
        (mat_of(packed(matrix((4, 4), 2**32 - 8))), "cannot read"),
        (mat_of(matrix((4, 4), 16))[:-4], "cannot read"),
        (mat_of(struct.pack("<II", 15, 8) + b"no zlib!"), "cannot read"),
    ],
    ids=["empty", "7.3", "nothing", "vast shape", "vast content", "cut off", "not packed"],
)
def test_matlab_files_that_lie_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_mat(tmp_path / "a.mat", ("a",))


def test_a_matlab_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_UNPACKED_BYTES", 4 * 2**20)
    (tmp_path / "a.mat").write_bytes(mat_of(packed(bytes(64 * 2**20))))
    assert (tmp_path / "a.mat").stat().st_size < 2**17
    with pytest.raises(DatasetError, match="more than 4 MiB"):
        read_mat(tmp_path / "a.mat", ("a",))


def test_matlab_text_is_no_array(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"a": "text"})
    with pytest.raises(DatasetError, match="char"):
        read_mat(tmp_path / "a.mat", ("a",))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), "shape"),
        (np.array([[0.5]]), "fractions"),
        (np.array([[-1]]), "outside"),
        (np.array([[2**31]]), "outside"),
        (np.array([[np.nan]]), "outside"),
    ],
)
def test_what_cannot_be_ids_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        as_labels(array, "ids")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind))


def empty_png(side: int) -> bytes:
    """A PNG that claims side x side grey pixels and holds none."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    checked = b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + checked + chunk(b"IDAT", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [read_rgb, read_labels])
@pytest.mark.parametrize(
    ("side", "message"), [(60_000, "decompression bomb"), (12_000, "12000 x 12000")]
)
def test_a_picture_of_any_size_is_refused_before_memory_is_taken(
    tmp_path: Path, read, side: int, message: str
) -> None:
    (tmp_path / "a.png").write_bytes(empty_png(side))
    with pytest.raises(DatasetError, match=message):
        read(tmp_path / "a.png")


@pytest.mark.parametrize(("suffix", "read"), [("png", read_rgb), ("tif", read_labels)])
def test_the_largest_size_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, read
) -> None:
    Image.new("L", (5, 4)).save(tmp_path / f"a.{suffix}")
    assert read(tmp_path / f"a.{suffix}").shape[:2] == (4, 5)
    monkeypatch.setattr(files, "MAX_PIXELS", 19)
    with pytest.raises(DatasetError, match="at most 19"):
        read(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(
    ("folders", "names", "found"),
    [
        (["Labels"], ("labels",), "Labels"),
        (["a/b"], ("b",), "a/b"),
        (["b", "a/b"], ("b",), "b"),
        (["b/B"], ("b",), "b/B"),
        (["second", "first"], ("first", "second"), "first"),
        (["a/b/c"], ("c",), None),
    ],
    ids=["case", "below", "nearest", "twice", "order of names", "too deep"],
)
def test_folders_are_found(tmp_path: Path, folders: list, names: tuple, found: str | None) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert find_folder(tmp_path, *names) == (tmp_path / found if found else None)


@pytest.mark.parametrize(
    ("ending", "values", "expected"),
    [
        pytest.param("png", np.uint8([[0, 100, 255]]), [0, 100, 255], id="8 bits"),
        pytest.param("png", np.uint16([[0, 2048, 4095]]), [0, 128, 255], id="12 of 16 bits"),
        pytest.param("png", np.uint16([[0, 255, 65535]]), [0, 1, 255], id="16 bits"),
        pytest.param("tif", np.uint16([[0, 2048, 4095]]), [0, 128, 255], id="a TIFF"),
        pytest.param("tif", np.float32([[0, 0.5, 1]]), [0, 128, 255], id="floats"),
    ],
)
def test_deep_images_are_learnt_from_as_they_are_segmented(
    tmp_path: Path, ending: str, values: np.ndarray, expected: list[int]
) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(values).save(path)
    image = read_rgb(path)
    assert image.shape == (1, 3, 3) and image.dtype == np.uint8
    assert image[0, :, 0].tolist() == expected


def test_a_damaged_packed_label_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    labels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    tifffile.imwrite(path, labels, compression="zlib")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"cannot read the labels .*labels\.tif"):
        read_labels(path)
