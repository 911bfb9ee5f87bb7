"""Layers and geometries: what napari shows, what comes back, and where labels end up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.layers._source import layer_source

from cases.dicom_phantoms import write_series
from cases.placed_volumes import CROP, PLACED, TOLERANCE_MM, centroid_ras, model, phantom
from cases.widget_values import RUN_MS
from napari_coseg.core.geometry import Geometry, ImageSource
from napari_coseg.core.types import Image
from napari_coseg.images.readers.registry import read_image
from napari_coseg.inference.run import segment
from napari_coseg.models.checkpoints import native
from napari_coseg.widgets import geometry as placing
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.labelled_image import image_of
from napari_coseg.widgets.workspace import layers as kept
from napari_coseg.workspace.folder import create_workspace

pytest_plugins = ["cases.widget_fixtures"]
UM, MM = "micrometer", "millimeter"


def turned(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


TILTED = np.eye(3)
TILTED[:2, :2] = turned(25)
GEOMETRIES = {
    "plane": Geometry.from_spacing((0.5, 0.25)),
    "moved plane": Geometry.from_spacing((0.5, 0.25), (-3.0, 40.0)),
    "turned plane": Geometry.from_parts(turned(30) * (0.5, 0.25), (-3.0, 40.0)),
    "stack": Geometry.from_spacing((2.0, 0.5, 0.25), (1.0, 2.0, 3.0)),
    "volume": Geometry.from_spacing(
        (2.0, 0.5, 0.25), (-374.0, 2.0, 3.0), unit="mm", space="patient"
    ),
    "tilted volume": Geometry.from_parts(
        TILTED * (2.0, 0.5, 0.25),
        (-374.0, 2.0, 3.0),
        unit="mm",
        space="patient",
        source=ImageSource("v.nii.gz", axes=(2, 1, 0), flipped=(True, False, False)),
    ),
    "unknown": Geometry.unknown(3),
    "part of an unknown": Geometry.unknown(2).crop((5, 6)),
}


def shown(viewer: Any, geometry: Geometry, axes: str | None = None) -> Any:
    axes = axes or geometry.axes
    lengths = {"Z": 4, "C": 2, "Y": 6, "X": 8}
    data = np.zeros([lengths[axis] for axis in axes], np.uint8)
    data, keywords = layers.image_to_layer(Image(data, axes, name="a", geometry=geometry))
    return viewer.add_image(data, **keywords)


@pytest.mark.parametrize("channel", ["", "C"])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_layer_gives_its_geometry_back(viewer: Any, geometry: Geometry, channel: str) -> None:
    axes = geometry.axes.replace("Y", f"{channel}Y")
    layer = shown(viewer, geometry, axes)
    found = layers.layer_to_image(layer, axes).geometry
    assert found == geometry
    if channel:
        return
    without_note = placing.geometry_from_attributes(
        {**placing.attributes_of(layer), "metadata": {}}, axes
    )[0]
    assert placing.same_place(without_note, placing.frame_of(geometry))
    assert (without_note.unit, found.unit) == (geometry.unit, geometry.unit)


@pytest.mark.parametrize("geometry", [GEOMETRIES["stack"], GEOMETRIES["tilted volume"]])
def test_a_stack_is_shown_along_its_own_axes(viewer: Any, geometry: Geometry) -> None:
    """napari cannot slice a tilted volume: what is painted would be in another slice."""
    layer = shown(viewer, geometry)
    np.testing.assert_allclose(layer.rotate, np.eye(3))
    np.testing.assert_allclose(layer.affine.affine_matrix, np.eye(4))
    np.testing.assert_allclose(layer.scale, geometry.spacing)


def test_what_moves_in_napari_moves_in_the_world(viewer: Any) -> None:
    geometry = GEOMETRIES["tilted volume"]
    layer = shown(viewer, geometry)
    layer.translate = np.asarray(layer.translate) + np.multiply((1, 0, 3), geometry.spacing)
    moved = layers.layer_to_image(layer, "ZYX").geometry
    np.testing.assert_allclose(moved.origin, geometry.world((1, 0, 3)))
    np.testing.assert_allclose(moved.directions, geometry.directions)
    layer.scale = np.asarray(layer.scale) * (1, 2, 2)
    wider = layers.layer_to_image(layer, "ZYX").geometry
    np.testing.assert_allclose(wider.spacing, np.multiply(geometry.spacing, (1, 2, 2)))
    assert (wider.unit, wider.space) == ("mm", "patient")


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"scale": (0.5, 0.25), "units": (UM, UM)}, ((0.5, 0), (0, 0.25), (0, 0))),
        ({"translate": (3, 4), "units": (MM, MM)}, ((1, 0), (0, 1), (3, 4))),
        ({"rotate": 90, "scale": (2, 3), "units": (UM, UM)}, ((0, 2), (-3, 0), (0, 0))),
        (
            {"affine": [[0, 2, 5], [1, 0, 6], [0, 0, 1]], "units": (UM, UM)},
            ((0, 1), (2, 0), (5, 6)),
        ),
        ({"scale": (-2, 2), "units": (UM, UM)}, ((-2, 0), (0, 2), (0, 0))),
    ],
    ids=["scale", "translate", "rotate", "affine", "mirrored"],
)
def test_layers_of_other_programs(viewer: Any, keywords: dict, expected: Any) -> None:
    """`expected`: steps along the first axis, along the second, and the position of the first."""
    layer = viewer.add_image(np.zeros((6, 8)), **keywords)
    found = layers.layer_to_image(layer, "YX").geometry
    assert found.unit == ("mm" if MM in keywords["units"] else "um")
    first, second, origin = expected
    np.testing.assert_allclose(found.linear, np.transpose([first, second]), atol=1e-12)
    np.testing.assert_allclose(found.origin, origin, atol=1e-12)


# ---------------------------------------------------------------------------------------------
# From a file through layers to a file


def export_of(labels: Any, viewer: Any, folder: Path, kind: str = "nifti") -> Path:
    """As the Export dock asks the worker process, which is this one here."""
    image = image_of(viewer, labels)
    arguments, arrays = outputs.label_request(labels, None, image)
    quiet = {"progress": lambda *_: None, "should_cancel": lambda: False}
    job: Any = SimpleNamespace(arrays=arrays, kept={}, **quiet)
    reply = tasks.export(
        job,
        **arguments,
        name="v",
        axes=None,
        path=image.source.path if image else None,
        formats=[kind],
        folder=str(folder),
        overwrite=True,
    )
    return Path(reply.values["files"][-1])


@pytest.mark.parametrize("region", [None, CROP], ids=["whole", "crop"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["by the model", "painted"])
@pytest.mark.parametrize("name", PLACED)
def test_labels_made_in_napari_lie_on_the_file(
    viewer: Any, tmp_path: Path, name: str, by_hand: bool, region: Any
) -> None:
    path = tmp_path / f"v{PLACED[name].ending}"
    PLACED[name].write(path)
    data, keywords = layers.image_to_layer(read_image(path))
    layer = viewer.add_image(data, **keywords)
    image = layers.layer_to_image(layer, "ZYX")
    found = segment(image, model(), region=region)
    if not by_hand:
        again = tasks.unpack(tasks.pack(found))
        _, labels = outputs.add_prediction(viewer, layer, "ZYX", again)
    else:
        whole = np.zeros(layer.data.shape, np.int32)
        part = tuple(slice(*bounds) for bounds in region or ((None, None),) * 3)
        whole[part] = found.instances.labels
        labels = viewer.add_labels(whole, **placing.placed_like(layer))
    file = export_of(labels, viewer, tmp_path)
    expected = centroid_ras(path, is_label=False)
    assert centroid_ras(file, is_label=True) == pytest.approx(expected, abs=TOLERANCE_MM)


def test_dicom_segments_of_a_layer_refer_to_the_series_it_was_opened_from(
    viewer: Any, tmp_path: Path
) -> None:
    pydicom = pytest.importorskip("pydicom")
    placed = PLACED["oblique"]
    slices = write_series(tmp_path / "series", placed, phantom())
    placed.write(tmp_path / "v.nii.gz", phantom())
    data, keywords = layers.image_to_layer(read_image(tmp_path / "v.nii.gz"))
    with layer_source(path=str(tmp_path / "series")):
        layer = viewer.add_image(data, **keywords)
    labels = viewer.add_labels(np.asarray(data).astype(np.int32), **placing.placed_like(layer))
    seg = pydicom.dcmread(export_of(labels, viewer, tmp_path, "dicom-seg"))
    used = {one.SOPInstanceUID for one in slices if one.pixel_array.any()}
    (series,) = seg.ReferencedSeriesSequence
    assert used <= {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence}
    assert len(seg.SegmentSequence) == 4


@pytest.mark.parametrize("region", [None, CROP], ids=["whole", "crop"])
@pytest.mark.parametrize("is_shown", [True, False], ids=["with its image", "without"])
def test_labels_of_a_workspace_lie_on_the_file(
    viewer: Any, tmp_path: Path, is_shown: bool, region: Any
) -> None:
    path = tmp_path / "v.nii.gz"
    PLACED["oblique"].write(path)
    image = read_image(path)
    found = segment(image, model(), region=region)
    with create_workspace(tmp_path / "w") as workspace:
        data, keywords = layers.image_to_layer(image)
        with layer_source(path=str(path)):
            layer = viewer.add_image(data, **keywords)
        regions, objects = outputs.add_prediction(viewer, layer, "ZYX", found)
        kept.adding(workspace, layer, objects, regions)()
        viewer.layers.clear()
        (entry,) = workspace.entries
        again = kept.loaded(entry, salvage=False, with_image=is_shown)
    labels, _ = kept.show(viewer, again)
    file = export_of(labels, viewer, tmp_path)
    expected = centroid_ras(path, is_label=False)
    assert centroid_ras(file, is_label=True) == pytest.approx(expected, abs=TOLERANCE_MM)


@pytest.mark.parametrize(
    ("order", "known"),
    [((0, 1, 2), True), ((2, 1, 0), True), ((1, 2, 0), True), ((1, 0, 2), False)],
    ids=["as we turn it", "reversed", "as stored", "unlike any"],
)
def test_a_volume_that_another_reader_opened(order: tuple, known: bool) -> None:
    """Of a file that stores (left, back, head) slowest first."""
    upright = Geometry.from_spacing((3.0, 2.0, 1.0), (7.0, 8.0, 9.0), unit="mm", space="patient")
    source = ImageSource("v.mha", axes=(2, 0, 1), flipped=(False, False, False))
    geometry = Geometry(upright.affine, "mm", "patient", source)
    shape = (4, 5, 6)
    stored, as_stored = geometry.as_stored(np.zeros(shape))
    array = {
        (0, 1, 2): np.zeros(shape),
        (1, 2, 0): stored,
        (2, 1, 0): stored.T,
        (1, 0, 2): np.zeros((5, 4, 6)),
    }[order]
    found = placing.of_layers_array(geometry, shape, array.shape)
    assert (found is not None) == known
    if order == (1, 2, 0):
        assert found == as_stored


def test_equal_sides_leave_only_a_size_that_is_certain() -> None:
    source = ImageSource("v.mha", axes=(2, 0, 1), flipped=(False, False, False))
    cube = (5, 5, 5)
    alike = Geometry(Geometry.from_spacing((2.0, 2.0, 2.0), (7.0, 8.0, 9.0)).affine, source=source)
    found = placing.of_layers_array(alike, cube, cube)
    assert found is not None
    assert found.pixel_size_um == (2.0, 2.0, 2.0)
    assert not found.origin.any()
    other = Geometry(Geometry.from_spacing((3.0, 2.0, 2.0)).affine, source=source)
    assert placing.of_layers_array(other, cube, cube) is None


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the model that finds the objects of `placed_volumes`."""
    path = tmp_path_factory.mktemp("weights") / "placed.safetensors"
    native.save(path, model())
    return path


@pytest.mark.gui
def test_segment_and_export_through_the_docks(
    viewer: Any, make_widget: Callable, qtbot: Any, tmp_path: Path
) -> None:
    from napari_coseg.widgets.export import ExportWidget

    path = tmp_path / "v.nii.gz"
    PLACED["oblique"].write(path)
    data, keywords = layers.image_to_layer(read_image(path))
    viewer.add_image(data, **keywords)
    segmenting = make_widget(viewer)
    exporting = ExportWidget(viewer, segmenting.worker)
    exporting.folder_edit.setText(str(tmp_path))
    try:
        for widget in (segmenting, exporting):
            for key, box in exporting.formats.items():
                box.setChecked(key == "nifti")
            widget.bar.run_button.click()
            qtbot.waitUntil(lambda one=widget: not one.bar.is_busy, timeout=RUN_MS)
    finally:
        exporting.close()
    objects = tmp_path / "v_objects.nii.gz"
    expected = centroid_ras(path, is_label=False)
    assert centroid_ras(objects, is_label=True) == pytest.approx(expected, abs=TOLERANCE_MM)
