"""What is written is what was found: labels, pixel size, classes; whole files or none."""

from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile

from napari_coseg.core.errors import OutputError, SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Image, Instances, LabelClass, Prediction
from napari_coseg.formats.overlay import draw
from napari_coseg.formats.registry import FORMATS, export, output_paths
from napari_coseg.images.readers.registry import read_image
from napari_coseg.labels.measure import (
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    class_table,
    object_table,
)

GLAND = LabelClass(1, "gland", (0, 200, 0))
TYPES = (LabelClass(1, "epithelial", (255, 0, 0)), LabelClass(2, "naïve, µ", (0, 0, 255)))
NAMES = ["a_regions.ome.tif", "a_objects.ome.tif", "a_objects.csv", "a_overlay.png"]


def prediction(labels, semantic=None, size=None, classes=TYPES, **provenance):
    semantic = (labels > 0).astype(np.uint8) if semantic is None else semantic
    size = size or (0.5, 0.25)
    count = int(labels.max(initial=0))
    known = class_table(np.arange(count) % 2 + 1) if classes else None
    table = object_table(
        labels,
        semantic,
        pixel_size_um=size,
        known=known,
        classes=classes,
        semantic_classes=(GLAND,),
    )
    return Prediction(semantic, (GLAND,), Instances(labels, table, classes), size, provenance)


def plane(shape=(40, 60)):
    labels = np.zeros(shape, np.int32)
    labels[5:15, 5:15], labels[20:30, 30:50] = 1, 2
    return labels


def many():
    labels = np.zeros((560, 600), np.int32)
    labels[::2, ::2] = np.arange(1, 280 * 300 + 1).reshape(280, 300)
    return labels


CASES = [
    pytest.param(plane(), (0.5, 0.25), id="plane"),
    pytest.param(np.stack([plane()] * 3), (2.0, 0.5, 0.25), id="stack"),
    pytest.param(many(), (1.0, 1.0), id="84,000 objects"),
    pytest.param(np.zeros((7, 9), np.int32), (0.5, 0.5), id="nothing"),
    pytest.param(np.ones((1, 1), np.int32), (0.5, 0.5), id="one pixel"),
]


def grey(labels):
    return Image(np.full(labels.shape, 200, np.uint8), "ZYX"[-labels.ndim :], name="a")


@pytest.mark.parametrize(("labels", "size"), CASES)
def test_labels_and_table_come_back_as_they_went(tmp_path, labels, size):
    found = prediction(labels, size=size, model="m", pixel_size_um=list(size))
    paths = export(found, grey(labels), tmp_path / "new" / "folder")
    assert [path.name for path in paths] == NAMES
    for path, expected in zip(paths, (found.semantic, labels), strict=False):
        image = read_image(path)
        np.testing.assert_array_equal(image.data, expected)
        assert image.data.dtype == expected.dtype
        assert image.pixel_size_um == pytest.approx(size)
        assert image.axes == "ZYX"[-labels.ndim :]
    table = pd.read_csv(paths[2])
    columns = STACK_OBJECT_COLUMNS if labels.ndim == 3 else OBJECT_COLUMNS
    axes = "zyx"[-labels.ndim :]
    worlds = tuple(f"world_{axis}_um" for axis in axes)
    assert tuple(table.columns) == columns + worlds
    pd.testing.assert_frame_equal(table[[*columns]], found.instances.table, check_dtype=False)
    for axis, name, um in zip(axes, worlds, size, strict=True):
        expected = table[f"centroid_{axis}"].to_numpy(float) * um
        np.testing.assert_allclose(table[name].to_numpy(float), expected)
    assert not [path for path in paths[0].parent.iterdir() if path.name not in NAMES]


def test_classes_and_provenance_stand_in_the_file(tmp_path):
    found = prediction(plane(), model="m", settings={"tile": 3})
    _, objects, *_ = export(found, grey(plane()), tmp_path)
    with tifffile.TiffFile(objects) as file:
        xml = tifffile.xml2dict(file.ome_metadata)["OME"]
    assert xml["Image"]["Name"] == "a objects"
    entries = xml["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    notes = {entry["K"]: entry["value"] for entry in entries}
    assert json.loads(notes["napari-coseg"]) == {"model": "m", "settings": {"tile": 3}}
    assert notes["class 2"] == "naïve, µ"
    assert notes["class 2 color"] == "#0000FF"


def test_the_overlay_shows_tint_outlines_and_legend():
    labels = plane((1100, 1100))
    semantic = np.zeros(labels.shape, np.uint8)
    semantic[:, 600:] = 1
    picture = draw(prediction(labels, semantic), grey(labels))
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (1100, 3)
    assert picture.shape[0] > 1100, "the legend stands below"
    assert picture[5, 5].tolist() == [255, 0, 0]
    assert picture[20, 30].tolist() == [0, 0, 255]
    assert picture[10, 10].tolist() == [200, 200, 200], "the inside of an object stays"
    assert picture[500, 800].tolist() == [140, 200, 140]
    assert len(np.unique(picture[1100:].reshape(-1, 3), axis=0)) > 3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((40, 60), (680, 1020)), ((2000, 1000), (2000, 1000)), ((100, 9000), (34, 3000))],
)
def test_the_overlay_has_a_size_to_look_at(shape, expected):
    labels = plane(shape)
    assert draw(prediction(labels), grey(labels)).shape[1] == expected[1]
    legend_free = draw(prediction(labels), grey(labels)).shape[0]
    assert expected[0] < legend_free < expected[0] + 120


def test_the_overlay_of_a_region_shows_that_part():
    image = np.full((1500, 1500), 10, np.uint8)
    image[100:, 200:] = 250
    found = prediction(np.zeros((1100, 1100), np.int32), region_offset=[100, 200])
    picture = draw(found, Image(image, "YX"))
    assert (picture[:1100] == 250).all()


def test_objects_without_classes_and_stacks_have_overlays_too():
    labels = np.stack([np.zeros((1100, 1100), np.int32), plane((1100, 1100))])
    picture = draw(prediction(labels, size=(1, 1, 1), classes=()), grey(labels))
    assert picture[5, 5].tolist() == [255, 235, 0], "the slice with objects is the one shown"


def test_existing_files_are_kept_unless_told(tmp_path):
    found, image = prediction(plane()), grey(plane())
    (tmp_path / "a_overlay.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a_overlay\.png already exists"):
        export(found, image, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a_overlay.png"]
    export(found, image, tmp_path, overwrite=True)
    assert PIL.Image.open(tmp_path / "a_overlay.png").size[0] == 1020


def test_a_write_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_half(tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


def write_half(path):
    with atomic_write(path) as passing:
        passing.write_text("half")
        raise OSError(28, "No space left on device")


@pytest.mark.skipif(os.name == "nt", reason="folders have no such rights there")
def test_a_folder_that_is_a_file_or_forbids_writing_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export(prediction(plane()), grey(plane()), tmp_path / "file")
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(OutputError, match="cannot be written"):
            export(prediction(plane()), grey(plane()), locked)


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(SettingsError, match="choose from ome-tiff, csv, overlay"):
        export(prediction(plane()), grey(plane()), tmp_path, ["pdf"])


def test_every_format_names_its_files():
    paths = output_paths(__import__("pathlib").Path("x"), "a", list(FORMATS))
    assert len({path.name for path in paths}) == len(paths) >= 4
