"""The Segment widget: from the menu to the layers, and what goes wrong on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cases.widget_values import CENTRES, PICTURE, RUN_MS, TISSUE, TRUTH, UM
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.widgets.settings_form import SettingsForm

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]


def run(qtbot: Any, widget: Any) -> None:
    widget.bar.run_button.click()
    assert widget.bar.is_busy
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)


# ---------------------------------------------------------------------------------------------
# Runs


def test_from_the_menu_to_the_layers(
    make_napari_viewer_proxy: Callable,
    qtbot: Any,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sample and widget as the menus open them, in a window, with a process of its own."""
    from napari_coseg.widgets.background import tasks

    monkeypatch.setattr(tasks, "SEGMENT", "cases.worker_jobs:segment_discs")
    viewer = make_napari_viewer_proxy(show=True)
    (sample,) = viewer.open_sample("napari-coseg", "colon")
    dock, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    assert widget.image.layer.name == sample.name
    widget.model.choose_file(weights)
    qtbot.waitUntil(lambda: widget.worker.pid is not None, timeout=RUN_MS)
    run(qtbot, widget)
    names = [layer.name for layer in viewer.layers]
    assert names == [sample.name, f"{sample.name} regions", f"{sample.name} objects"]
    for name in names[1:]:
        output = viewer.layers[name]
        assert output.data.shape == sample.data.shape[:2]
        np.testing.assert_array_equal(output.scale, sample.scale)
        assert output.units == sample.units
    pid = widget.worker.pid
    viewer.window.remove_dock_widget(dock)
    assert not psutil.pid_exists(pid), "a closed dock widget leaves no process"


def test_objects_regions_and_their_tooltips(viewer: Any, make_widget: Callable, qtbot: Any) -> None:
    viewer.add_image(PICTURE, name="biopsy", scale=(0.5, 0.5), units=(UM, UM), translate=(7, 9))
    widget = make_widget(viewer)
    run(qtbot, widget)
    regions, objects = viewer.layers["biopsy regions"], viewer.layers["biopsy objects"]
    assert objects.data.max() == len(CENTRES) == len(objects.features)
    np.testing.assert_array_equal(objects.translate, (7, 9))
    assert set(objects.features["class"]) == {"blue", "red"}
    assert list(objects.features.columns) == [
        "index",
        "class",
        "probability",
        "region",
        "area_um2",
    ]
    inside = regions.data[TISSUE]
    assert (inside > 0).mean() > 0.95
    provenance = objects.metadata["napari_coseg"]["provenance"]
    assert (provenance["model"], provenance["pixel_size_um"]) == ("discs", [0.5, 0.5])
    assert f"{len(CENTRES)} objects" in widget.bar.text.text()


def test_the_file_of_an_image_is_asked_for_its_pixel_size(
    viewer: Any, make_widget: Callable, qtbot: Any, tmp_path: Any
) -> None:
    """Of one that was open before the dock was."""
    from napari.layers._source import layer_source

    from napari_coseg.core.types import Image
    from napari_coseg.formats.ome_tiff import write_image

    path = tmp_path / "biopsy.ome.tif"
    write_image(path, Image(PICTURE, "YXC", (0.5, 0.25), "biopsy"))
    with layer_source(path=str(path)):
        viewer.add_image(PICTURE, name="biopsy")
    widget = make_widget(viewer)
    qtbot.waitUntil(lambda: widget.image.pixel_size.um is not None, timeout=RUN_MS)
    assert widget.image.pixel_size.um == (0.5, 0.25)
    assert "From the file's metadata" in widget.image.source.text()


def test_a_switch_that_may_be_none_is_a_choice_of_three(qapp: Any) -> None:
    form = SettingsForm(InferenceSettings, ("white_point",), none_text="model's own")
    box = form.boxes["white_point"]
    found = {}
    for index in range(box.count()):
        box.setCurrentIndex(index)
        found[box.currentText()] = form.settings().white_point
    assert found == {"model's own": None, "on": True, "off": False}


def test_the_settings_of_the_form_reach_the_run(
    viewer: Any, make_widget: Callable, qtbot: Any
) -> None:
    viewer.add_image(PICTURE, name="biopsy")
    widget = make_widget(viewer)
    widget.settings.boxes["min_object_area_um2"].setValue(1000)
    run(qtbot, widget)
    assert viewer.layers["biopsy objects"].data.max() == 0


@pytest.mark.parametrize(
    ("picture", "asked", "window"),
    [
        pytest.param(PICTURE[..., 0], True, (20.0, 90.0), id="as the layer is shown"),
        pytest.param(PICTURE[..., 0], False, None, id="by the model's rule"),
        pytest.param(PICTURE, True, None, id="colours have no window"),
    ],
)
def test_the_values_that_are_black_and_white(
    viewer: Any,
    make_widget: Callable,
    qtbot: Any,
    picture: np.ndarray,
    asked: bool,
    window: tuple[float, float] | None,
) -> None:
    viewer.add_image(picture, contrast_limits=(20, 90), rgb=picture.ndim == 3)
    widget = make_widget(viewer)
    widget.limits_box.setChecked(asked)
    run(qtbot, widget)
    settings = viewer.layers[-1].metadata["napari_coseg"]["provenance"]["settings"]
    assert settings["window"] == (None if window is None else list(window))


@pytest.mark.parametrize(
    ("name", "picture", "window"),
    [
        ("bone", PICTURE[..., 0], (-500.0, 1500.0)),
        ("bone", PICTURE, None),
        ("model's own", PICTURE[..., 0], None),
    ],
    ids=["named", "colours have no window", "the model's"],
)
def test_a_named_window_is_shown_and_used(
    viewer: Any,
    make_widget: Callable,
    name: str,
    picture: np.ndarray,
    window: tuple[float, float] | None,
) -> None:
    layer = viewer.add_image(picture, rgb=picture.ndim == 3)
    widget = make_widget(viewer)
    box = widget.window_box
    box.setCurrentIndex(next(i for i in range(box.count()) if box.itemText(i).startswith(name)))
    box.activated.emit(box.currentIndex())
    assert widget.settings_for(layer)["window"] == window
    if window is not None:
        assert tuple(layer.contrast_limits) == window


def test_a_second_run_leaves_edited_labels_alone(
    viewer: Any, make_widget: Callable, qtbot: Any
) -> None:
    viewer.add_image(PICTURE, name="biopsy")
    widget = make_widget(viewer)
    run(qtbot, widget)
    first = viewer.layers["biopsy objects"]
    first.data[:40] = 0
    edited = first.data.copy()
    run(qtbot, widget)
    np.testing.assert_array_equal(first.data, edited)
    assert viewer.layers["biopsy objects [2]"].data.max() == len(CENTRES)
    assert len(viewer.layers) == 5


def test_only_the_current_view(viewer: Any, make_widget: Callable, qtbot: Any) -> None:
    layer = viewer.add_image(PICTURE, name="biopsy", scale=(0.5, 0.5), units=(UM, UM))
    viewer.canvas.size = (80, 80)
    viewer.scene.camera.zoom = 2
    viewer.scene.camera.center = (0, 40, 50)
    widget = make_widget(viewer)
    widget.view_button.setChecked(True)
    run(qtbot, widget)
    objects = viewer.layers["biopsy objects"]
    assert objects.data.shape == pytest.approx((81, 81), abs=2)
    found = np.argwhere(objects.data)
    in_image = [layer.world_to_data(objects.data_to_world(where)) for where in found]
    rows, columns = np.rint(in_image).astype(int).T
    assert (TRUTH[rows, columns] > 0).mean() > 0.9


def test_a_stack(viewer: Any, make_widget: Callable, qtbot: Any) -> None:
    stack = np.stack([PICTURE[:96, :96]] * 3)
    viewer.add_image(stack, name="stack", rgb=True, scale=(2, 0.5, 0.5), units=(UM,) * 3)
    run(qtbot, make_widget(viewer))
    objects = viewer.layers["stack objects"]
    assert objects.data.shape == (3, 96, 96)
    np.testing.assert_array_equal(objects.scale, (2, 0.5, 0.5))
    assert "volume_um3" in objects.features


def test_objects_are_shown_as_asked(viewer: Any, make_widget: Callable, qtbot: Any) -> None:
    viewer.add_image(PICTURE, name="biopsy")
    widget = make_widget(viewer)
    run(qtbot, widget)
    objects = viewer.layers["biopsy objects"]

    def colors() -> int:
        return len({tuple(objects.get_color(i)) for i in range(1, len(CENTRES) + 1)})

    assert (colors(), objects.contour > 0) == (2, True)
    widget.color_box.setCurrentText("id")
    widget.outline_box.setChecked(False)
    assert (colors() > 2, objects.contour) == (True, 0)


# ---------------------------------------------------------------------------------------------
# What goes wrong


@pytest.mark.parametrize("job", ["slow_segment", "rude_segment"], ids=["listens", "is ended"])
def test_cancel(viewer: Any, make_widget: Callable, qtbot: Any, notes: list[str], job: str) -> None:
    viewer.add_image(PICTURE)
    widget = make_widget(viewer, job)
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: widget.bar.progress.value() > 0, timeout=RUN_MS)
    assert not widget.bar.run_button.isEnabled()
    widget.bar.cancel_button.click()  # how long it takes is measured by benchmarks/gui_gap.py
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    assert widget.bar.text.text() == "Cancelled."
    assert widget.bar.run_button.isEnabled()
    assert len(viewer.layers) == 1
    assert not notes


@pytest.mark.parametrize(
    ("image", "job", "model", "message"),
    [
        (None, "segment_discs", None, "There is no image to segment; open one"),
        (np.zeros((2,) * 5), "segment_discs", None, "has 5 dimensions"),
        (PICTURE, "segment_discs", "missing.safetensors", "There is no weights file"),
        (PICTURE, "dying_segment", None, "memory ran out"),
    ],
    ids=["no image", "too many axes", "no such model", "process killed"],
)
def test_an_expected_error_is_a_notification(
    viewer: Any,
    make_widget: Callable,
    qtbot: Any,
    notes: list[str],
    image: Any,
    job: str,
    model: str | None,
    message: str,
) -> None:
    if image is not None:
        viewer.add_image(image)
    widget = make_widget(viewer, job)
    if model:
        widget.model.choose_file(model)
        assert "no weights file" in widget.model.about.text()
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: bool(notes) and not widget.bar.is_busy, timeout=RUN_MS)
    assert message in notes[0]
    assert widget.bar.run_button.isEnabled()


def test_a_bug_shows_its_traceback(viewer: Any, make_widget: Callable, qtbot: Any) -> None:
    viewer.add_image(PICTURE)
    widget = make_widget(viewer, "buggy_segment")
    with qtbot.capture_exceptions() as raised:
        run(qtbot, widget)
    assert "ZeroDivisionError" in str(raised[0][1])
    assert not widget.bar.is_busy


def test_the_window_never_waits(viewer: Any, make_widget: Callable, qtbot: Any) -> None:
    """Even while the job keeps the interpreter's lock: it is another interpreter's."""
    from qtpy.QtCore import QTimer

    viewer.add_image(PICTURE)
    widget = make_widget(viewer, "hold_the_lock")
    ticks: list[float] = []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    job = None
    timer.start(5)
    with qtbot.capture_exceptions():
        widget.bar.run_button.click()
        job = widget.bar.job
        with qtbot.waitSignal(job.done, timeout=RUN_MS):
            pass
    timer.stop()
    assert ticks[-1] - ticks[0] > 1.9
    assert len(ticks) > 20, "the window did nothing while the job ran"


def test_a_viewer_closed_while_it_works_leaves_nothing_behind(
    make_napari_viewer: Callable, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from napari_coseg.widgets.background import tasks

    monkeypatch.setattr(tasks, "SEGMENT", "cases.worker_jobs:slow_segment")
    viewer = make_napari_viewer()
    viewer.add_image(PICTURE)

    def start() -> int:
        _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
        widget.bar.run_button.click()
        qtbot.waitUntil(lambda: widget.bar.progress.value() > 0, timeout=RUN_MS)
        return widget.worker.pid

    pid = start()
    viewer.close()
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=RUN_MS)
    assert not [thread for thread in threading.enumerate() if thread.name == f"napari-coseg {pid}"]
