"""The Measure widget: one selection in table, plots and viewer, and what it says of old numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.widget_values import RUN_MS, UM
from napari_coseg.core.errors import OutputError, SettingsError
from napari_coseg.widgets.measure.plots import FEWEST_BINS, MOST_BINS, bin_edges, inside_lasso
from napari_coseg.widgets.measure.table import TableModel, shown

pytest_plugins = ["cases.widget_fixtures"]

SHAPE = (60, 80)
RED, BLUE = (
    [{"id": 1, "name": "red", "color": [200, 0, 0]}],
    [{"id": 2, "name": "blue", "color": [0, 0, 200]}],
)
GLAND = [{"id": 1, "name": "gland", "color": [230, 159, 0]}]
# Id, rows, columns, class: objects 1 to 3 lie in the gland.
OBJECTS = [
    (1, slice(2, 6), slice(2, 6), "red"),
    (2, slice(10, 18), slice(4, 10), "blue"),
    (3, slice(30, 34), slice(10, 14), "blue"),
    (5, slice(40, 52), slice(60, 72), "red"),
    (9, slice(5, 9), slice(70, 74), "red"),
]


def drawn_labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    for label, rows, columns, _ in OBJECTS:
        labels[rows, columns] = label
    return labels


def metadata(kind: str, classes: list[dict], **provenance: Any) -> dict[str, Any]:
    about = {"kind": kind, "image": "biopsy", "classes": classes, "pixel_size_um": [0.5, 0.5]}
    return {"napari_coseg": {**about, "provenance": {"axes": "YXC", **provenance}}}


def add_layers(viewer: Any) -> None:
    place = {"scale": (0.5, 0.5), "units": (UM, UM), "translate": (3, 4)}
    picture = np.full((*SHAPE, 3), 240, np.uint8)
    picture[drawn_labels() > 0] = (90, 60, 150)
    regions = np.zeros(SHAPE, np.uint8)
    regions[:, :40] = 1
    viewer.add_image(picture, name="biopsy", **place)
    viewer.add_labels(regions, name="biopsy regions", metadata=metadata("regions", GLAND), **place)
    viewer.add_labels(
        drawn_labels(),
        name="biopsy objects",
        metadata=metadata("objects", RED + BLUE),
        features=pd.DataFrame(
            {
                "index": [entry[0] for entry in OBJECTS],
                "class": [entry[3] for entry in OBJECTS],
                "probability": [0.9, 0.8, 0.7, 0.6, 0.5],
            }
        ),
        **place,
    )


@pytest.fixture
def widget(viewer: Any, worker: Any) -> Any:
    from napari_coseg.widgets.measure.widget import MeasureWidget

    add_layers(viewer)
    widget = MeasureWidget(viewer, worker)
    yield widget
    widget.close()


def measure(qtbot: Any, widget: Any) -> None:
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)


def rings(viewer: Any) -> Any:
    found = [layer for layer in viewer.layers if layer.name.endswith(": selected")]
    return found[0] if found else None


def ids_in_table(widget: Any) -> list[int]:
    rows = sorted({index.row() for index in widget.table.selectionModel().selectedRows()})
    return widget.objects["id"].to_numpy()[widget.table.rows.order[rows]].tolist()


# ---------------------------------------------------------------------------------------------
# Measuring


@pytest.mark.gui
def test_all_is_measured_of_the_layers_that_belong_together(widget: Any, qtbot: Any) -> None:
    assert widget.layers.objects_box.currentText() == "biopsy objects"
    assert widget.layers.regions_box.currentText() == "biopsy regions"
    assert widget.layers.image_box.currentText() == "biopsy"
    assert widget.layers.size.text() == "0.5 µm"
    measure(qtbot, widget)
    assert "5 objects" in widget.bar.text.text()
    table = widget.objects.set_index("id")
    assert table["area_um2"].to_dict() == {1: 4.0, 2: 12.0, 3: 4.0, 5: 36.0, 9: 4.0}
    assert table["class"].tolist() == ["red", "blue", "blue", "red", "red"]
    assert table["region"].tolist() == ["gland"] * 3 + ["background"] * 2
    assert (table["hematoxylin_od_mean"] > 0.2).all()
    summary = widget.summary.set_index(["region", "class"])
    assert summary.loc[("gland", "blue"), "objects"] == 2
    assert summary.loc[("gland", "blue"), "objects_per_mm2"] == pytest.approx(2 / (600 * 1e-6))
    assert widget.table.rows.rowCount() == 5
    assert "region_id" not in widget.table.rows.columns


@pytest.mark.gui
def test_labels_of_a_part_of_the_image(viewer: Any, worker: Any, qtbot: Any) -> None:
    from napari_coseg.widgets.measure.widget import MeasureWidget

    picture = np.zeros((50, 40), np.uint8)
    picture[20:30, 10:20] = 7
    viewer.add_image(picture, name="biopsy", scale=(0.5, 0.5), units=(UM, UM))
    labels = np.zeros((12, 14), np.int32)
    labels[:10, :10] = 1
    viewer.add_labels(labels, metadata=metadata("objects", [], axes="YX", region_offset=[20, 10]))
    widget = MeasureWidget(viewer, worker)
    measure(qtbot, widget)
    assert widget.objects["intensity_mean"].tolist() == [7]
    assert widget.objects["intensity_std"].tolist() == [0]
    widget.close()


@pytest.mark.gui
def test_a_stack(viewer: Any, worker: Any, qtbot: Any) -> None:
    from napari_coseg.widgets.measure.widget import MeasureWidget

    labels = np.zeros((6, *SHAPE), np.int32)
    labels[4:6, 10:20, 10:20] = 1
    viewer.add_labels(labels, scale=(2, 0.5, 0.5), units=(UM,) * 3)
    viewer.add_image(np.ones(labels.shape, np.uint8), scale=(2, 0.5, 0.5), units=(UM,) * 3)
    widget = MeasureWidget(viewer, worker)
    measure(qtbot, widget)
    assert widget.objects["volume_um3"].tolist() == [100.0]
    assert "intensity_mean" in widget.objects
    viewer.dims.set_current_step(0, 0)
    widget.select(np.array([0]))
    assert viewer.dims.current_step[0] in (4, 5)
    assert rings(viewer).ndim == 3
    widget.close()


@pytest.mark.gui
@pytest.mark.parametrize(
    ("part", "moves"),
    [
        pytest.param((0, 0), False, id="in the middle"),
        pytest.param((0.97, 0), False, id="near an edge"),
        pytest.param((-0.97, 0.97), False, id="in a corner"),
        pytest.param((1.03, 0), True, id="out of view"),
        pytest.param((0, -8), True, id="far away"),
    ],
)
def test_only_what_is_out_of_view_is_moved_into_it(
    viewer: Any, qapp: Any, part: tuple[float, float], moves: bool
) -> None:
    """`part` is of the way from the middle of the view to its edge."""
    from napari_coseg.widgets.measure.viewer import ViewerLink

    add_layers(viewer)
    link = ViewerLink(viewer)
    link.follow(viewer.layers["biopsy objects"])
    camera, place = viewer.scene.camera, np.array([45.5 * 0.5 + 3, 65.5 * 0.5 + 4])
    camera.zoom = 40.0
    half = np.asarray(viewer.canvas.viewbox_size(viewer.layers)) / camera.zoom / 2
    camera.center = (0, *(place - part * half))
    before = camera.center
    row = {"id": [5], "area_um2": [36.0], "centroid_y": [45.5], "centroid_x": [65.5]}
    link.show_objects(pd.DataFrame(row), [0.5, 0.5])
    assert camera.zoom == 40.0
    np.testing.assert_allclose(camera.center[-2:], place if moves else before[-2:])
    link.close()


@pytest.mark.gui
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, v: v.layers.clear(), "There are no objects to measure"),
        (
            lambda w, v: (
                v.add_labels(np.ones((9, 9), int)) and w.layers.objects_box.setCurrentIndex(3)
            ),
            "pixel size of 'Labels' is not known",
        ),
        (
            lambda w, v: (
                v.add_image(np.zeros((9, 9)), name="other"),
                w.layers.image_box.setCurrentIndex(2),
            ),
            "choose the image that the labels belong to",
        ),
    ],
    ids=["no objects", "no pixel size", "another image"],
)
def test_what_cannot_be_measured_is_reported(
    viewer: Any, widget: Any, notes: list[str], change: Callable, message: str
) -> None:
    change(widget, viewer)
    widget.bar.run_button.click()
    assert not widget.bar.is_busy
    assert len(notes) == 1 and message in notes[0]


# ---------------------------------------------------------------------------------------------
# One selection


@pytest.mark.gui
def test_a_row_is_shown_in_the_viewer(viewer: Any, widget: Any, qtbot: Any) -> None:
    measure(qtbot, widget)
    before = viewer.layers.selection.active
    widget.table.selectRow(3)
    objects, ring = viewer.layers["biopsy objects"], rings(viewer)
    assert objects.selected_label == 5
    assert widget.selected_ids == [5]
    np.testing.assert_allclose(ring.data, [[45.5, 65.5]])
    np.testing.assert_allclose(ring.scale, objects.scale)
    np.testing.assert_allclose(ring.translate, objects.translate)
    assert ring.size[0] > 12
    assert viewer.layers.selection.active is before
    widget.layers.image_box.setCurrentIndex(0)
    widget.clear_button.click()
    assert rings(viewer) is None
    assert widget.layers.image_box.currentIndex() == 0, "what was chosen stays chosen"
    assert widget.selected_ids == []


@pytest.mark.gui
def test_a_click_on_an_object_selects_its_row(viewer: Any, widget: Any, qtbot: Any) -> None:
    from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks

    measure(qtbot, widget)
    objects = viewer.layers["biopsy objects"]

    def click(y: int, x: int) -> None:
        event = SimpleNamespace(
            type="mouse_press",
            modifiers=[],
            position=objects.data_to_world((y, x)),
            view_direction=None,
            dims_displayed=[0, 1],
        )
        mouse_press_callbacks(viewer, event)
        event.type = "mouse_release"
        mouse_release_callbacks(viewer, event)

    click(32, 12)
    assert (widget.selected_ids, ids_in_table(widget)) == ([3], [3])
    click(0, 79)
    assert widget.selected_ids == [3], "a click beside objects changes nothing"
    objects.mode = "paint"
    click(45, 65)
    assert widget.selected_ids == [3], "neither does painting"
    objects.selected_label = 9
    assert (widget.selected_ids, ids_in_table(widget)) == ([9], [9])


@pytest.mark.gui
def test_a_lasso_selects_in_table_and_viewer(viewer: Any, widget: Any, qtbot: Any) -> None:
    measure(qtbot, widget)
    widget.plots.x_box.setCurrentIndex(widget.plots.x_box.findData("centroid_x"))
    widget.plots.y_box.setCurrentIndex(widget.plots.y_box.findData("centroid_y"))
    around = np.array([[0, 0], [20, 0], [20, 40], [0, 40]], float)  # x, y
    widget.plots.box.drawn.emit(around, False)
    assert sorted(widget.selected_ids) == [1, 2, 3]
    assert ids_in_table(widget) == [1, 2, 3]
    assert len(rings(viewer).data) == 3
    widget.plots.box.drawn.emit(around + np.array([55, 0]), True)
    assert sorted(widget.selected_ids) == [1, 2, 3, 9]
    widget.plots.box.clicked.emit(65.5, 45.5, False)
    assert widget.selected_ids == [5]


@pytest.mark.gui
def test_a_range_of_the_histogram_selects(widget: Any, qtbot: Any) -> None:
    from napari_coseg.widgets.measure.plots import HISTOGRAM

    measure(qtbot, widget)
    widget.plots.kind_box.setCurrentIndex(widget.plots.kind_box.findData(HISTOGRAM))
    assert widget.plots.x_box.currentData() == "area_um2"
    widget.plots.box.drawn.emit(np.array([[10.0, 0], [40.0, 0], [40.0, 9], [10.0, 9]]), False)
    assert widget.selected_ids == [2, 5]


@pytest.mark.gui
def test_a_row_of_the_summary_selects_what_it_counts(widget: Any, qtbot: Any) -> None:
    measure(qtbot, widget)
    at = (widget.summary["region"] == "gland") & (widget.summary["class"] == "blue")
    widget.summary_table.selectRow(int(np.flatnonzero(at)[0]))
    assert widget.selected_ids == [2, 3]
    widget.summary_table.selectRow(len(widget.summary) - 1)
    assert widget.selected_ids == [1, 2, 3, 5, 9]


@pytest.mark.gui
def test_sorting_keeps_the_selection(widget: Any, qtbot: Any) -> None:
    from qtpy.QtCore import Qt

    measure(qtbot, widget)
    widget.table.selectRow(1)
    area = widget.table.rows.columns.index("area_um2")
    widget.table.horizontalHeader().setSortIndicator(area, Qt.SortOrder.DescendingOrder)
    assert widget.objects["id"].to_numpy()[widget.table.rows.order].tolist() == [5, 2, 1, 3, 9]
    assert (widget.selected_ids, ids_in_table(widget)) == ([2], [2])
    widget.select(np.array([0, 4]))
    assert widget.objects["id"].to_numpy()[widget.table.rows.order].tolist() == [1, 9, 5, 2, 3]


# ---------------------------------------------------------------------------------------------
# Numbers that are out of date


@pytest.mark.gui
def test_an_edit_is_noticed_taken_back_and_measured(viewer: Any, widget: Any, qtbot: Any) -> None:
    measure(qtbot, widget)
    objects = viewer.layers["biopsy objects"]

    def says(text: str) -> None:
        qtbot.waitUntil(lambda: text in widget.notice.text(), timeout=RUN_MS)

    objects.contour = 1  # redrawn, not changed
    qtbot.waitUntil(lambda: not widget.watch.is_pending, timeout=RUN_MS)
    assert not widget.notice.text()
    objects.fill((3, 3), 2)
    says("have changed")
    assert widget.bar.run_button.text() == "Measure again"
    objects.undo()
    qtbot.waitUntil(lambda: not widget.notice.text(), timeout=RUN_MS)
    objects.redo()
    says("have changed")
    measure(qtbot, widget)
    assert widget.objects["id"].tolist() == [2, 3, 5, 9]
    assert (widget.notice.isVisible(), widget.bar.run_button.text()) == (False, "Measure")
    objects.features = objects.features.assign(**{"class": "red"})
    says("have changed")


@pytest.mark.gui
def test_removed_layers_are_reported(viewer: Any, widget: Any, qtbot: Any) -> None:
    measure(qtbot, widget)
    widget.select(np.array([0, 1]))
    viewer.layers.remove("biopsy objects")
    assert "removed" in widget.notice.text()
    widget.select(np.array([2]))
    assert rings(viewer) is None


# ---------------------------------------------------------------------------------------------
# Files and windows


@pytest.mark.gui
def test_both_tables_are_saved(widget: Any, qtbot: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nothing has been measured"):
        widget.save(tmp_path / "a.csv")
    measure(qtbot, widget)
    paths = widget.save(tmp_path / "biopsy_measurements.csv")
    assert [path.name for path in paths] == ["biopsy_measurements.csv", "biopsy_summary.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(paths[0]), widget.objects, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(paths[1]), widget.summary, check_dtype=False)
    with pytest.raises(OutputError, match="already exists"):
        widget.save(tmp_path / "biopsy.csv")


@pytest.mark.gui
def test_from_the_menu_in_a_window(make_napari_viewer_proxy: Callable, qtbot: Any) -> None:
    """Driven as a person does: a click in the table, a lasso drawn with the mouse."""
    from qtpy.QtCore import QPoint, Qt

    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1400, 950)
    add_layers(viewer)
    dock, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Measure")
    assert dock.minimumSizeHint().width() < 380
    measure(qtbot, widget)
    place = widget.table.visualRect(widget.table.rows.index(1, 0)).center()
    qtbot.mouseClick(widget.table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert widget.selected_ids == [2]
    assert viewer.layers["biopsy objects"].selected_label == 2
    widget.tabs.setCurrentWidget(widget.plots)
    plot = widget.plots.plot
    qtbot.waitUntil(lambda: widget.plots.box.sceneBoundingRect().height() > 100, timeout=RUN_MS)
    area = plot.mapFromScene(widget.plots.box.sceneBoundingRect()).boundingRect()
    corners = [area.topLeft(), area.topRight(), area.bottomRight(), area.bottomLeft()]
    middle = area.center()
    drag(qtbot, plot, [corner + (middle - corner) / 15 for corner in corners])
    assert sorted(widget.selected_ids) == [1, 2, 3, 5, 9]
    drag(qtbot, plot, [middle + QPoint(0, d) for d in (0, 1, 2, 3)])
    assert widget.selected_ids == []
    viewer.theme = "light"
    viewer.window.remove_dock_widget(dock)
    assert rings(viewer) is None


def drag(qtbot: Any, view: Any, points: list[Any]) -> None:
    """Left button down, through all points, up."""
    from qtpy.QtCore import QEvent, QPointF, Qt
    from qtpy.QtGui import QMouseEvent
    from qtpy.QtWidgets import QApplication

    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    steps = [(QEvent.Type.MouseButtonPress, points[0], left, left)]
    steps += [(QEvent.Type.MouseMove, point, none, left) for point in points]
    steps += [(QEvent.Type.MouseButtonRelease, points[-1], left, none)]
    for kind, point, button, buttons in steps:
        at = QPointF(point)
        over = QPointF(view.viewport().mapToGlobal(point))
        modifiers = Qt.KeyboardModifier.NoModifier
        event = QMouseEvent(kind, at, over, button, buttons, modifiers)
        QApplication.sendEvent(view.viewport(), event)
        qtbot.wait(20)  # moves that come faster than any screen shows are left out


# ---------------------------------------------------------------------------------------------
# Parts


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 0), (4, 0), (4, 4), (0, 4)], [True, True, False]),
        ([(0, 0), (4, 0), (4, 4), (2, 2), (0, 4)], [True, False, False]),
        ([(0, 0), (4, 4)], [False, False, False]),
    ],
    ids=["square", "with a notch", "a line"],
)
def test_inside_a_lasso(points: list, expected: list[bool]) -> None:
    x, y = np.array([1.0, 2.0, np.nan]), np.array([1.5, 3.5, 1.0])
    assert inside_lasso(x, y, np.array(points, float)).tolist() == expected


@pytest.mark.parametrize(
    ("values", "least", "most"),
    [
        (np.random.default_rng(0).normal(size=1000), 20, 40),
        (np.array([1.0, np.nan, np.inf]), FEWEST_BINS, MOST_BINS),
        (np.r_[np.random.default_rng(0).normal(size=1000), 1e12], MOST_BINS, MOST_BINS),
        (np.zeros(0), 1, 1),
    ],
    ids=["many", "one", "an outlier", "none"],
)
def test_bins_are_neither_few_nor_very_many(values: np.ndarray, least: int, most: int) -> None:
    edges = bin_edges(values)
    assert least <= len(edges) - 1 <= most
    assert (np.diff(edges) > 0).all()


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.123456, "solidity", "0.1235"),
        (12345.6, "area_um2", "12,346"),
        (0.5, "area_fraction", "50.0 %"),
        (np.float64("nan"), "nearest_um", ""),
        (np.int64(12345), "id", "12345"),
        (np.int64(12345), "objects", "12,345"),
        ("gland", "region", "gland"),
    ],
)
def test_cells(value: Any, name: str, text: str) -> None:
    assert shown(value, name) == text


@pytest.mark.parametrize(
    ("column", "falls", "order"),
    [
        ("area_um2", False, [2, 0, 1, 3]),
        ("area_um2", True, [1, 0, 2, 3]),
        ("class", False, [1, 3, 0, 2]),
        ("class", True, [0, 2, 1, 3]),
    ],
)
def test_sorted_by_numbers_and_texts(column: str, falls: bool, order: list[int]) -> None:
    from qtpy.QtCore import Qt

    table = pd.DataFrame({"area_um2": [2.0, 11, 1, np.nan], "class": ["b", "a", "b", "a"]})
    model = TableModel()
    model.show_table(table)
    kind = Qt.SortOrder.DescendingOrder if falls else Qt.SortOrder.AscendingOrder
    model.sort(list(table).index(column), kind)
    assert model.order.tolist() == order
