"""The Export widget: what is written is what the layers hold now, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import LARGEST_ID, LabelClass, LabelNotes
from napari_coseg.formats.geojson import AREA
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.labels.measure import class_table
from napari_coseg.widgets.corrected import corrected_prediction, layer_notes

pytest_plugins = ["cases.widget_fixtures"]
RED, BLUE = LabelClass(1, "red", (200, 0, 0)), LabelClass(2, "blue", (0, 0, 200))
GLAND = LabelClass(1, "gland", (230, 159, 0))
LABELS = np.zeros((12, 16), np.int32)
LABELS[1:4, 1:5], LABELS[6:9, 3:6], LABELS[5:11, 9:15] = 1, 2, 7
REGIONS = (np.indices(LABELS.shape)[1] < 8).astype(np.uint8)
OF_LABELS = LabelNotes((RED, BLUE), class_table([2, 1, 1], [0.9, 0.6, 0.7], [1, 2, 5]))


def metadata(kind: str, *classes: LabelClass) -> dict[str, Any]:
    listed = [{"id": c.id, "name": c.name, "color": list(c.color)} for c in classes]
    about = {"kind": kind, "image": "biopsy", "classes": listed, "pixel_size_um": [0.5, 0.5]}
    return {"napari_coseg": {**about, "provenance": {"model": "discs", "axes": "YX"}}}


# ---------------------------------------------------------------------------------------------
# From labels to a prediction


def test_objects_are_measured_as_they_are_now() -> None:
    found = corrected_prediction(LABELS, REGIONS, (0.5, 0.5), OF_LABELS, LabelNotes((GLAND,)))
    table = found.instances.table.set_index("id")
    assert list(table.index) == [1, 2, 7]
    assert table["class"].tolist()[:2] == ["blue", "red"]
    assert table.loc[7, "class_id"] == 0
    assert np.isnan(table.loc[7, "class_probability"])
    assert table["area_um2"].tolist() == pytest.approx([3.0, 2.25, 9.0])
    assert table["region"].tolist()[0] == "gland"


def test_a_region_without_a_name_gets_a_plain_one() -> None:
    found = corrected_prediction(
        None, REGIONS * np.uint8(3), (0.5, 0.5), LabelNotes(), LabelNotes((GLAND,))
    )
    assert [entry.name for entry in found.semantic_classes] == ["gland", "region 3"]
    assert len(found.instances) == 0


@pytest.mark.parametrize(
    ("labels", "regions", "message"),
    [
        (None, None, "no labels to export"),
        (LABELS, REGIONS[:5], r"\(5, 16\).*\(12, 16\)"),
        (LABELS, np.full(LABELS.shape, 300), "expected 0 to 255"),
        (-LABELS, None, "from -7 to 0"),
        (np.where(LABELS == 7, LARGEST_ID + 1, LABELS), None, "renumber them"),
    ],
    ids=["nothing", "two images", "regions beyond 8 bits", "negative", "a huge id"],
)
def test_labels_that_cannot_be_written(labels, regions, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        corrected_prediction(labels, regions, (0.5, 0.5), LabelNotes(), LabelNotes())


@pytest.mark.parametrize("features", [None, pd.DataFrame({"index": [1], "size": [3]})])
def test_a_layer_painted_by_hand_has_no_classes(features: pd.DataFrame | None) -> None:
    notes = layer_notes({}, features)
    assert (notes.classes, notes.known) == ((), None)


# ---------------------------------------------------------------------------------------------
# The widget


@pytest.fixture
def widget(viewer: Any, worker: Any, tmp_path: Path) -> Any:
    from napari_coseg.widgets.export import ExportWidget

    viewer.add_image(np.zeros(LABELS.shape, np.uint8), name="biopsy")
    viewer.add_labels(REGIONS, name="biopsy regions", metadata=metadata("regions", GLAND))
    viewer.add_labels(
        LABELS.copy(),
        name="biopsy objects",
        metadata=metadata("objects", RED, BLUE),
        features=pd.DataFrame(
            {"index": [1, 2, 7], "class": ["blue", "red", "red"], "probability": [0.9, 0.6, 0.5]}
        ),
    )
    widget = ExportWidget(viewer, worker)
    widget.folder_edit.setText(str(tmp_path))
    yield widget
    widget.close()


@pytest.mark.gui
def test_corrected_labels_are_what_is_written(
    viewer: Any, widget: Any, qtbot: Any, tmp_path: Path
) -> None:
    from cases.widget_values import RUN_MS

    viewer.layers["biopsy objects"].fill((7, 4), 1)  # object 2 becomes a part of object 1
    for key, box in widget.formats.items():
        box.setChecked(key not in ("nifti", "stl", "ply", "dicom-seg"))
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    assert "2 objects" in widget.bar.text.text()
    written = {path.name for path in tmp_path.iterdir()}
    assert {"biopsy_objects.ome.tif", "biopsy.geojson", "biopsy_coco.json"} <= written
    assert "biopsy_objects.seg.nrrd" in written
    expected = np.where(LABELS == 2, 1, LABELS)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "biopsy_objects.ome.tif"), expected)
    back = read_geojson(tmp_path / "biopsy.geojson", shape=LABELS.shape)
    np.testing.assert_array_equal(back.instances.labels > 0, expected > 0)
    table = pd.read_csv(tmp_path / "biopsy_objects.csv")
    assert table["class"].tolist() == ["blue", "red"]
    assert table["area_um2"].tolist() == pytest.approx([5.25, 9.0])


@pytest.mark.gui
def test_of_an_image_segmented_in_part_that_part_is_shown(
    viewer: Any, widget: Any, qtbot: Any, tmp_path: Path
) -> None:
    import zarr

    from cases.widget_values import RUN_MS

    whole = np.arange(40 * 50, dtype=np.uint16).reshape(40, 50)
    viewer.layers["biopsy"].data = whole
    for name in ("biopsy objects", "biopsy regions"):
        ours = viewer.layers[name].metadata["napari_coseg"]
        ours["provenance"] = {"axes": "YX", "region_offset": [5, 9]}
    for key, box in widget.formats.items():
        box.setChecked(key in ("ome-zarr", "overlay"))
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    assert "2 files" in widget.bar.text.text()
    shown = zarr.open_group(tmp_path / "biopsy.ome.zarr", mode="r")["0"][:]
    rows, columns = LABELS.shape
    np.testing.assert_array_equal(shown, whole[5 : 5 + rows, 9 : 9 + columns])


@pytest.mark.gui
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, v: w.folder_edit.setText("/nowhere/at/all"), "not an existing folder"),
        (lambda w, v: w.name_edit.setText("a/b"), "cannot begin a file name"),
        (lambda w, v: [b.setChecked(False) for b in w.formats.values()], "No format is chosen"),
        (lambda w, v: v.layers.clear(), "There are no labels to export"),
        (
            lambda w, v: (v.layers.remove("biopsy"), w.formats["overlay"].setChecked(True)),
            "is not in the viewer, and overlay shows it",
        ),
    ],
    ids=["no folder", "a slash", "no format", "no labels", "no image"],
)
def test_what_cannot_be_done_is_reported(
    viewer: Any, widget: Any, notes: list[str], change: Any, message: str, tmp_path: Path
) -> None:
    change(widget, viewer)
    widget.bar.run_button.click()
    assert not widget.bar.is_busy
    assert len(notes) == 1
    assert message in notes[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.gui
@pytest.mark.parametrize(
    ("typed", "act", "name"),
    [
        ("mine", lambda w, v: v.add_points(), "mine"),
        ("mine", lambda w, v: v.layers.remove("biopsy"), "mine"),
        ("mine", lambda w, v: setattr(v.layers["biopsy objects"], "name", "nuclei"), "mine"),
        ("mine", lambda w, v: w.layers.objects_box.setCurrentText("other"), "other"),
        ("", lambda w, v: v.add_points(), "biopsy"),
        (None, lambda w, v: w.layers.objects_box.setCurrentText("other"), "other"),
    ],
    ids=["added", "removed", "renamed", "another", "emptied", "untouched"],
)
def test_a_typed_name_stays_while_the_layer_does(
    viewer: Any, widget: Any, typed: str | None, act: Any, name: str
) -> None:
    viewer.add_labels(LABELS.copy(), name="other")
    if typed is not None:
        widget.name_edit.setText(typed)
    act(widget, viewer)
    assert widget.name_edit.text() == name


@pytest.mark.gui
@pytest.mark.parametrize("kind", ["objects", "regions"])
def test_a_layer_that_is_renamed_is_exported_all_the_same(
    viewer: Any, widget: Any, kind: str
) -> None:
    layer = viewer.layers[f"biopsy {kind}"]
    layer.name = "mine"
    arrays = widget.request()[1]
    assert arrays["labels"] is viewer.layers[2].data
    assert arrays["regions"] is viewer.layers[1].data
    assert getattr(widget.layers, f"{kind}_box").currentText() == "mine"


@pytest.mark.gui
def test_existing_files_are_kept_unless_asked(
    widget: Any, notes: list[str], tmp_path: Path
) -> None:
    (tmp_path / "biopsy_objects.csv").write_text("mine")
    widget.bar.run_button.click()
    assert "already" in notes[0]
    assert (tmp_path / "biopsy_objects.csv").read_text() == "mine"


# ---------------------------------------------------------------------------------------------
# napari's own Save


@pytest.mark.gui
@pytest.mark.parametrize("names", [["biopsy objects"], ["biopsy regions", "biopsy objects"]])
def test_napari_saves_layers_as_geojson(
    viewer: Any, widget: Any, tmp_path: Path, names: list[str]
) -> None:
    from napari.components import LayerList
    from npe2 import PluginManager, PluginManifest

    plugins = PluginManager.instance()
    if "napari-coseg" not in plugins:
        plugins.register(PluginManifest.from_distribution("napari-coseg"))
    chosen = LayerList([viewer.layers[name] for name in names])
    path = tmp_path / "saved.geojson"
    assert chosen.save(str(path), plugin="napari-coseg") == [str(path)]
    back = read_geojson(path, shape=LABELS.shape)
    np.testing.assert_array_equal(back.instances.labels > 0, LABELS > 0)
    assert sorted(back.instances.table["class"]) == ["blue", "red", "red"]
    assert (back.semantic > 0).any() == (len(names) == 2)


@pytest.mark.parametrize(
    ("place", "area_um2"),
    [
        pytest.param({"scale": (0.5, 0.25), "units": ("um", "um")}, 1.5, id="um"),
        pytest.param({"scale": (5e-4, 2.5e-4), "units": ("mm", "mm")}, 1.5, id="mm"),
        pytest.param({"scale": (500, 250), "units": ("nm", "nm")}, 1.5, id="nm"),
        pytest.param({"scale": (0.5, 0.25)}, 1.5, id="a scale without unit, taken as um"),
        pytest.param({"scale": (1, 1), "units": ("um", "um")}, 12, id="1 um"),
        pytest.param({}, None, id="unknown"),
    ],
)
def test_areas_are_saved_in_the_units_of_the_layer(
    tmp_path: Path, place: dict[str, Any], area_um2: float | None
) -> None:
    from napari.layers import Labels

    from napari_coseg.widgets.saving import write_geojson

    path = tmp_path / "saved.geojson"
    layer = Labels(LABELS, name="mine", **place).as_layer_data_tuple()
    if area_um2 is None:
        with pytest.raises(ImageError, match="the pixel size of 'mine' is not known"):
            write_geojson(str(path), [layer])
        return
    write_geojson(str(path), [layer])
    (area, *_) = [
        value
        for feature in json.loads(path.read_text())["features"]
        for name, value in feature["properties"]["measurements"].items()
        if name == AREA
    ]
    assert area == pytest.approx(area_um2)


@pytest.mark.parametrize("count", [2, 3])
def test_two_layers_of_objects_are_not_one_image(tmp_path: Path, count: int) -> None:
    from napari_coseg.widgets.saving import write_geojson

    layer = (LABELS, {"name": "a", "metadata": metadata("objects", RED)}, "labels")
    with pytest.raises(ImageError, match="one layer of objects and one of regions"):
        write_geojson(str(tmp_path / "saved.geojson"), [layer] * count)
