"""OME-Zarr read back: the same labels, classes and sizes; folders from strangers are refused."""

from __future__ import annotations

import json

import numcodecs
import numpy as np
import pandas as pd
import pytest
import zarr

from cases.export_cases import IDS_OVER_65535, PLANES, STACK, TOUCHING, drawn, grey, prediction
from napari_coseg.core.errors import ImageError
from napari_coseg.formats import read_ome_zarr as reading
from napari_coseg.formats.ome_zarr import OURS
from napari_coseg.formats.read_ome_zarr import read_ome_zarr
from napari_coseg.formats.registry import export


def written(folder, labels, **options):
    found = prediction(labels, **options)
    (path,) = export(found, grey(labels), folder, ["ome-zarr"])
    return found, path


@pytest.mark.parametrize("labels", [*PLANES, IDS_OVER_65535, STACK])
def test_what_was_written_comes_back(tmp_path, labels):
    found, path = written(tmp_path, labels, weights={"sha256": "ab", "settings": {"tta": [1.5]}})
    read = read_ome_zarr(path)
    np.testing.assert_array_equal(read.instances.labels, labels)
    np.testing.assert_array_equal(read.semantic, found.semantic)
    assert (read.instances.labels.dtype, read.semantic.dtype) == (np.int32, np.uint8)
    assert read.pixel_size_um == found.pixel_size_um
    assert read.semantic_classes == found.semantic_classes
    assert read.instances.classes == found.instances.classes
    assert (
        read.provenance
        == found.provenance
        == {"weights": {"sha256": "ab", "settings": {"tta": [1.5]}}}
    )
    pd.testing.assert_frame_equal(read.instances.table, found.instances.table)


def test_labels_without_classes_come_back_without(tmp_path):
    _, path = written(tmp_path, TOUCHING, classes=(), regions=())
    read = read_ome_zarr(path, regions=None)
    assert read.instances.classes == read.semantic_classes == ()
    assert not read.semantic.any()
    assert set(read.instances.table["class"]) == {"object"}


def test_labels_of_others_are_read_by_name(tmp_path):
    """Of any type of whole numbers, with another unit, and with nothing said of their values."""
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group = root.create_group("labels")
    group.attrs["labels"] = ["cells", "tissue"]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "yx"]
    steps = [{"type": "scale", "scale": [500, 250]}]
    for name, dtype in (("cells", np.uint64), ("tissue", np.int16)):
        inner = group.create_group(name)
        levels = [{"path": "0", "coordinateTransformations": steps}]
        inner.attrs["multiscales"] = [{"axes": axes, "datasets": levels}]
        inner.create_array("0", data=drawn("11..", ".522").astype(dtype))
    read = read_ome_zarr(tmp_path / "a.zarr", objects="cells", regions="tissue")
    assert read.pixel_size_um == (0.5, 0.25)
    assert read.instances.table["id"].tolist() == [1, 2, 5]
    assert [(e.id, e.name) for e in read.semantic_classes] == [(1, "1"), (2, "2"), (5, "5")]
    with pytest.raises(ImageError, match=r"no labels 'objects' \(it has cells, tissue\)"):
        read_ome_zarr(tmp_path / "a.zarr")


# ---------------------------------------------------------------------------------------------
# Folders from strangers


def changed(file, **values):
    content = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**content, **values}), "utf-8")


HEADERS = [
    pytest.param({"shape": [2**20, 2**20]}, "at most", id="more pixels than memory has"),
    pytest.param({"chunks": [2**20, 2**20]}, "a chunk", id="a chunk larger than memory"),
    pytest.param({"shape": [3, 5, 1]}, "2 axes", id="an axis more than are named"),
    pytest.param({"shape": [-3, 5]}, "2 axes", id="a negative side"),
    pytest.param({"chunks": [0, 5]}, "2 axes", id="empty chunks"),
    pytest.param({"shape": "3, 5"}, "cannot be understood", id="a shape that is none"),
    pytest.param({"dtype": "<f4"}, "whole numbers", id="floats"),
    pytest.param({"dtype": "|O"}, "whole numbers", id="Python's objects"),
    pytest.param({"filters": [{"id": "pickle"}]}, "without filters", id="a filter that runs code"),
    pytest.param({"compressor": {"id": "pickle"}}, "read are blosc", id="a codec that runs code"),
    pytest.param({"compressor": []}, "cannot be understood", id="a codec that is none"),
]


@pytest.mark.parametrize(("values", "message"), HEADERS)
def test_an_array_that_cannot_be_right_is_refused_before_it_is_read(
    tmp_path, monkeypatch, values, message
):
    _, path = written(tmp_path, TOUCHING)
    changed(path / "labels" / "objects" / "0" / ".zarray", **values)
    monkeypatch.setattr(zarr, "open_array", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ImageError, match=message):
        read_ome_zarr(path)


CODECS = {
    "blosc": numcodecs.Blosc("zstd"),
    "zlib": numcodecs.Zlib(),
    "gzip": numcodecs.GZip(),
    "zstd": numcodecs.Zstd(),
    "lz4": numcodecs.LZ4(),
    "stored": None,
}


def packed_anew(path, codec, unpacked=None):
    """The first chunk of objects written with a codec; of other bytes where they are given."""
    folder = path / "labels" / "objects" / "0"
    bytes_of = json.loads((folder / ".zarray").read_text())
    chunk = np.zeros(bytes_of["chunks"], bytes_of["dtype"])
    chunk[: TOUCHING.shape[0], : TOUCHING.shape[1]] = TOUCHING
    unpacked = chunk.tobytes() if unpacked is None else unpacked
    changed(folder / ".zarray", compressor=codec and codec.get_config())
    (folder / "0" / "0").write_bytes(codec.encode(unpacked) if codec else unpacked)
    return folder / "0" / "0"


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_chunks_of_every_codec_are_read(tmp_path, codec):
    _, path = written(tmp_path, TOUCHING)
    packed_anew(path, codec)
    np.testing.assert_array_equal(read_ome_zarr(path).instances.labels, TOUCHING)


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
def test_chunks_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch, codec):
    _, path = written(tmp_path, TOUCHING)
    file = packed_anew(path, codec, bytes(3_000_000))
    changed(path / "labels" / "objects" / "0" / ".zarray", chunks=[64, 64])
    monkeypatch.setattr(zarr, "open_array", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(ImageError, match=r"unpacks to more than the 16,384 bytes") as reported:
        read_ome_zarr(path)
    assert str(file) in str(reported.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(bytes.fromhex("28b52ffd0058010000"), "does not say how much", id="a stream"),
        pytest.param(b"", "does not say how much", id="nothing"),
        pytest.param(None, "is a link", id="a link"),
    ],
)
def test_chunks_that_do_not_say_their_size_are_refused(tmp_path, content, message):
    _, path = written(tmp_path, TOUCHING)
    file = packed_anew(path, CODECS["zstd"])
    if content is None:
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_ome_zarr(path)


def scales(scale, axes="yx", level="0"):
    entry = {
        "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in axes],
        "datasets": [
            {"path": level, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ],
    }
    return {"multiscales": [entry]}


def ours(*classes):
    return {OURS: {"classes": [{"color": [1, 2, 3], **entry} for entry in classes]}}


NOTES = [
    pytest.param({"multiscales": []}, "cannot be understood", id="no levels"),
    pytest.param(scales([0.5, 0.25], "cyx"), "its axes are", id="axes of an image"),
    pytest.param(scales([0, 0.25]), "have the size", id="pixels without a size"),
    pytest.param(scales([1.0]), "cannot be understood", id="a size too few"),
    pytest.param(scales([1, 1], level="../regions/0"), "folder within", id="pixels elsewhere"),
    pytest.param({"image-label": {"properties": [{}]}}, "label-value", id="a note on nothing"),
    pytest.param(
        {"image-label": {"properties": [{"label-value": 1, "class_id": 4000}]}},
        "beyond 0 to 255",
        id="a class of a large number",
    ),
    pytest.param({OURS: []}, "cannot be understood", id="classes of another kind"),
    pytest.param({OURS: {"provenance": 3}}, "cannot be understood", id="provenance that is none"),
    pytest.param(ours({"id": 4000, "name": "a"}), "ids are 1 to 255", id="a class id too large"),
    pytest.param(ours({"id": "1", "name": "a"}), "ids are 1 to 255", id="a class id that is text"),
    pytest.param(ours({"id": 1, "name": [1]}), "ids are 1 to 255", id="a name that is none"),
    pytest.param(
        ours({"id": 1, "name": "a"}, {"id": 1, "name": "b"}), "named twice", id="a class twice"
    ),
    pytest.param(
        {"image-label": {"colors": [{"label-value": 1, "rgba": [300, 0, 0, 0]}]}},
        "a colour has parts",
        id="a colour that is none",
    ),
]


@pytest.mark.parametrize(("values", "message"), NOTES)
def test_notes_that_cannot_be_right_are_refused(tmp_path, values, message):
    _, path = written(tmp_path, TOUCHING)
    changed(path / "labels" / "objects" / ".zattrs", **values)
    with pytest.raises(ImageError, match=message):
        read_ome_zarr(path)


def test_names_that_lead_out_of_the_folder_are_not_offered(tmp_path):
    _, path = written(tmp_path, TOUCHING)
    changed(path / "labels" / ".zattrs", labels=["../objects", "..", "/etc", "regions"])
    with pytest.raises(ImageError, match=r"\(it has regions\)"):
        read_ome_zarr(path, objects="../objects")


def test_values_beyond_what_is_read_are_refused(tmp_path, monkeypatch):
    _, path = written(tmp_path, TOUCHING)
    monkeypatch.setattr(reading, "LARGEST_ID", 3)
    with pytest.raises(ImageError, match="values from 0 to 4; expected 0 to 3"):
        read_ome_zarr(path)


def test_a_large_file_of_notes_is_not_parsed(tmp_path, monkeypatch):
    _, path = written(tmp_path, TOUCHING)
    monkeypatch.setattr(reading, "MAX_JSON_BYTES", 100)
    with pytest.raises(ImageError, match="at most 0 are read"):
        read_ome_zarr(path)


@pytest.mark.parametrize("what", ["nothing", "no labels", "no JSON", "a broken chunk"])
def test_what_is_no_ome_zarr_is_told(tmp_path, what):
    _, path = written(tmp_path, TOUCHING)
    if what == "nothing":
        path = tmp_path / "b.zarr"
    elif what == "no labels":
        (path / "labels" / ".zattrs").unlink()
    elif what == "no JSON":
        (path / "labels" / ".zattrs").write_text("[")
    else:
        (path / "labels" / "objects" / "0" / "0" / "0").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"cannot be read|cannot read|is not JSON"):
        read_ome_zarr(path)


def whole(tmp_path):
    labels = np.zeros((600, 1100), np.int32)
    labels[5:9, 5:9], labels[5:9, 1050:1055], labels[550:560, 10:20] = 1, 2, 3
    return written(tmp_path, labels)[1], labels


@pytest.mark.parametrize("name", ["objects", "regions"])
@pytest.mark.parametrize("chunk", ["0/0", "0/1", "1/2"])
def test_a_chunk_that_was_lost_is_told(tmp_path, name, chunk):
    path, labels = whole(tmp_path)
    np.testing.assert_array_equal(read_ome_zarr(path).instances.labels, labels)
    (path / "labels" / name / "0" / chunk).unlink()
    with pytest.raises(ImageError, match="lacks 1 of its 6 chunks"):
        read_ome_zarr(path)


def test_objects_without_a_pixel_are_told_of_folders_that_keep_no_empty_chunks(tmp_path):
    path, _ = whole(tmp_path)
    notes = path / "labels" / "objects" / ".zattrs"
    content = json.loads(notes.read_text("utf-8"))
    del content[OURS]["every_chunk_is_written"]
    notes.write_text(json.dumps(content), "utf-8")
    (path / "labels" / "objects" / "0" / "0" / "1").unlink()
    assert read_ome_zarr(path).instances.table["id"].tolist() == [1, 2, 3]
    (path / "labels" / "objects" / "0" / "0" / "2").unlink()
    with pytest.warns(UserWarning, match="1 of 3 objects that are described have no pixel"):
        assert read_ome_zarr(path).instances.table["id"].tolist() == [1, 3]
