"""`napari-coseg export`: results of `segment` and other labels in other formats."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile
import zarr

from cases.export_cases import TOUCHING, TYPES, grey, prediction
from napari_coseg.cli.main import main
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.formats.registry import export
from napari_coseg.labels.measure import with_positions


@pytest.fixture
def result(tmp_path):
    """A folder with an image and the results of `segment`."""
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
def test_results_become_geojson_whichever_file_is_given(result, names, capsys):
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


def test_a_table_of_other_objects_is_ignored_with_a_warning(result, capsys):
    folder, found = result
    found.instances.table.iloc[:2].to_csv(folder / "slide_objects.csv", index=False)
    assert main(["export", str(folder / "slide_objects.ome.tif"), "--format", "csv-regions"]) == 0
    assert "lists other objects" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# How large a pixel is, and what a table says


def exported(folder, named, kind, *options):
    """Results of one format, written to a folder of their own."""
    arguments = ["export", str(folder / named), "--format", kind, *options]
    assert main([*arguments, "--output-dir", str(folder / "out"), "--overwrite"]) == 0
    return folder / "out"


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        pytest.param(None, True, id="the whole table"),
        pytest.param(["id", "class_id", "class_probability"], True, id="three columns"),
        pytest.param([], False, id="no table"),
    ],
)
@pytest.mark.parametrize("size", [(), (1.0, 1.0)], ids=["the file's size", "a given size"])
def test_rows_fit_the_pixel_size_and_keep_their_classes(result, columns, kept, size):
    folder, found = result
    rows = folder / "slide_objects.csv"
    if columns == []:
        rows.unlink()
    elif columns:
        found.instances.table[columns].iloc[::-1].to_csv(rows, index=False)
    given = [f"--pixel-size-um={','.join(map(str, size))}"] if size else []
    table = pd.read_csv(
        exported(folder, "slide_objects.ome.tif", "csv", *given) / "slide_objects.csv"
    )
    made = prediction(TOUCHING, size=size or None)
    expected = with_positions(made.instances.table, made.geometry)
    measured = [name for name in expected if not name.startswith("class")]
    pd.testing.assert_frame_equal(table[measured], expected[measured], check_dtype=False)
    if kept:
        pd.testing.assert_frame_equal(table, expected, check_dtype=False)
    regions = exported(folder, "slide_objects.ome.tif", "csv-regions", *given)
    pixel = float(np.prod(size or found.pixel_size_um))
    areas = pd.read_csv(regions / "slide_regions.csv")["area_um2"]
    assert areas.tolist() == [np.count_nonzero(found.semantic == i) * pixel for i in range(3)]


def test_classes_named_only_in_the_table_keep_their_names(tmp_path):
    tifffile.imwrite(tmp_path / "cells.tif", TOUCHING.astype(np.uint16))
    (tmp_path / "cells_objects.csv").write_text(
        "id,class_id,class,class_probability\n1,3,round,0.5\n2,0,object,\n3,,,\n4,9,9,1\n"
    )
    folder = exported(tmp_path, "cells.tif", "geojson", "--pixel-size-um", "1")
    found = read_geojson(folder / "cells.geojson").instances
    assert {entry.id: entry.name for entry in found.classes} == {3: "round", 9: "9"}
    assert found.table["class"].tolist() == ["round", "object", "object", "9"]


@pytest.mark.parametrize(
    "text",
    ["id,class_id,class_probability\n1,round,1\n2,1,1\n3,1,1\n4,1,1\n"],
    ids=["class in words"],
)
def test_tables_with_other_values_than_numbers_are_an_error(result, capsys, text):
    (result[0] / "slide_objects.csv").write_text(text)
    assert main(["export", str(result[0] / "slide_objects.ome.tif"), "--format", "coco"]) == 2
    assert "slide_objects.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "options", "expected"),
    [
        pytest.param(True, [], (0.5, 0.25), id="what the file says goes before the image"),
        pytest.param(True, ["--pixel-size-um", "2"], (2, 2), id="a given size goes before all"),
        pytest.param(False, [], (3, 3), id="the image's where the file says none"),
    ],
)
def test_pixel_size_of_outlines(result, header, options, expected):
    folder, _ = result
    (folder / "slide.png").unlink()
    tifffile.imwrite(
        folder / "slide.ome.tif",
        np.zeros(TOUCHING.shape, np.uint8),
        metadata={"axes": "YX", "PhysicalSizeX": 3, "PhysicalSizeY": 3},
    )
    source = exported(folder, "slide_objects.ome.tif", "geojson") / "slide.geojson"
    content = json.loads(source.read_text("utf-8"))
    if not header:
        content = {"type": "FeatureCollection", "features": content["features"][1:]}
    (folder / "slide.geojson").write_text(json.dumps(content))
    table = exported(folder, "slide.geojson", "csv", *options) / "slide_objects.csv"
    pixels = pd.read_csv(table)["area_um2"] / np.prod(expected)
    assert pixels.tolist() == np.bincount(TOUCHING.ravel())[1:].tolist()


def labels_named(folder, name, data):
    path = folder / name
    if name.endswith(".tif"):
        tifffile.imwrite(path, data)
    else:
        path.write_text(data)
    return path


MISTAKES = [
    pytest.param("gone.tif", None, "there is no label file", id="no file"),
    pytest.param(
        "a.tif", np.zeros((3, 3), np.float32), "one integer per pixel", id="probabilities"
    ),
    pytest.param("a.tif", np.full((3, 3), -1, np.int16), "values from -1", id="negative"),
    pytest.param("a.tif", np.full((3, 3), 2**31, np.uint32), "values from", id="too large"),
    pytest.param("a_objects.csv", "id", "is a table", id="table"),
    pytest.param("a.geojson", "{", "not GeoJSON", id="broken outlines"),
]


@pytest.mark.parametrize(("name", "data", "message"), MISTAKES)
def test_user_errors_are_one_line(tmp_path, capsys, name, data, message):
    path = tmp_path / name if data is None else labels_named(tmp_path, name, data)
    assert main(["export", str(path), "--format", "geojson", "--pixel-size-um", "1"]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


@pytest.mark.parametrize("size", ["0", "-1", "nan", "1,2,3"])
def test_invalid_pixel_sizes_are_an_error(result, capsys, size):
    labels = str(result[0] / "slide_objects.ome.tif")
    arguments = ["export", labels, "--format", "geojson", f"--pixel-size-um={size}"]
    assert main(arguments) == 2
    assert "2 axes and a pixel size of" in capsys.readouterr().err


def test_formats_that_show_the_image_require_it(result, capsys):
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
    assert "already exists" in capsys.readouterr().err
    assert main(["export", labels, "--format", "csv", "--overwrite"]) == 0


# ---------------------------------------------------------------------------------------------
# Files that would be one another's


TWINS = [
    pytest.param(["a/t.tif", "a/t.npy"], [], id="two files of one stem"),
    pytest.param(["a/t.tif", "b/t.tif"], ["--output-dir", "out"], id="two folders into one"),
    pytest.param(["a/t.tif", "a/t.geojson"], [], id="labels and outlines"),
    pytest.param(["a/t.tif", "a/t_objects.ome.tif"], [], id="labels of two names"),
]


@pytest.mark.parametrize("command", ["export", "measure"])
@pytest.mark.parametrize(("names", "options"), TWINS)
def test_labels_that_would_write_the_same_files_are_refused(
    tmp_path, monkeypatch, capsys, command, names, options
):
    monkeypatch.chdir(tmp_path)
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"is not read")
    more = ["--format", "geojson"] if command == "export" else ["--intensity", "none"]
    assert main([command, *names, *options, *more, "--overwrite"]) == 2
    printed = capsys.readouterr().err
    assert "'t'" in printed and "the same files" in printed and "--output-dir" in printed


def test_the_files_of_one_image_are_one_result(result):
    folder, _ = result
    names = ["slide_objects.ome.tif", "slide_regions.ome.tif", "slide_objects.ome.tif"]
    files = [str(folder / name) for name in names]
    assert main(["export", *files, "--format", "geojson"]) == 0


@pytest.mark.parametrize("shape", [(3, 3), (9, 9), (2, 4, 5)], ids=["smaller", "larger", "a stack"])
@pytest.mark.parametrize("kind", ["overlay", "ome-zarr"])
def test_an_image_of_another_shape_is_an_error(result, capsys, kind, shape):
    folder, _ = result
    tifffile.imwrite(folder / "other.tif", np.zeros(shape, np.uint8))
    labels, other = str(folder / "slide_objects.ome.tif"), str(folder / "other.tif")
    assert main(["export", labels, "--format", kind, "--image", other]) == 2
    assert "do not belong together" in capsys.readouterr().err
