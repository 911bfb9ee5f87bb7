"""`napari-coseg export`: what `segment` wrote, or labels from elsewhere, in other formats."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile
import zarr

from export_cases import TOUCHING, TYPES, grey, prediction
from napari_coseg.cli.main import main
from napari_coseg.export.read_geojson import read_geojson
from napari_coseg.export.registry import export


@pytest.fixture
def result(tmp_path):
    """The folder that `segment` leaves beside an image."""
    found = prediction(TOUCHING, model="m")
    export(found, grey(TOUCHING, "slide"), tmp_path, ["ome-tiff", "csv"])
    PIL.Image.fromarray(np.full((*TOUCHING.shape, 3), 7, np.uint8)).save(tmp_path / "slide.png")
    return tmp_path, found


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["slide_objects.ome.tif"], id="objects"),
        pytest.param(["slide_regions.ome.tif"], id="regions"),
        pytest.param(["slide_objects.ome.tif", "slide_regions.ome.tif"], id="both"),
    ],
)
def test_what_segment_wrote_becomes_geojson_whichever_file_is_named(result, names, capsys):
    folder, found = result
    files = [str(folder / name) for name in names]
    assert main(["export", *files, "--format", "geojson"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split() == [str(folder / "slide.geojson")] and not printed.err
    back = read_geojson(folder / "slide.geojson")
    np.testing.assert_array_equal(back.instances.labels, TOUCHING)
    np.testing.assert_array_equal(back.semantic, found.semantic)
    assert back.instances.classes == TYPES
    assert back.provenance == {"model": "m"}
    expected = found.instances.table
    pd.testing.assert_frame_equal(back.instances.table, expected, check_dtype=False)


def test_many_formats_at_once_into_another_folder(result, capsys):
    folder, _ = result
    options = ["--output-dir", str(folder / "out"), "--format"]
    kinds = ["ome-zarr", "coco", "csv-regions", "overlay", "coco"]
    arguments = " --format ".join(kinds).split()
    assert main(["export", str(folder / "slide_objects.ome.tif"), *options, *arguments]) == 0
    names = ["slide.ome.zarr", "slide_coco.json", "slide_regions.csv", "slide_overlay.png"]
    assert capsys.readouterr().out.split() == [str(folder / "out" / name) for name in names]
    root = zarr.open_group(folder / "out" / "slide.ome.zarr", mode="r")
    assert (root["0"][:] == 7).all(), "the image was found beside its labels"


def test_geojson_corrected_in_qupath_becomes_labels_again(result, capsys):
    folder, found = result
    assert main(["export", str(folder / "slide_objects.ome.tif"), "--format", "geojson"]) == 0
    path = folder / "slide.geojson"
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({"type": "FeatureCollection", "features": content["features"][1:]}))
    arguments = [str(path), "--format", "ome-tiff", "--output-dir", str(folder / "back")]
    assert main(["export", *arguments]) == 2
    assert "pixels are" in capsys.readouterr().err
    assert main(["export", *arguments, "--pixel-size-um", "0.5,0.25"]) == 0
    labels = tifffile.imread(folder / "back" / "slide_objects.ome.tif")
    np.testing.assert_array_equal(labels, found.instances.labels)


def test_labels_of_other_software_need_no_table(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "masks.tif", TOUCHING.astype(np.uint16))
    arguments = ["export", str(tmp_path / "masks.tif"), "--format", "geojson"]
    assert main(arguments) == 2
    assert "--pixel-size-um" in capsys.readouterr().err
    assert main([*arguments, "--pixel-size-um", "0.5"]) == 0
    back = read_geojson(tmp_path / "masks.geojson")
    np.testing.assert_array_equal(back.instances.labels, TOUCHING)
    assert back.pixel_size_um == (0.5, 0.5)
    assert set(back.instances.table["class"]) == {"object"}


def test_a_table_of_other_objects_is_not_used_and_that_is_told(result, capsys):
    folder, found = result
    found.instances.table.iloc[:2].to_csv(folder / "slide_objects.csv", index=False)
    assert main(["export", str(folder / "slide_objects.ome.tif"), "--format", "csv-regions"]) == 0
    assert "lists other objects" in capsys.readouterr().err


def labels_named(folder, name, data):
    path = folder / name
    if name.endswith(".tif"):
        tifffile.imwrite(path, data)
    else:
        path.write_text(data)
    return path


MISTAKES = [
    pytest.param("gone.tif", None, "there is no file of labels", id="no file"),
    pytest.param("a.tif", np.zeros((3, 3), np.float32), "whole number", id="probabilities"),
    pytest.param("a.tif", np.full((3, 3), -1, np.int16), "values from -1", id="negative"),
    pytest.param("a.tif", np.full((3, 3), 2**31, np.uint32), "values from", id="too large"),
    pytest.param("a_objects.csv", "id", "is a table", id="table"),
    pytest.param("a.geojson", "{", "not GeoJSON", id="broken outlines"),
]


@pytest.mark.parametrize(("name", "data", "message"), MISTAKES)
def test_mistakes_are_one_line(tmp_path, capsys, name, data, message):
    path = tmp_path / name if data is None else labels_named(tmp_path, name, data)
    assert main(["export", str(path), "--format", "geojson", "--pixel-size-um", "1"]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


@pytest.mark.parametrize("size", ["0", "-1", "nan", "1,2,3"])
def test_pixel_sizes_that_cannot_be_are_refused(result, capsys, size):
    labels = str(result[0] / "slide_objects.ome.tif")
    arguments = ["export", labels, "--format", "geojson", f"--pixel-size-um={size}"]
    assert main(arguments) == 2
    assert "2 axes and a pixel size of" in capsys.readouterr().err


def test_formats_that_show_the_image_ask_for_it(result, capsys):
    folder, _ = result
    (folder / "slide.png").rename(folder / "other.png")
    arguments = ["export", str(folder / "slide_objects.ome.tif"), "--format", "ome-zarr"]
    assert main(arguments) == 2
    assert "give it by --image" in capsys.readouterr().err
    assert main([*arguments, "--image", str(folder / "other.png")]) == 0


def test_unknown_formats_and_existing_files_are_refused(result, capsys):
    folder, _ = result
    labels = str(folder / "slide_objects.ome.tif")
    assert main(["export", labels, "--format", "shp"]) == 2
    assert "choose from" in capsys.readouterr().err
    assert main(["export", labels, "--format", "csv"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["export", labels, "--format", "csv", "--overwrite"]) == 0
