"""The Segment widget, from what it understands of an image to the layers that come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from napari_coseg.checkpoints import native
from napari_coseg.inference.settings import InferenceSettings
from stub_models import StubModel, disc_picture, spread_discs

pytestmark = pytest.mark.gui

UM = "micrometer"
SHAPE = (160, 200)
TISSUE = (slice(20, 120), slice(30, 180))
CENTRES = spread_discs(SHAPE, 24)
PICTURE, TRUTH = disc_picture(SHAPE, CENTRES, tissue=TISSUE)
RUN_MS = 120_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "discs.safetensors"
    native.save(path, StubModel())
    return path


@pytest.fixture(scope="module")
def worker(qapp: Any) -> Iterator[Any]:
    """One process for all tests of this file: torch takes seconds to import."""
    from napari_coseg.widgets.worker import Worker

    worker = Worker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "OMP_NUM_THREADS", "1"
        )  # more threads only wait for each other on a busy machine
        worker.prepare()
    yield worker
    worker.close()


@pytest.fixture
def notes() -> Iterator[list[str]]:
    """Messages of napari's notifications."""
    from napari.utils.notifications import notification_manager

    found: list[str] = []

    def hear(event: Any) -> None:
        found.append(event.message)

    notification_manager.notification_ready.connect(hear)
    yield found
    notification_manager.notification_ready.disconnect(hear)


@pytest.fixture
def viewer() -> Any:
    """All of a viewer but its window."""
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def make_widget(
    weights: Path, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """A widget on a viewer, with the stub model chosen; `job` stands for the segmentation."""
    from napari_coseg.widgets import tasks
    from napari_coseg.widgets.segment import SegmentWidget

    kept = []  # nothing else holds a widget without a window; closing it would end the worker

    def make(viewer: Any, job: str = "segment_discs") -> Any:
        monkeypatch.setattr(tasks, "SEGMENT", f"worker_jobs:{job}")
        widget = SegmentWidget(viewer, worker)
        kept.append(widget)
        widget.model.choose_file(weights)
        return widget

    yield make
    for widget in kept:
        widget.image.disconnect_viewer()


def run(qtbot: Any, widget: Any) -> None:
    widget.bar.run_button.click()
    assert widget.bar.is_busy
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)


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
    assert "Set here" in choice.source.text()
    choice.axes_box.setCurrentIndex(choice.axes_box.findData("CYX"))
    choice.channels_box.setCurrentIndex(2)
    chosen = choice.chosen()
    assert (chosen.axes, chosen.channels, chosen.pixel_size_um) == ("CYX", [2], (0.5, 0.5))
    choice.size_box.setValue(0)
    assert choice.chosen().pixel_size_um is None
    choice.reset_button.click()
    assert choice.chosen().pixel_size_um == (0.5, 0.5)


def test_a_change_of_the_layers_scale_is_seen(viewer: Any, make_widget: Callable) -> None:
    layer = viewer.add_image(PICTURE)
    choice = make_widget(viewer).image
    layer.scale = (0.3, 0.3)
    assert choice.pixel_size.um == (0.3, 0.3)


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
# Runs


def test_from_the_menu_to_the_layers(
    make_napari_viewer_proxy: Callable,
    qtbot: Any,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sample and widget as the menus open them, in a window, with a process of its own."""
    from napari_coseg.widgets import tasks

    monkeypatch.setattr(tasks, "SEGMENT", "worker_jobs:segment_discs")
    viewer = make_napari_viewer_proxy(show=True)
    (sample,) = viewer.open_sample("napari-coseg", "colon")
    dock, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
    assert widget.image.layer.name == sample.name
    widget.model.choose_file(weights)
    qtbot.waitUntil(lambda: widget.worker.pid is not None, timeout=5000)
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


def test_the_settings_of_the_form_reach_the_run(
    viewer: Any, make_widget: Callable, qtbot: Any
) -> None:
    viewer.add_image(PICTURE, name="biopsy")
    widget = make_widget(viewer)
    widget.settings.boxes["min_object_area_um2"].setValue(1000)
    run(qtbot, widget)
    assert viewer.layers["biopsy objects"].data.max() == 0


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
    began = time.monotonic()
    widget.bar.cancel_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=2000)
    assert time.monotonic() - began < 2
    assert widget.bar.text.text() == "Cancelled."
    assert widget.bar.run_button.isEnabled()
    assert len(viewer.layers) == 1
    assert not notes


@pytest.mark.parametrize(
    ("image", "job", "model", "told"),
    [
        (None, "segment_discs", None, "There is no image to segment; open one"),
        (np.zeros((2,) * 5), "segment_discs", None, "has 5 dimensions"),
        (PICTURE, "segment_discs", "gone.safetensors", "There is no weights file"),
        (PICTURE, "dying_segment", None, "memory ran out"),
    ],
    ids=["no image", "too many axes", "no such model", "process killed"],
)
def test_a_mendable_error_is_a_notification(
    viewer: Any,
    make_widget: Callable,
    qtbot: Any,
    notes: list[str],
    image: Any,
    job: str,
    model: str | None,
    told: str,
) -> None:
    if image is not None:
        viewer.add_image(image)
    widget = make_widget(viewer, job)
    if model:
        widget.model.choose_file(model)
        assert "no weights file" in widget.model.about.text()
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: bool(notes) and not widget.bar.is_busy, timeout=RUN_MS)
    assert told in notes[0]
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
        job = widget.bar._job
        with qtbot.waitSignal(job.done, timeout=RUN_MS):
            pass
    timer.stop()
    longest = np.diff(ticks).max()
    print(f"longest gap in the event loop: {longest * 1000:.0f} ms of {ticks[-1] - ticks[0]:.1f} s")
    assert ticks[-1] - ticks[0] > 1.9
    assert longest < 0.5


def test_a_viewer_closed_while_it_works_leaves_nothing_behind(
    make_napari_viewer: Callable, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from napari_coseg.widgets import tasks

    monkeypatch.setattr(tasks, "SEGMENT", "worker_jobs:slow_segment")
    viewer = make_napari_viewer()
    viewer.add_image(PICTURE)

    def start() -> int:
        _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Segment")
        widget.bar.run_button.click()
        qtbot.waitUntil(lambda: widget.bar.progress.value() > 0, timeout=RUN_MS)
        return widget.worker.pid

    pid = start()
    viewer.close()
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=2000)
    assert not [thread for thread in threading.enumerate() if thread.name == f"napari-coseg {pid}"]


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
    ids=["at once", "too early", "a quarter", "begun half way", "standing still"],
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
    from napari_coseg.export.registry import export
    from napari_coseg.inference import segment
    from napari_coseg.types import Image
    from napari_coseg.widgets import show

    image = Image(PICTURE, "YXC", (0.5, 0.5), "biopsy")
    prediction = segment(image, StubModel())
    files = export(prediction, image, tmp_path, ("ome-tiff", "csv"))
    viewer = make_napari_viewer()
    show.show(viewer, image, show.read_prediction(*files))
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

    missing = [str(tmp_path / name) for name in ("a.png", "r.tif", "o.tif", "t.csv")]
    assert show.main(missing) == 2
    assert "there is no image file" in capsys.readouterr().err
