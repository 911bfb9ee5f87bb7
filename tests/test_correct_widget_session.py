"""The Correct widget: what begins, ends and accompanies corrections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.correct_hand import add_layers, assert_drawn, assert_same, draw, press, state
from cases.label_editors import plane
from cases.widget_values import RUN_MS

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]
CLEANUP = "small pieces and holes"
"""Name of the preview's layer."""


@pytest.fixture
def widget(viewer: Any, qtbot: Any) -> Iterator[Any]:
    from napari_coseg.widgets.correct.widget import CorrectWidget

    add_layers(viewer, plane())
    widget = CorrectWidget(viewer)
    yield widget
    widget.close()


@pytest.fixture
def work(widget: Any, qtbot: Any) -> Any:
    start(widget, qtbot)
    return widget.interaction


def start(widget: Any, qtbot: Any) -> None:
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.interaction is not None, timeout=RUN_MS)


# ---------------------------------------------------------------------------------------------
# Beginning and end


def test_the_pair_of_the_newest_run_is_proposed(viewer: Any, widget: Any) -> None:
    assert widget.pair.objects_box.currentText() == "biopsy objects"
    assert widget.pair.regions_box.currentText() == "biopsy regions"
    for name in ("biopsy regions [2]", "biopsy objects [2]"):
        kind = name.split()[1]
        data = viewer.layers[f"biopsy {kind}"]
        viewer.add_labels(data.data.copy(), name=name, metadata=data.metadata)
    widget.pair.objects_box.setCurrentText("biopsy objects [2]")
    assert widget.pair.regions_box.currentText() == "biopsy regions [2]"


@pytest.mark.parametrize(
    ("objects", "regions"),
    [
        pytest.param("my nuclei", "biopsy regions", id="the objects"),
        pytest.param("my nuclei", "my tissue", id="both"),
        pytest.param("biopsy objects", "my tissue", id="the regions"),
    ],
)
def test_the_pair_of_a_run_is_found_under_other_names(
    viewer: Any, qtbot: Any, objects: str, regions: str
) -> None:
    from napari_coseg.widgets.correct.widget import CorrectWidget

    old_regions, old_objects = add_layers(viewer, plane())
    old_regions.metadata["napari_coseg"]["run"] = {"key": "old"}
    old_objects.metadata["napari_coseg"]["run"] = {"key": "old"}
    old_regions.name, old_objects.name = regions, objects
    for newer in add_layers(viewer, plane()):
        newer.metadata["napari_coseg"]["run"] = {"key": "new"}
    widget = CorrectWidget(viewer)
    widget.pair.objects_box.setCurrentText(old_objects.name)
    assert widget.pair.objects is old_objects
    assert widget.pair.regions is old_regions
    widget.close()


@pytest.mark.parametrize("kind", ["objects", "regions"])
def test_a_layer_that_is_renamed_stays_chosen(viewer: Any, widget: Any, kind: str) -> None:
    layer = viewer.layers[f"biopsy {kind}"]
    layer.name = "mine"
    assert getattr(widget.pair, kind) is layer
    assert getattr(widget.pair, f"{kind}_box").currentText() == "mine"


def test_one_layer_cannot_be_both_of_a_pair(
    viewer: Any, widget: Any, qtbot: Any, notes: list[str]
) -> None:
    widget.pair.regions_box.setCurrentText("biopsy objects")
    widget.start_button.click()
    qtbot.waitUntil(lambda: bool(notes), timeout=RUN_MS)
    assert "'biopsy objects' is chosen as objects and as regions" in notes[0]
    assert widget.interaction is None
    assert "undo" not in vars(viewer.layers["biopsy objects"])


def test_a_layer_painted_by_hand_is_corrected(viewer: Any, widget: Any, qtbot: Any) -> None:
    """No classes, no regions, no pixel size; ids of 8 bits, which the canvas colours by itself."""
    labels = np.zeros((40, 50), np.uint8)
    labels[5:15, 5:15], labels[5:15, 15:25] = 3, 7
    mine = viewer.add_labels(labels, name="mine")
    widget.pair.objects_box.setCurrentText("mine")
    widget.pair.regions_box.setCurrentText("none")
    start(widget, qtbot)
    press(viewer, "M")
    draw(viewer, mine, [(10, 10), (10, 20)])
    assert np.unique(mine.data).tolist() == [0, 3]
    assert mine.features["area_um2"].tolist() == [200.0]
    refresher = widget.interaction.display.refresher
    qtbot.waitUntil(lambda: refresher.is_done, timeout=RUN_MS)
    assert_drawn(mine)
    mine.undo()
    assert np.unique(mine.data).tolist() == [0, 3, 7]
    assert not widget.parts[-1].isEnabled(), "there are no regions"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda labels: [labels, labels[::2, ::2]], "several resolutions"),
        (lambda labels: labels[:50], "one grid"),
        (lambda labels: -labels, "values below 0"),
    ],
    ids=["multiscale", "another size", "negative"],
)
def test_layers_that_cannot_be_corrected_are_reported(
    viewer: Any, widget: Any, notes: list[str], qtbot: Any, data: Callable, message: str
) -> None:
    labels = viewer.layers["biopsy objects"].data
    viewer.add_labels(data(labels), name="other", multiscale=isinstance(data(labels), list))
    widget.pair.objects_box.setCurrentText("other")
    widget.pair.regions_box.setCurrentText("biopsy regions")
    widget.start_button.click()
    qtbot.waitUntil(lambda: bool(notes), timeout=RUN_MS)
    assert message in notes[0]
    assert widget.interaction is None
    assert widget.start_button.isEnabled()


def test_finishing_leaves_napari_as_it_was(viewer: Any, widget: Any, qtbot: Any) -> None:
    objects = viewer.layers["biopsy objects"]
    keys, of_viewer = dict(objects.keymap), dict(viewer.keymap)
    callbacks = list(viewer.mouse_drag_callbacks)
    start(widget, qtbot)
    widget.interaction.corrector.review([3])
    widget.interaction.corrector.delete([5])
    widget.start_button.click()
    assert [layer.name for layer in viewer.layers] == ["biopsy regions", "biopsy objects"]
    assert (dict(objects.keymap), dict(viewer.keymap)) == (keys, of_viewer)
    assert viewer.mouse_drag_callbacks == callbacks
    assert "undo" not in vars(objects)
    objects.undo()  # nothing of the session: it would leave the table behind
    assert 5 not in objects.data
    start(widget, qtbot)
    assert widget.session.reviewed.ids == {3}, "marks are kept for the next session"
    assert widget.interaction.display.marks_layer.data.any()


def test_a_layer_that_is_removed_ends_the_session(viewer: Any, widget: Any, work: Any) -> None:
    from napari_coseg.widgets.correct.session import SESSIONS

    viewer.layers.remove("biopsy regions")
    assert widget.interaction is None
    assert SESSIONS.open == []
    assert widget.pair.regions_box.currentText() == "none"


def test_sessions_and_steps_are_announced(viewer: Any, widget: Any, qtbot: Any) -> None:
    from napari_coseg.widgets.correct.session import SESSIONS, session_of

    received: list[Any] = []
    SESSIONS.opened.connect(received.append)
    start(widget, qtbot)
    (session,) = received
    assert session_of(viewer.layers["biopsy regions"]) is session
    session.changed.connect(lambda change: received.append((change.how, change.step.edit.name)))
    widget.interaction.corrector.delete([4])
    session.undo()
    session.redo()
    SESSIONS.opened.disconnect(received.append)
    name = "Delete object 4"
    assert received[1:] == [("done", name), ("undone", name), ("redone", name)]


# ---------------------------------------------------------------------------------------------
# Answers that come late


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What threads would have found; each entry delivers it when called."""
    from napari_coseg.widgets.correct import region_cleanup, widget

    found: list[Callable[[], None]] = []

    def later(function: Callable, *arguments: Any, done: Callable, failed: Callable) -> None:
        found.append(lambda: done(function(*arguments)))

    for module in (region_cleanup, widget):
        monkeypatch.setattr(module, "run_in_thread", later)
    return found


def test_a_dock_closed_while_it_measures_begins_no_session(
    viewer: Any, widget: Any, late: list[Callable[[], None]]
) -> None:
    from napari_coseg.widgets.correct.session import SESSIONS

    widget.start_button.click()
    widget.close()
    (answer,) = late
    answer()
    assert (widget.interaction, SESSIONS.open) == (None, [])
    assert "undo" not in vars(viewer.layers["biopsy objects"])


def test_a_cleanup_found_after_the_end_is_not_shown(
    viewer: Any, widget: Any, late: list[Callable[[], None]]
) -> None:
    widget.start_button.click()
    late.pop()()
    form = widget.cleanup_form
    form.preview_button.click()
    assert not form.preview_button.isEnabled()
    widget.start_button.click()
    widget.start_button.click()
    for answer in late[::-1]:  # the second session begins, then the first one's preview comes
        answer()
    assert widget.interaction is not None
    assert CLEANUP not in viewer.layers
    assert form.preview_button.isEnabled()
    assert not form.accept_button.isEnabled()


# ---------------------------------------------------------------------------------------------
# Undo


def test_two_layers_have_one_order(viewer: Any, work: Any) -> None:
    """An object, then the region it lies in: Ctrl-Z on either layer takes the region back first."""
    objects, regions = work.session.layers
    first = state(work)
    work.corrector.delete([int(work.session.editor.index.ids[0])])
    second = state(work)
    regions.fill((65, 80), 1)
    viewer.layers.selection.active = objects
    press(viewer, "Control-Z")
    assert_same(second, state(work))
    viewer.layers.selection.active = regions
    press(viewer, "Control-Z")
    assert_same(first, state(work))


def test_a_new_step_forgets_what_was_undone(work: Any) -> None:
    work.session.regions.fill((65, 80), 1)
    work.session.undo()
    work.corrector.delete([2])
    after = state(work)
    work.session.redo()
    work.session.regions.redo()
    assert_same(after, state(work))


def test_steps_beyond_what_napari_keeps_stay_done(work: Any) -> None:
    """napari's history has a hundred items a layer."""
    limit = work.session.objects._history_limit
    for step in range(limit + 3):
        work.corrector.set_class([7], 1 + step % 2)
    work.session.undo()
    kept = [state(work)]
    for _ in range(limit + 10):
        work.session.undo()
        kept.append(state(work))
    assert_same(kept[-1], kept[-2])
    pd.testing.assert_frame_equal(kept[-1]["table"], work.session.editor.table)
    for _ in range(limit + 10):
        work.session.redo()
    assert work.session.undo_name == "Make epithelial"


def test_strokes_of_napari_are_steps(viewer: Any, work: Any) -> None:
    """Brush, bucket, polygon and `data_setitem`, by napari's own functions."""
    objects = work.session.objects
    before = state(work)
    objects.paint((10, 70), 900)
    objects.fill((10, 70), 901)
    objects.paint_polygon([(40, 90), (40, 120), (60, 120)], 902)
    objects.data_setitem((np.array([0, 0]), np.array([0, 1])), np.array([903, 903]))
    table = work.session.editor.table.set_index("id")
    assert {901, 902, 903} <= set(table.index)
    assert 900 not in table.index
    assert table.loc[903, "area_um2"] == pytest.approx(2 * 0.5 * 0.25)
    for _ in range(4):
        objects.undo()
    assert_same(before, state(work))


def test_other_data_is_not_corrected(work: Any, notes: list[str]) -> None:
    from napari_coseg.core.errors import EditError

    work.session.objects.data = work.session.objects.data.copy()
    with pytest.raises(EditError, match="start again"):
        work.corrector.delete([3])


# ---------------------------------------------------------------------------------------------
# Review, colours, tools, specks


def test_uncertain_objects_come_first_and_reviewed_ones_not_at_all(viewer: Any, work: Any) -> None:
    table = work.session.editor.table.sort_values("class_probability")
    order = table["id"].tolist()
    shown = []
    for _ in range(3):
        press(viewer, "N")
        shown.append(work.display.selected[0])
    assert shown == order[:3]
    press(viewer, "Shift-N")
    assert work.display.selected == (order[1],)
    row = table.set_index("id").loc[order[1]]
    at = work.session.objects.data_to_world((row["centroid_y"], row["centroid_x"]))
    assert viewer.scene.camera.center[-2:] == pytest.approx(at)
    press(viewer, "R")
    press(viewer, "N")
    assert work.display.selected == (order[2],)
    assert f"{len(order) - 1:,} left" in viewer.status
    press(viewer, "Shift-N")
    assert work.display.selected == (order[0],), "the reviewed one is passed over"


def test_colours_follow_the_segment_widget(work: Any) -> None:
    from napari_coseg.widgets import outputs

    objects = work.session.objects
    one, other = work.session.editor.index.ids[:2].tolist()
    work.display.select([one])
    colors = {}
    for by in outputs.COLOR_BY:
        outputs.color_objects(objects, by)
        assert objects.colormap.by == by
        assert_drawn(objects)
        colors[by] = objects.get_color(other).tolist()
        assert objects.get_color(one)[:3] * 255 == pytest.approx(objects.colormap.highlight)
    assert colors["class"] != colors["id"]
    work.corrector.set_class([other], 1)
    work.corrector.set_class([other], 2)
    outputs.color_objects(objects, "class")
    assert (objects.get_color(other)[:3] * 255).tolist() == [0, 0, 255]


def test_a_tool_is_put_down_where_napari_takes_over(viewer: Any, widget: Any, work: Any) -> None:
    objects = work.session.objects
    press(viewer, "M")
    assert widget.tools["M"].isChecked()
    assert not objects.mouse_pan
    objects.mode = "paint"
    assert (work.tool, objects.mode) == (None, "paint")
    assert not widget.tools["M"].isChecked()
    press(viewer, "W")
    assert viewer.layers.selection.active is work.session.regions
    assert objects.mode == "pan_zoom"
    viewer.layers.selection.active = objects
    assert work.tool is None
    assert work.session.regions.mouse_pan


def test_a_held_key_pans(viewer: Any, work: Any) -> None:
    from napari.utils.key_bindings import KeymapHandler

    objects = work.session.objects
    press(viewer, "M")
    handler = KeymapHandler()
    handler.keymap_providers = [objects, viewer]
    before = state(work)
    handler.press_key("Space")
    assert objects.mouse_pan
    draw(viewer, objects, [(5, 5), (150, 150)])
    handler.release_key("Space")
    assert not objects.mouse_pan
    assert_same(before, state(work))


def test_small_pieces_are_shown_before_they_are_removed(
    viewer: Any, widget: Any, work: Any, qtbot: Any
) -> None:
    regions = work.session.regions
    regions.data_setitem((np.array([150, 150]), np.array([5, 6])), np.array([3, 3]))
    before = state(work)
    form = widget.cleanup_form
    form.piece_box.setValue(10)
    form.preview_button.click()
    qtbot.waitUntil(form.accept_button.isEnabled, timeout=RUN_MS)
    assert np.argwhere(viewer.layers[CLEANUP].data).tolist() == [
        [150, 5],
        [150, 6],
    ]
    assert_same(before, state(work))
    form.accept_button.click()
    assert regions.data[150, 5] == 0
    assert CLEANUP not in viewer.layers
    work.session.undo()
    assert_same(before, state(work))
    form.preview_button.click()
    qtbot.waitUntil(form.accept_button.isEnabled, timeout=RUN_MS)
    form.discard_button.click()
    assert_same(before, state(work))
    assert CLEANUP not in viewer.layers


# ---------------------------------------------------------------------------------------------
# In a window


@pytest.mark.filterwarnings("ignore:Private attribute access")
def test_a_hand_in_a_real_window(make_napari_viewer_proxy: Callable, qtbot: Any) -> None:
    """Mouse and keys as Qt sends them: two objects become one, and two again."""
    from qtpy.QtCore import QPoint, Qt

    viewer = make_napari_viewer_proxy(show=True)
    labels = np.zeros((100, 100), np.int32)
    labels[30:70, 20:45], labels[30:70, 55:80] = 1, 2
    layer = viewer.add_labels(labels, name="mine")
    _, widget = viewer.window.add_plugin_dock_widget("napari-coseg", "Correct")
    start(widget, qtbot)
    canvas = viewer.window._qt_viewer.canvas.native
    zoom, center = viewer.scene.camera.zoom, np.array(viewer.scene.camera.center[-2:])
    middle = np.array([canvas.height(), canvas.width()]) / 2

    def place(y: float, x: float) -> QPoint:
        row, column = middle + (np.array([y, x]) - center) * zoom
        return QPoint(round(column), round(row))

    qtbot.keyClick(canvas, Qt.Key.Key_M)
    assert widget.tools["M"].isChecked()
    qtbot.mousePress(canvas, Qt.MouseButton.LeftButton, pos=place(50, 30))
    for x in (40, 50, 60, 70):
        qtbot.mouseMove(canvas, place(50, x))
        qtbot.wait(20)
    qtbot.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=place(50, 70))
    assert np.unique(layer.data).tolist() == [0, 1]
    assert widget.status.text() == "Merged 2 objects into 1"
    qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.unique(layer.data).tolist() == [0, 1, 2]
    assert layer.features["index"].tolist() == [1, 2]
