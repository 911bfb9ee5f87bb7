"""napari layers <-> values: pixel sizes, axes, places, names, colours, features."""

from __future__ import annotations

import json
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Instances, LabelClass, Prediction
from napari_coseg.labels.measure import class_table, object_table
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.geometry import layer_pixel_size

pytestmark = pytest.mark.gui

REGIONS = (LabelClass(1, "gland", (0, 180, 90)),)
TYPES = (LabelClass(1, "epithelial", (230, 30, 30)), LabelClass(2, "spindle", (30, 30, 230)))


def image_layer(shape: tuple[int, ...], **keywords: Any) -> Any:
    from napari.layers import Image

    return Image(np.zeros(shape, np.uint8), name="biopsy", **keywords)


def prediction_of(shape: tuple[int, ...], offset: tuple[int, ...] | None = None) -> Prediction:
    """Objects 1, 2 and 3 in a row; the first two of a type each, the third of none."""
    labels, semantic = np.zeros(shape, np.int32), np.zeros(shape, np.uint8)
    for i in range(3):
        labels[..., 2:4, 1 + 3 * i : 3 + 3 * i] = i + 1
    semantic[..., :4] = 1
    size = (0.5,) * len(shape)
    table = object_table(
        labels,
        semantic,
        pixel_size_um=size,
        known=class_table(np.array([1, 2, 0]), np.array([0.91234, 0.5, np.nan])),
        classes=TYPES,
        semantic_classes=REGIONS,
    )
    provenance: dict[str, Any] = {"model": "stub"}
    if offset is not None:
        provenance["region_offset"] = list(offset)
    return Prediction(semantic, REGIONS, Instances(labels, table, TYPES), size, provenance)


# ---------------------------------------------------------------------------------------------
# Image layer -> Image

UM, MM = "micrometer", "millimeter"


@pytest.mark.parametrize(
    ("shape", "keywords", "choices"),
    [
        ((9, 8), {}, ("YX",)),
        ((9, 8, 3), {"rgb": True}, ("YXC",)),
        ((9, 8, 4), {"rgb": True}, ("YXC",)),
        ((9, 8, 7), {}, ("ZYX", "CYX")),
        ((3, 8, 7), {}, ("ZYX", "CYX")),
        ((3, 8, 7), {"axis_labels": ("c", "y", "x")}, ("CYX", "ZYX")),
        ((5, 9, 8, 3), {"rgb": True}, ("ZYXC",)),
        ((5, 3, 9, 8), {}, ("ZCYX",)),
    ],
    ids=["grey", "RGB", "RGBA", "stack", "3 slices", "labelled", "RGB stack", "ZCYX"],
)
def test_axes(shape: tuple[int, ...], keywords: dict, choices: tuple[str, ...]) -> None:
    assert layers.axes_choices(image_layer(shape, **keywords)) == choices


@pytest.mark.parametrize("shape", [(5,) * 5, (2, 2, 9, 9, 3)], ids=["5D", "5D with colours"])
def test_too_many_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="one time point"):
        layers.axes_choices(image_layer(shape, rgb=shape[-1] == 3))


@pytest.mark.parametrize(
    ("axes", "keywords", "size", "source"),
    [
        ("YX", {}, None, "not known"),
        ("YX", {"scale": (0.25, 0.5), "units": (UM, UM)}, (0.25, 0.5), "scale and units"),
        ("YX", {"scale": (2e-4, 2e-4), "units": (MM, MM)}, (0.2, 0.2), "scale and units"),
        ("YX", {"scale": (1, 1), "units": (UM, UM)}, (1, 1), "scale and units"),
        ("YX", {"scale": (0.25, 0.25)}, (0.25, 0.25), "taken as µm"),
        ("YX", {"scale": (-0.25, 0.25), "units": (UM, UM)}, (0.25, 0.25), "scale and units"),
        ("ZYX", {"scale": (2, 0.5, 0.5), "units": (UM,) * 3}, (2, 0.5, 0.5), "scale and units"),
        ("ZYX", {"scale": (3, 1, 1)}, None, "not known"),
        ("CYX", {"scale": (1, 0.5, 0.5), "units": ("pixel", UM, UM)}, (0.5, 0.5), "units"),
        ("ZCYX", {"scale": (2, 1, 0.5, 0.5), "units": (UM,) * 4}, (2, 0.5, 0.5), "units"),
    ],
    ids=[
        "napari's default",
        "um, not square",
        "mm",
        "one um",
        "no unit",
        "mirrored",
        "stack",
        "stack with spacing in slices",
        "channels have no size",
        "channels between",
    ],
)
def test_pixel_size(axes: str, keywords: dict, size: Any, source: str) -> None:
    found = layer_pixel_size(image_layer((5,) * len(axes), **keywords), axes)
    assert found.um == (None if size is None else pytest.approx(size))
    assert source in found.source


def test_an_rgb_layer_has_a_size_for_y_and_x_only() -> None:
    layer = image_layer((9, 8, 3), rgb=True, scale=(0.5, 0.4), units=(UM, UM))
    image = layers.layer_to_image(layer)
    assert (image.axes, image.pixel_size_um, image.name) == ("YXC", (0.5, 0.4), "biopsy")


def test_a_lazy_multiscale_layer_gives_its_full_resolution_unread() -> None:
    from napari.layers import Image

    full = da.zeros((64, 48), chunks=16)
    layer = Image([full, full[::2, ::2]], multiscale=True)
    assert layers.layer_to_image(layer).data is full


# ---------------------------------------------------------------------------------------------
# The current view


@pytest.fixture
def viewer() -> Any:
    """All of a viewer but its window; `test_widget_segment.py` has the window too."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.mark.parametrize(
    ("shape", "keywords", "axes", "region"),
    [
        ((400, 600), {}, "YX", ((150, 251), (200, 401))),
        ((400, 600), {"scale": (0.5, 0.5)}, "YX", ((100, 301), (100, 501))),
        ((400, 600), {"scale": (0.5, 0.5), "translate": (10, 0)}, "YX", ((80, 281), (100, 501))),
        ((400, 600, 3), {"rgb": True}, "YXC", ((150, 251), (200, 401))),
        ((5, 400, 600), {}, "ZYX", ((2, 3), (150, 251), (200, 401))),
        ((3, 400, 600), {}, "CYX", ((150, 251), (200, 401))),
        ((180, 250), {}, "YX", ((150, 180), (200, 250))),
    ],
    ids=["plain", "scaled", "moved", "RGB", "slice of a stack", "channels first", "at the edge"],
)
def test_current_view(
    viewer: Any, shape: tuple[int, ...], keywords: dict, axes: str, region: Any
) -> None:
    layer = viewer.add_image(np.zeros(shape, np.uint8), **keywords)
    viewer.canvas.size = (100, 200)
    viewer.scene.camera.zoom = 1
    viewer.scene.camera.center = (0, 200, 300)
    if len(region) == 3:
        viewer.dims.set_point(0, 2)
    if keywords.get("scale"):
        viewer.scene.camera.center = (0, 100, 150)
    found = layers.view_region(viewer, layer, axes)
    assert np.abs(np.array(found) - np.array(region)).max() <= 1


@pytest.mark.parametrize("case", ["3D", "out of view", "other plane"])
def test_a_view_that_shows_no_plane_of_the_image_is_refused(viewer: Any, case: str) -> None:
    layer = viewer.add_image(np.zeros((5, 40, 60), np.uint8))
    if case == "3D":
        viewer.dims.ndisplay = 3
    elif case == "other plane":
        viewer.dims.order = (1, 0, 2)
    else:
        viewer.scene.camera.center = (0, 1e6, 1e6)
    with pytest.raises(ImageError, match="whole image"):
        layers.view_region(viewer, layer, "ZYX")


def test_the_view_counts_in_the_layers_own_unit(viewer: Any) -> None:
    """napari draws layers of different units of length in one of them."""
    viewer.add_image(np.zeros((400, 400), np.uint8), scale=(1, 1), units=(UM, UM))
    layer = viewer.add_image(np.zeros((400, 400), np.uint8), scale=(1e-3, 1e-3), units=(MM, MM))
    world = viewer.layers.extent.units[0]
    um_in_view = float((1 * world).to(UM).magnitude)
    viewer.canvas.size = (100, 100)
    viewer.scene.camera.zoom = um_in_view
    viewer.scene.camera.center = (0, 200 / um_in_view, 200 / um_in_view)
    assert layers.view_region(viewer, layer, "YX") == ((150, 251), (150, 251))


# ---------------------------------------------------------------------------------------------
# Prediction -> layers


PLACES = {
    "rotated, sheared, moved": (
        "YX",
        (6, 10),
        {
            "scale": (0.5, 0.25),
            "translate": (100, 200),
            "rotate": 30,
            "shear": [0.2],
            "affine": [[1, 0.1, 5], [0, 1, 7], [0, 0, 1]],
            "units": (UM, UM),
            "axis_labels": ("y", "x"),
        },
    ),
    "RGB": ("YXC", (6, 10, 3), {"rgb": True, "scale": (0.5, 0.5), "units": (UM, UM)}),
    "stack": (
        "ZYX",
        (4, 6, 10),
        {"scale": (2, 0.5, 0.5), "translate": (7, 8, 9), "units": (MM, UM, UM)},
    ),
    "channels first": (
        "CYX",
        (3, 6, 10),
        {"scale": (1, 0.5, 0.25), "translate": (0, 8, 9), "units": ("pixel", UM, UM)},
    ),
}


@pytest.mark.parametrize(("axes", "shape", "keywords"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
def test_outputs_lie_where_the_image_does(
    viewer: Any, axes: str, shape: tuple[int, ...], keywords: dict, part: bool
) -> None:
    layer = viewer.add_image(np.zeros(shape, np.uint8), **keywords)
    dims = layers.spatial_dims(axes)
    spatial = [shape[axes.index(axis)] for axis in axes if axis != "C"]
    offset = tuple(range(1, len(dims) + 1)) if part else None
    regions, objects = outputs.add_prediction(
        viewer, layer, axes, prediction_of(tuple(spatial), offset)
    )
    pixel = np.arange(len(dims)) + 0.5
    in_image = np.zeros(layer.ndim)
    in_image[dims] = pixel + (offset or 0)
    expected = np.asarray(layer.data_to_world(in_image))[dims]
    for output in (regions, objects):
        np.testing.assert_allclose(output.data_to_world(pixel), expected)
        assert output.units == tuple(layer.units[dim] for dim in dims)
        assert output.axis_labels == tuple(layer.axis_labels[dim] for dim in dims)
        np.testing.assert_allclose(output.scale, layer.scale[dims])


def test_names_colours_features_and_provenance(viewer: Any) -> None:
    layer = viewer.add_image(np.zeros((6, 12), np.uint8), name="biopsy")
    regions, objects = outputs.add_prediction(viewer, layer, "YX", prediction_of((6, 12)))
    assert (regions.name, objects.name) == ("biopsy regions", "biopsy objects")
    assert objects.data.dtype == np.int32
    np.testing.assert_allclose(regions.get_color(1)[:3], np.array([0, 180, 90]) / 255, atol=1e-6)
    colors = [tuple(np.round(objects.get_color(i)[:3] * 255).astype(int)) for i in (1, 2)]
    assert colors == [TYPES[0].color, TYPES[1].color]
    assert objects.get_color(0) is None or objects.get_color(0)[3] == 0
    assert list(objects.features["index"]) == [1, 2, 3]
    np.testing.assert_array_equal(objects.features["probability"], [0.91234, 0.5, np.nan])
    for layer_, kind in ((regions, "regions"), (objects, "objects")):
        described = layer_.metadata[outputs.METADATA_KEY]
        assert json.loads(json.dumps(described)) == described
        assert described["provenance"]["model"] == "stub"
        assert outputs.is_output(layer_, kind)
    assert outputs.classes_of(objects) == TYPES


def test_the_tooltip_tells_what_an_object_is(viewer: Any) -> None:
    layer = viewer.add_image(np.zeros((6, 12), np.uint8))
    regions, objects = outputs.add_prediction(viewer, layer, "YX", prediction_of((6, 12)))
    where = {"view_direction": None, "dims_displayed": [0, 1], "world": True}
    text = objects._get_tooltip_text(np.array([2, 1]), **where)
    assert text.splitlines() == [
        "1",
        "class: epithelial",
        "probability: 0.912",
        "region: gland",
        "area_um2: 1",
    ]
    assert "class: gland" in regions._get_tooltip_text(np.array([2, 1]), **where)


def test_every_run_adds_a_pair_and_touches_no_other(viewer: Any) -> None:
    layer = viewer.add_image(np.zeros((6, 12), np.uint8), name="biopsy")
    _, first = outputs.add_prediction(viewer, layer, "YX", prediction_of((6, 12)))
    first.paint((5, 5), 9)
    edited = first.data.copy()
    outputs.add_prediction(viewer, layer, "YX", prediction_of((6, 12)))
    viewer.layers.remove("biopsy regions")
    outputs.add_prediction(viewer, layer, "YX", prediction_of((6, 12)))
    assert [layer.name for layer in viewer.layers] == [
        "biopsy",
        "biopsy objects",
        "biopsy regions [2]",
        "biopsy objects [2]",
        "biopsy regions [3]",
        "biopsy objects [3]",
    ]
    np.testing.assert_array_equal(first.data, edited)


def test_colours_by_class_and_by_id_and_back(viewer: Any) -> None:
    layer = viewer.add_image(np.zeros((6, 12), np.uint8))
    _, objects = outputs.add_prediction(viewer, layer, "YX", prediction_of((6, 12)), color_by="id")
    by_id = objects.get_color(1)
    outputs.color_objects(objects, "class")
    assert tuple(np.round(objects.get_color(1)[:3] * 255)) == TYPES[0].color
    outputs.color_objects(objects, "id")
    np.testing.assert_array_equal(objects.get_color(1), by_id)


def test_more_objects_than_napari_can_colour_by_class(viewer: Any) -> None:
    labels = np.arange(300 * 300, dtype=np.int32).reshape(300, 300)
    n = labels.max()
    table = pd.DataFrame(
        {
            "id": np.arange(1, n + 1),
            "class": "epithelial",
            "class_probability": 0.9,
            "region": "gland",
            "area_um2": 1.0,
        }
    )
    many = Prediction(labels > 0, REGIONS, Instances(labels, table, TYPES), (0.5, 0.5))
    layer = viewer.add_image(np.zeros((300, 300), np.uint8))
    _, objects = outputs.add_prediction(viewer, layer, "YX", many)
    assert int(objects.data.max()) == n > 65_536
    colors = {tuple(objects.get_color(i)) for i in range(1, 20)}
    assert len(colors) > len(TYPES)


@pytest.mark.parametrize("shape", [(6, 12), (4, 6, 12)], ids=["plane", "stack"])
def test_a_prediction_crosses_the_pipe_unchanged(shape: tuple[int, ...]) -> None:
    before = prediction_of(shape, (0,) * len(shape))
    packed = tasks.pack(before)
    json.dumps(packed.values)
    after = tasks.unpack(packed)
    np.testing.assert_array_equal(after.semantic, before.semantic)
    np.testing.assert_array_equal(after.instances.labels, before.instances.labels)
    pd.testing.assert_frame_equal(after.instances.table, before.instances.table, check_dtype=False)
    assert after.instances.classes == TYPES
    assert after.semantic_classes == REGIONS
    assert (after.pixel_size_um, after.provenance) == (before.pixel_size_um, before.provenance)


def test_no_objects_at_all(viewer: Any) -> None:
    empty = prediction_of((6, 12))
    labels = np.zeros((6, 12), np.int32)
    none = Prediction(
        empty.semantic,
        REGIONS,
        Instances(labels, object_table(labels, pixel_size_um=(1, 1)), TYPES),
        (1, 1),
    )
    layer = viewer.add_image(np.zeros((6, 12), np.uint8))
    _, objects = outputs.add_prediction(viewer, layer, "YX", tasks.unpack(tasks.pack(none)))
    assert len(objects.features) == 0
    outputs.color_objects(objects, "class")
