"""What the Segment widget understands of an image and lets one change, and its other parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.stub_models import StubModel
from cases.widget_values import PICTURE, RUN_MS, UM
from napari_coseg.inference.settings import InferenceSettings

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]


# ---------------------------------------------------------------------------------------------
# The list of images


def test_an_image_that_is_open_is_chosen(viewer: Any, make_widget: Callable) -> None:
    viewer.add_labels(np.zeros((5, 5), int))
    image = viewer.add_image(PICTURE, name="biopsy")
    assert make_widget(viewer).image.layer is image


def test_the_list_follows_the_viewer(viewer: Any, make_widget: Callable) -> None:
    widget = make_widget(viewer)
    box = widget.image.layer_box
    assert (widget.image.layer, box.count()) == (None, 0)
    first = viewer.add_image(PICTURE, name="first")
    assert widget.image.layer is first
    second = viewer.add_image(PICTURE, name="second")
    assert widget.image.layer is first, "what was chosen stays chosen"
    viewer.add_labels(np.zeros((5, 5), int))
    second.name = "renamed"
    assert [box.itemText(i) for i in range(box.count())] == ["first", "renamed"]
    viewer.layers.remove(first)
    assert widget.image.layer is second


@pytest.mark.parametrize(
    ("shape", "keywords", "axes", "facts", "size", "source"),
    [
        ((9, 8, 3), {"rgb": True}, "YXC", "9 × 8 pixels, uint8", None, "model's own is assumed"),
        (
            (9, 8),
            {"scale": (0.5, 0.5), "units": (UM, UM)},
            "YX",
            "9 × 8 pixels",
            (0.5, 0.5),
            "From the layer's scale and units.",
        ),
        ((4, 9, 8), {}, "ZYX", "4 slices of 9 × 8 pixels", None, "assumed"),
        ((9, 8), {"scale": (2, 2)}, "YX", "", (2, 2), "taken as µm. Resampled to the model's 0.5"),
        ((9, 8), {"scale": (90, 90)}, "YX", "", (90, 90), "is this right?"),
        ((9, 8), {"scale": (0.5, 0.25)}, "YX", "", (0.5, 0.25), "0.5 µm high, 0.25 µm wide"),
        ((2,) * 5, {}, None, "has 5 dimensions", None, ""),
    ],
    ids=["RGB", "known size", "stack", "no unit", "implausible", "not square", "too many axes"],
)
def test_what_is_understood_is_shown(
    viewer: Any,
    make_widget: Callable,
    shape: tuple[int, ...],
    keywords: dict,
    axes: str | None,
    facts: str,
    size: Any,
    source: str,
) -> None:
    viewer.add_image(np.zeros(shape, np.uint8), **keywords)
    choice = make_widget(viewer).image
    assert choice.axes_box.currentData() == axes
    assert facts in choice.facts.text()
    assert choice.pixel_size.um == size
    assert source in choice.source.text()


def test_what_is_understood_can_be_changed(viewer: Any, make_widget: Callable) -> None:
    viewer.add_image(np.zeros((5, 9, 8), np.uint8), scale=(3, 0.5, 0.5), units=(UM,) * 3)
    choice = make_widget(viewer).image
    assert choice.chosen().pixel_size_um == (3, 0.5, 0.5)
    choice.size_box.setValue(0.25)
    assert choice.chosen().pixel_size_um == (3, 0.25, 0.25)
    assert "Set manually" in choice.source.text()
    choice.axes_box.setCurrentIndex(choice.axes_box.findData("CYX"))
    choice.channels_box.setCurrentIndex(2)
    chosen = choice.chosen()
    assert (chosen.axes, chosen.channels, chosen.pixel_size_um) == ("CYX", [2], (0.5, 0.5))
    choice.size_box.setValue(0)
    assert choice.chosen().pixel_size_um is None
    choice.reset_button.click()
    assert choice.chosen().pixel_size_um == (0.5, 0.5)


def test_a_typed_size_stays_with_its_layer(viewer: Any, make_widget: Callable) -> None:
    first, second = viewer.add_image(PICTURE), viewer.add_image(PICTURE)
    choice = make_widget(viewer).image
    for layer, um in ((first, 0.25), (second, None), (first, 0.25)):
        choice.layer_box.choose(layer)
        if um and choice.pixel_size.um is None:
            assert "Unknown" in choice.source.text()
            choice.size_box.setValue(um)
        assert choice.pixel_size.um == (um and (um, um))
    choice.reset_button.click()
    assert choice.pixel_size.um is None
    choice.size_box.setValue(0.25)
    first.scale = (0.3, 0.3)
    assert choice.pixel_size.um == (0.3, 0.3)


def test_a_change_of_the_layers_scale_is_seen(viewer: Any, make_widget: Callable) -> None:
    layer = viewer.add_image(PICTURE)
    choice = make_widget(viewer).image
    layer.scale = (0.3, 0.3)
    assert choice.pixel_size.um == (0.3, 0.3)


def _replace(viewer: Any) -> None:
    viewer.layers[0].data = np.zeros((3, 9, 8), np.uint16)


@pytest.mark.parametrize(
    ("act", "size", "facts"),
    [
        pytest.param(lambda viewer: viewer.dims.set_point(0, 1), 0.3, "4 slices", id="a slice"),
        pytest.param(lambda viewer: viewer.dims.transpose(), 0.3, "4 slices", id="axes turned"),
        pytest.param(lambda viewer: viewer.layers[0].refresh(), 0.3, "4 slices", id="redrawn"),
        pytest.param(_replace, None, "3 slices of 9 × 8 pixels, uint16", id="other data"),
    ],
)
def test_what_is_set_by_hand_stays_until_the_data_change(
    viewer: Any, make_widget: Callable, act: Callable, size: float | None, facts: str
) -> None:
    image = viewer.add_image(np.arange(4 * 9 * 8, dtype=np.uint8).reshape(4, 9, 8))
    choice = make_widget(viewer).image
    choice.size_box.setValue(0.3)
    choice.spacing_box.setValue(2)
    act(viewer)
    assert choice.pixel_size.um == (None if size is None else (2, size, size))
    assert facts in choice.facts.text()
    image.visible = False
    image.visible = True
    assert choice.pixel_size.um == (None if size is None else (2, size, size))


def test_a_channel_set_by_hand_stays_while_the_image_is_looked_at(
    viewer: Any, make_widget: Callable
) -> None:
    planes = np.arange(3 * 90 * 80, dtype=np.uint16).reshape(3, 90, 80)
    image = viewer.add_image(planes, axis_labels=("channel", "y", "x"))
    choice = make_widget(viewer).image
    assert choice.axes == "CYX"
    choice.channels_box.setCurrentIndex(2)
    viewer.dims.set_point(0, 2)
    image.visible = False
    assert choice.chosen().channels == [1]


def test_the_files_metadata_are_asked(
    viewer: Any, make_widget: Callable, qtbot: Any, tmp_path: Path
) -> None:
    import tifffile
    from napari.layers import Image
    from napari.layers._source import layer_source

    path = tmp_path / "biopsy.tif"
    tifffile.imwrite(path, PICTURE, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    choice = make_widget(viewer).image
    with layer_source(path=str(path)):
        viewer.add_layer(Image(PICTURE))
    assert choice.pixel_size.um is None
    qtbot.waitUntil(lambda: choice.pixel_size.um is not None, timeout=RUN_MS)
    assert choice.pixel_size.um == pytest.approx((0.5, 0.5))
    assert "file's metadata" in choice.source.text()


# ---------------------------------------------------------------------------------------------
# Parts


def test_the_form_has_the_defaults_of_the_settings(viewer: Any, make_widget: Callable) -> None:
    assert make_widget(viewer).settings.settings() == InferenceSettings()


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([(0.0, 0.0)], None),
        ([(0.0, 0.0), (0.5, 0.4)], None),
        ([(0.0, 0.0), (10.0, 0.25)], 30.0),
        ([(5.0, 0.5), (10.0, 0.75)], 5.0),
        ([(0.0, 0.1), (9.0, 0.1)], None),
    ],
    ids=["at once", "too early", "a quarter", "started half way", "standing still"],
)
def test_time_left(qapp: Any, reports: list[tuple[float, float]], expected: float | None) -> None:
    from napari_coseg.widgets.job_bar import TimeLeft

    now = [0.0]
    left = TimeLeft(clock=lambda: now[0])
    found = None
    for seconds, fraction in reports:
        now[0] = seconds
        found = left.seconds(fraction)
    assert found == expected


def test_the_demo_shows_what_was_exported(make_napari_viewer: Callable, tmp_path: Path) -> None:
    from napari_coseg.core.types import Image
    from napari_coseg.formats.registry import export
    from napari_coseg.formats.results import find_results, read_result
    from napari_coseg.inference import segment
    from napari_coseg.widgets import show

    image = Image(PICTURE, "YXC", (0.5, 0.5), "biopsy")
    prediction = segment(image, StubModel())
    files = export(prediction, image, tmp_path, ("ome-tiff", "csv"))
    viewer = make_napari_viewer()
    show.show(viewer, image, read_result(find_results(files[:1])[0]))
    assert [layer.name for layer in viewer.layers] == [
        "biopsy",
        "biopsy regions",
        "biopsy objects",
    ]
    objects = viewer.layers[-1]
    np.testing.assert_array_equal(objects.data, prediction.instances.labels)
    assert tuple(np.round(objects.get_color(1)[:3] * 255)) in {(0, 0, 255), (255, 0, 0)}
    np.testing.assert_allclose(objects.scale, (0.5, 0.5))


def test_files_that_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_coseg.widgets import show

    missing = [str(tmp_path / name) for name in ("a.png", "r.tif")]
    assert show.main(missing) == 2
    assert "there is no image file" in capsys.readouterr().err
