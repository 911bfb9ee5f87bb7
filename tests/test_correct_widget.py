"""The Correct widget: every tool and key, drawn on a viewer, undone and redone bit by bit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.correct_hand import (
    add_layers,
    assert_drawn,
    assert_same,
    differs,
    draw,
    point_at,
    press,
    state,
)
from cases.label_editors import measured_anew, plane, stack
from cases.widget_values import RUN_MS

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]
EDITORS = [pytest.param(plane, id="plane"), pytest.param(stack, id="stack")]


@pytest.fixture(params=EDITORS)
def work(request: Any, viewer: Any, qtbot: Any) -> Iterator[Any]:
    """The widget at work on a pair of layers; as a bundle of what a session needs."""
    yield from started(request.param(), viewer, qtbot)


@pytest.fixture
def flat(viewer: Any, qtbot: Any) -> Iterator[Any]:
    yield from started(plane(), viewer, qtbot)


def started(editor: Any, viewer: Any, qtbot: Any) -> Iterator[Any]:
    from napari_coseg.widgets.correct.widget import CorrectWidget

    n = editor.labels.ndim
    add_layers(viewer, editor, scale=editor.pixel_size_um, translate=(3.0, 5.0, 7.0)[:n])
    if n == 3:
        viewer.dims.set_point(0, 3.0 + editor.pixel_size_um[0])
    widget = CorrectWidget(viewer)
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.interaction is not None, timeout=RUN_MS)
    widget.interaction.widget = widget
    yield widget.interaction
    widget.close()


# ---------------------------------------------------------------------------------------------
# Actions; each is done, undone and redone below


def ids(work: Any) -> list[int]:
    """Objects of the slice in view, the large first."""
    editor = work.session.editor
    here = np.unique(plane_of(work))
    return sorted((int(i) for i in here if i), key=lambda i: -editor.index.count(i))


def plane_of(work: Any) -> np.ndarray:
    labels = work.session.editor.labels
    return labels if labels.ndim == 2 else labels[1]


def at(work: Any, points: Any) -> list[tuple[float, ...]]:
    """Points of the plane in view, on the axes of the layer."""
    depth = () if work.session.editor.labels.ndim == 2 else (1.0,)
    return [(*depth, *map(float, point)) for point in points]


def middle(work: Any, object_id: int) -> tuple[float, ...]:
    pixels = np.argwhere(plane_of(work) == object_id)
    return tuple(pixels[len(pixels) // 2].astype(float))


def by_hand(work: Any, key: str, points: Any, **keywords: Any) -> None:
    press(work.viewer, key)
    draw(work.viewer, work.session.objects, at(work, points), **keywords)


def select(work: Any, count: int = 1) -> None:
    press(work.viewer, "S")
    for number, object_id in enumerate(ids(work)[:count]):
        place = at(work, [middle(work, object_id)])
        draw(work.viewer, work.session.objects, place, shift=number > 0)
    assert len(work.display.selected) == count


def merge_by_stroke(work: Any) -> None:
    one, other = ids(work)[:2]
    by_hand(work, "M", [middle(work, one), middle(work, other)])


def merge_selected(work: Any) -> None:
    select(work, 3)
    press(work.viewer, "M")


def split_by_line(work: Any) -> None:
    rows, columns = work.session.editor.index.box(ids(work)[0])[-2:]
    y = (rows.start + rows.stop) // 2
    by_hand(work, "C", [(y, columns.start - 2), (y, columns.stop + 1)])


def split_by_clicks(work: Any) -> None:
    pixels = np.argwhere(plane_of(work) == ids(work)[0])
    by_hand(work, "C", [pixels[2]])
    draw(work.viewer, work.session.objects, at(work, [pixels[-3]]))


def add_outline(work: Any) -> None:
    work.corrector.object_class = 2
    by_hand(work, "A", [(2, 60), (2, 90), (30, 90), (30, 60)])


def add_by_click(work: Any) -> None:
    work.set_proposer(OneBlob(work.corrector))
    y, x = np.argwhere(plane_of(work) == 0)[300]
    by_hand(work, "A", [(y, x)])


def add_by_sam(work: Any) -> None:
    from napari_coseg.widgets.correct.proposals import Proposals

    work.set_proposer(Proposals(work.corrector, RoundMasks(work.session.editor.labels)))
    y, x = np.argwhere(plane_of(work) == 0)[300]
    by_hand(work, "A", [(y, x)])


def refine_by_sam(work: Any) -> None:
    add_by_sam(work)
    (new,) = work.display.selected
    by_hand(work, "A", [middle(work, new)], shift=True)
    assert new not in work.session.editor.index, "another in its place"


def box_by_sam(work: Any) -> None:
    add_by_sam(work)
    work.session.undo()
    by_hand(work, "A", [(20, 60), (40, 75)])


def brush(work: Any) -> None:
    work.corrector.object_class = 1
    press(work.viewer, "P")
    y, x = np.argwhere(plane_of(work) == 0)[700]
    draw(work.viewer, work.session.objects, at(work, [(y, x), (y + 3, x + 3), (y, x + 6)]))


def brush_on(work: Any) -> None:
    select(work)
    press(work.viewer, "P")
    place = middle(work, ids(work)[0])
    draw(work.viewer, work.session.objects, at(work, [place, (place[0] + 15, place[1] + 15)]))


def region_brush(work: Any) -> None:
    work.corrector.region_class = 3
    press(work.viewer, "Shift-P")
    draw(work.viewer, work.session.regions, at(work, [(30, 30), (50, 55)]))


def on_selected(key: str, count: int = 1) -> Callable[[Any], None]:
    def use(work: Any) -> None:
        select(work, count)
        press(work.viewer, key)

    return use


def delete_under_pointer(work: Any) -> None:
    point_at(work.viewer, work.session.objects, at(work, [middle(work, ids(work)[2])])[0])
    press(work.viewer, "D")


def classify_by_lasso(work: Any) -> None:
    work.corrector.object_class = 2
    by_hand(work, "T", [(0, 0), (0, 80), (80, 80), (80, 0)])


def isolated(work: Any) -> int:
    """An object with background around it."""
    labels = plane_of(work)
    for object_id in ids(work):
        rows, columns = work.session.editor.index.box(object_id)[-2:]
        around_it = labels[
            max(rows.start - 4, 0) : rows.stop + 4, max(columns.start - 4, 0) : columns.stop + 4
        ]
        if set(np.unique(around_it)) <= {0, object_id}:
            return object_id
    raise AssertionError("every object has a neighbour")


def review_for(work: Any, targets: tuple[str, ...]) -> None:
    """By the list of the panel, and an outline that crosses objects."""
    from napari_coseg.widgets.correct.display import AREA_COLORS

    work.widget.area_choice.setCurrentIndex(list(AREA_COLORS).index(targets))
    by_hand(work, "Shift-R", [(20, 20), (20, 90), (70, 90), (70, 20)])


ACTIONS: dict[str, tuple[Callable[[Any], None], set[str]]] = {
    "merge by stroke": (merge_by_stroke, {"labels", "table", "features"}),
    "merge the selected": (merge_selected, {"labels", "table", "features"}),
    "split by line": (split_by_line, {"labels", "table", "features"}),
    "split by clicks": (split_by_clicks, {"labels", "table", "features"}),
    "add an outline": (add_outline, {"labels", "table", "features"}),
    "add by click": (add_by_click, {"labels", "table", "features"}),
    "add by SAM2": (add_by_sam, {"labels", "table", "features"}),
    "refine what SAM2 added": (refine_by_sam, {"labels", "table", "features"}),
    "box for SAM2": (box_by_sam, {"labels", "table", "features"}),
    "brush a new object": (brush, {"labels", "table", "features"}),
    "brush on": (brush_on, {"labels", "table", "features"}),
    "delete": (on_selected("D", 2), {"labels", "table", "features"}),
    "delete under the pointer": (delete_under_pointer, {"labels", "table", "features"}),
    "smooth": (on_selected("O", 3), {"labels", "table", "features"}),
    "class by key": (on_selected("2", 3), {"table", "features"}),
    "no class": (on_selected("0"), {"table", "features"}),
    "class by lasso": (classify_by_lasso, {"table", "features"}),
    "review objects": (on_selected("R", 3), {"reviewed", "marks"}),
    "review an area": (
        lambda work: by_hand(work, "Shift-R", [(5, 5), (5, 60), (40, 60), (40, 5)]),
        {"reviewed", "marks"},
    ),
    "review the regions of an area": (
        lambda work: review_for(work, ("regions",)),
        {"reviewed", "marks"},
    ),
    "review the objects of an area": (
        lambda work: review_for(work, ("objects",)),
        {"reviewed", "marks"},
    ),
    "outline a region": (
        lambda work: by_hand(work, "W", [(2, 2), (2, 60), (44, 60), (44, 2)]),
        {"regions", "table", "features"},
    ),
    "clear a region": (
        lambda work: by_hand(work, "W", [(2, 2), (2, 80), (80, 80), (80, 2)], shift=True),
        {"regions", "table", "features"},
    ),
    "fill a region": (
        lambda work: by_hand(work, "Q", [(65, 80)]),
        {"regions", "table", "features"},
    ),
    "brush a region": (region_brush, {"regions"}),
}


class OneBlob:
    """A model that sees one round object wherever it is asked."""

    hint, takes_boxes = "", False

    def __init__(self, corrector: Any) -> None:
        self._corrector = corrector

    def use(self, gesture: Any) -> None:
        from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
        from napari_coseg.widgets.correct.run_proposer import add_grown, check_background

        check_background(self._corrector, gesture)
        y, x = (int(value) for value in gesture.point[-2:])
        height, width = self._corrector.session.editor.labels.shape[-2:]
        rows = slice(max(y - 20, 0), min(y + 20, height))
        columns = slice(max(x - 20, 0), min(x + 20, width))
        grid = np.ogrid[rows, columns]
        blob = ((grid[0] - y) ** 2 + (grid[1] - x) ** 2 <= 36).astype(np.int32)
        types = np.stack([1 - blob, 0 * blob, blob]).astype(np.float32)
        maps = {
            "object_probability": blob.astype(np.float32),
            "hv": horizontal_vertical_maps(blob),
            "class_probability": types,
        }
        add_grown(self._corrector, gesture, maps, (rows, columns))

    def close(self) -> None:
        """Nothing to free."""


class RoundMasks:
    """A SAM2 that sees a disc around what is meant, smaller with every click."""

    is_busy = False

    def __init__(self, labels: np.ndarray) -> None:
        self._shape = labels.shape[-2:]

    def ask(self, prompt: Any, z: int | None, done: Any, failed: Any) -> None:
        from napari_coseg.inference.sam2.windows import SamMask

        y, x = np.mean(prompt.bounds, axis=0)
        rows, columns = np.ogrid[: self._shape[0], : self._shape[1]]
        radius = 8 - len(prompt.points)
        done(SamMask((rows - y) ** 2 + (columns - x) ** 2 <= radius**2, (0, 0), 0.9, False))


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_is_done_undone_and_redone_exactly(
    work: Any, name: str, notes: list[str], qtbot: Any
) -> None:
    act, changes = ACTIONS[name]
    before = state(work)
    act(work)
    assert notes == []
    after = state(work)
    assert changes <= differs(before, after)
    assert_in_step(work, qtbot)
    press(work.viewer, "Control-Z")
    assert_same(before, state(work))
    assert_in_step(work, qtbot)
    press(work.viewer, "Control-Shift-Z")
    assert_same(after, state(work))
    assert_in_step(work, qtbot)
    assert "edo" in work.widget.status.text()


def assert_in_step(work: Any, qtbot: Any) -> None:
    """Table, features and canvas are what measuring every pixel again gives."""
    from napari_coseg.widgets.outputs import object_features

    editor = work.session.editor
    assert editor.labels is work.session.objects.data
    pd.testing.assert_frame_equal(editor.table, measured_anew(editor), check_exact=True)
    pd.testing.assert_frame_equal(work.session.objects.features, object_features(editor.table))
    qtbot.waitUntil(lambda: work.display.refresher.is_done, timeout=RUN_MS)
    for layer in (*work.session.layers, work.display.marks_layer):
        assert_drawn(layer)


def test_a_day_of_all_actions_is_undone_in_order(flat: Any, notes: list[str], qtbot: Any) -> None:
    """Steps on objects, on regions, on classes and marks come back one by one, then go again."""
    states = [state(flat)]
    for act, _ in ACTIONS.values():
        flat.display.select(())
        act(flat)
        states.append(state(flat))
    assert notes == []
    for wanted in reversed(states[:-1]):
        flat.session.undo()
        assert_same(wanted, state(flat))
    flat.session.undo()  # there is nothing left, and nothing happens
    assert_same(states[0], state(flat))
    for wanted in states[1:]:
        flat.session.redo()
        assert_same(wanted, state(flat))
    assert_in_step(flat, qtbot)


def test_an_area_is_outlined_in_the_colour_of_what_was_checked_in_it(flat: Any) -> None:
    """Where two areas cross, both were checked."""
    from napari_coseg.widgets.correct.display import AREA_COLORS

    by_hand(flat, "Shift-R", [(0, 0), (0, 200), (20, 200), (20, 0)])
    review_for(flat, ("regions",))
    review_for(flat, ("objects",))
    by_hand(flat, "Shift-R", [(90, 20), (90, 90), (100, 90), (100, 20)])
    by_hand(flat, "Shift-R", [(60, 20), (60, 120), (70, 120), (70, 20)], shift=True)
    reviewed, marks = flat.session.reviewed, flat.display.marks_layer
    free = flat.session.editor.labels == 0
    seen = {t: reviewed.area(t).mask() & free for t in ("objects", "regions")}
    expected = {
        ("objects", "regions"): seen["objects"] & seen["regions"],
        ("objects",): seen["objects"] & ~seen["regions"],
        ("regions",): seen["regions"] & ~seen["objects"],
    }
    for targets, mask in expected.items():
        (value,) = np.unique(marks.data[mask])  # somewhere, and one value
        color = marks.colormap.map(np.array([value]))[0][:3]
        np.testing.assert_allclose(color * 255, AREA_COLORS[targets], atol=1)


def test_without_regions_an_area_is_reviewed_for_its_objects(viewer: Any, qtbot: Any) -> None:
    from napari_coseg.widgets.correct.widget import CorrectWidget

    viewer.add_labels(plane().labels)
    widget = CorrectWidget(viewer)
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.interaction is not None, timeout=RUN_MS)
    assert not widget.area_choice.isEnabled()
    by_hand(widget.interaction, "Shift-R", [(5, 5), (5, 60), (40, 60), (40, 5)])
    assert widget.session.reviewed.objects and not widget.session.reviewed.regions
    everywhere = np.nonzero(np.ones(plane().labels.shape))
    widget.session.mark("As kept before", widget.session.reviewed.with_area(everywhere))
    by_hand(widget.interaction, "Shift-R", [(5, 5), (5, 60), (40, 60), (40, 5)], shift=True)
    for target in ("objects", "regions"):
        assert not widget.session.reviewed.area(target).mask()[10:35, 10:55].any()
    widget.close()


def test_a_hole_is_filled_and_comes_back(flat: Any) -> None:
    whole = state(flat)
    select(flat)
    y, x = (int(value) for value in middle(flat, ids(flat)[0]))
    flat.session.objects.data_setitem((np.array([y]), np.array([x])), 0)  # rubbed out
    with_hole = state(flat)
    press(flat.viewer, "H")
    assert_same(whole, state(flat))
    press(flat.viewer, "Control-Z")
    assert_same(with_hole, state(flat))
    press(flat.viewer, "Control-Z")
    assert_same(whole, state(flat))


# ---------------------------------------------------------------------------------------------
# What cannot be done


def add_on_an_object(work: Any) -> None:
    work.set_proposer(OneBlob(work.corrector))
    by_hand(work, "A", [middle(work, ids(work)[0])])


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "merge one": (
        lambda work: by_hand(work, "M", np.argwhere(plane_of(work) == isolated(work))[:2]),
        "two or more",
    ),
    "merge by click": (lambda work: by_hand(work, "M", [(5, 5)]), "click merges nothing"),
    "delete nothing": (lambda work: press(work.viewer, "D"), "No object is selected"),
    "an unknown class": (on_selected("7"), "There is no class 7"),
    "add on an object": (add_on_an_object, "is there already"),
    "add without a model": (
        lambda work: by_hand(work, "A", [np.argwhere(plane_of(work) == 0)[0]]),
        "draw its outline",
    ),
    "split a click on nothing": (
        lambda work: by_hand(work, "C", [np.argwhere(plane_of(work) == 0)[0]]),
        "There is no object",
    ),
    "brush several": (on_selected("P", 2), "2 objects are selected"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_reported_and_changes_nothing(
    flat: Any, name: str, notes: list[str]
) -> None:
    act, message = REFUSED[name]
    before = state(flat)
    point_at(flat.viewer, flat.session.objects, at(flat, [np.argwhere(plane_of(flat) == 0)[0]])[0])
    act(flat)
    assert len(notes) == 1
    assert re.search(message, notes[0])
    assert_same(before, state(flat))
    assert flat.session.undo_name is None
