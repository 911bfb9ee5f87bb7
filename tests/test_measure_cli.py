"""`napari-coseg measure`: results of `segment`, other labels and workspaces as two tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile

from cases.export_cases import TOUCHING, grey, prediction
from napari_coseg.cli.main import main
from napari_coseg.core.types import Image
from napari_coseg.formats.registry import export
from napari_coseg.labels.measure.columns import COLUMNS, column
from napari_coseg.labels.measure.run import measure
from napari_coseg.workspace.folder import create_workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

WRITTEN = ("slide_measurements.csv", "slide_summary.csv")
COLOURS = np.random.default_rng(0).integers(0, 255, (*TOUCHING.shape, 3)).astype(np.uint8)


@pytest.fixture
def result(tmp_path):
    """A folder with an image and the results of `segment`."""
    found = prediction(TOUCHING)
    export(found, grey(TOUCHING, "slide"), tmp_path, ["ome-tiff", "csv"])
    PIL.Image.fromarray(COLOURS).save(tmp_path / "slide.png")
    return tmp_path, found


def tables(folder):
    return [pd.read_csv(folder / name) for name in WRITTEN]


@pytest.mark.parametrize("named", ["slide_objects.ome.tif", "slide_regions.ome.tif"])
def test_results_are_measured_with_their_image(result, named, capsys):
    folder, found = result
    assert main(["measure", str(folder / named)]) == 0
    expected = measure(found, Image(COLOURS, "YXC"))
    objects, summary = tables(folder)
    pd.testing.assert_frame_equal(objects, expected.objects, check_dtype=False)
    pd.testing.assert_frame_equal(summary, expected.summary, check_dtype=False)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "slide: 4 objects"
    titles = "Region Class Objects Per mm² Share Covered Of the image"
    assert printed[1].split() == titles.split()
    assert printed[-2:] == [str(folder / name) for name in WRITTEN]


def test_labels_of_other_software_need_no_regions_and_no_image(tmp_path, capsys):
    tifffile.imwrite(tmp_path / "slide.tif", TOUCHING.astype(np.uint16))
    labels = str(tmp_path / "slide.tif")
    options = ["--output-dir", str(tmp_path / "out"), "--intensity", "none"]
    assert main(["measure", labels, *options]) == 2
    assert "--pixel-size-um" in capsys.readouterr().err
    assert main(["measure", labels, *options, "--pixel-size-um", "2"]) == 0
    objects, summary = tables(tmp_path / "out")
    assert objects["area_um2"].tolist() == [16.0, 24.0, 16.0, 16.0]
    assert set(summary["region"]) == {"background", "all regions"}
    tifffile.imwrite(tmp_path / "where.tif", (TOUCHING > 2).astype(np.uint8) * 3)
    regions = ["--regions", str(tmp_path / "where.tif"), "--overwrite"]
    assert main(["measure", labels, *options, *regions, "--pixel-size-um", "2"]) == 0
    objects, summary = tables(tmp_path / "out")
    assert objects["region_id"].tolist() == [0, 0, 3, 3]


def test_without_an_image_intensities_are_skipped_with_a_warning(result, capsys):
    folder, _ = result
    (folder / "slide.png").unlink()
    assert main(["measure", str(folder / "slide_objects.ome.tif")]) == 0
    assert "no intensities are measured" in capsys.readouterr().err
    assert not [name for name in tables(folder)[0] if name.endswith("_mean")]


def regions_of(folder, values):
    tifffile.imwrite(folder / "r.tif", values)
    return ["--regions", str(folder / "r.tif")]


MISTAKES = [
    pytest.param(lambda f: ["--regions", str(f / "no.tif")], "no label file", id="no regions"),
    pytest.param(
        lambda f: regions_of(f, np.full(TOUCHING.shape, 300, np.uint16)),
        "expected 0 to 255",
        id="regions beyond 8 bits",
    ),
    pytest.param(
        lambda f: regions_of(f, np.zeros((9, 9), np.uint8)),
        "not of the same image",
        id="other regions",
    ),
    pytest.param(lambda f: ["--image", str(f / "no.tif")], "there is no image", id="no image"),
    pytest.param(lambda f: ["--pixel-size-um", "-1"], "pixel size", id="negative size"),
    pytest.param(
        lambda f: [str(f / "b.tif"), "--image", str(f / "slide.png")],
        "is for the labels of one image",
        id="one image for two",
    ),
    pytest.param(lambda f: ["--image", str(f / "b.tif")], "made of", id="an image of another size"),
    pytest.param(
        lambda f: ["--image", str(f / "slide_objects.ome.tif"), "--intensity", "he"],
        "measure its channels",
        id="stains of grey",
    ),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES)
def test_user_errors_are_one_line(result, capsys, options, message):
    folder, _ = result
    tifffile.imwrite(folder / "b.tif", np.ones((3, 3), np.uint8))
    arguments = ["measure", str(folder / "slide_objects.ome.tif"), *options(folder)]
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert len([line for line in printed.splitlines() if "%" not in line]) == 1
    assert not any((folder / name).exists() for name in WRITTEN)


def test_existing_tables_are_kept_without_overwrite(result, capsys):
    folder, _ = result
    (folder / WRITTEN[1]).write_text("mine")
    labels = str(folder / "slide_objects.ome.tif")
    assert main(["measure", labels]) == 2
    assert "already exists" in capsys.readouterr().err
    assert (folder / WRITTEN[1]).read_text() == "mine"
    assert not (folder / WRITTEN[0]).exists()
    assert main(["measure", labels, "--overwrite"]) == 0


# ---------------------------------------------------------------------------------------------
# Workspaces


@pytest.fixture
def workspace(tmp_path):
    """A workspace of labels on a part of a colour image beside it."""
    offset, whole = (3, 2), np.zeros((20, 20, 3), np.uint8)
    whole[3 : 3 + TOUCHING.shape[0], 2 : 2 + TOUCHING.shape[1]] = COLOURS
    PIL.Image.fromarray(whole).save(tmp_path / "slide.png")
    found = prediction(TOUCHING)
    saved = Saved(dataclasses.replace(found, provenance={"region_offset": list(offset)}))
    path = tmp_path / "mine.coseg"
    with create_workspace(path) as made:
        image = Image(whole, "YXC", found.pixel_size_um, "slide")
        made.add(reference_of(image, tmp_path / "slide.png", path), saved)
    return path, found


def test_a_workspace_is_measured_with_its_corrections(workspace):
    path, found = workspace
    assert main(["measure", str(path)]) == 0
    geometry = found.geometry.crop((3, 2))
    expected = measure(dataclasses.replace(found, geometry=geometry), Image(COLOURS, "YXC"))
    objects, summary = tables(path.parent)
    pd.testing.assert_frame_equal(objects, expected.objects, check_dtype=False)
    pd.testing.assert_frame_equal(summary, expected.summary, check_dtype=False)


def test_a_workspace_without_its_image_is_measured_without_intensities(workspace, capsys):
    path, found = workspace
    (path.parent / "slide.png").unlink()
    assert main(["measure", str(path)]) == 0
    assert "no intensities are measured" in capsys.readouterr().err
    assert len(tables(path.parent)[0]) == len(found.instances)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pixel-size-um", "1"], "has its own"),
        (["--image", "a.png"], "is for the labels of one image"),
    ],
)
def test_a_workspace_has_its_own_image_and_pixel_size(workspace, capsys, options, message):
    assert main(["measure", str(workspace[0]), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_workspace_is_an_error(tmp_path, capsys):
    assert main(["measure", str(tmp_path)]) == 2
    assert "is no workspace" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# Words for columns


@pytest.mark.parametrize("shape", ["plane", "stack"])
def test_every_column_but_boxes_has_a_description(shape):
    labels = TOUCHING if shape == "plane" else np.stack([TOUCHING] * 2)
    found = measure(prediction(labels))
    names = {*found.objects, *found.summary}
    assert not {name for name in names if not name.startswith("bbox")} - set(COLUMNS)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("area_um2", "Area (µm²)"),
        ("class", "Class"),
        ("hematoxylin_od_mean", "Hematoxylin mean (OD)"),
        ("channel_2_std", "Channel 2 std"),
        ("something_new", "Something new"),
    ],
)
def test_titles(name, title):
    assert column(name).title == title
