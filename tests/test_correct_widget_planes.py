"""The Correct widget on a volume: every tool in axial, coronal and sagittal views."""

from __future__ import annotations

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
from cases.label_editors import measured_anew, volume
from cases.widget_values import RUN_MS
from napari_coseg.labels.editing.drawing import Plane

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]
VIEWS = {
    "axial": (0, 1, 2),
    "coronal": (1, 0, 2),
    "sagittal": (2, 0, 1),
    "transposed": (0, 2, 1),
}


@pytest.fixture(params=VIEWS.values(), ids=VIEWS)
def work(request: Any, viewer: Any, qtbot: Any) -> Iterator[Any]:
    """A session whose canvas shows the plane through the middle of object 1."""
    from napari_coseg.widgets.correct.widget import CorrectWidget

    editor = volume()
    add_layers(viewer, editor, translate=(3.0, 5.0, 7.0))
    viewer.dims.order = request.param
    axis = request.param[0]
    centre = np.array([size // 4 for size in editor.labels.shape])
    viewer.dims.set_point(axis, float(centre[axis] + (3.0, 5.0, 7.0)[axis]))
    widget = CorrectWidget(viewer)
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.interaction is not None, timeout=RUN_MS)
    made = widget.interaction
    made.plane, made.centre = Plane(axis, int(centre[axis])), np.delete(centre, axis)
    made.widget = widget
    yield made
    widget.close()


def by_hand(work: Any, key: str, offsets: Any, **keywords: Any) -> None:
    """Draw with a tool at offsets from the centre of object 1 in the plane on screen."""
    press(work.viewer, key)
    points = [at(work, offset) for offset in offsets]
    draw(work.viewer, work.session.objects, points, **keywords)


def at(work: Any, offset: Any) -> tuple[float, ...]:
    point = [float(value) for value in work.centre + np.asarray(offset)]
    point.insert(work.plane.axis, float(work.plane.at))
    return tuple(point)


def other_ball(work: Any) -> tuple[int, int]:
    """Id of, and offset to, the next ball along the first axis of the plane."""
    first = 1 if work.plane.axis == 0 else 0
    return 1 + 2 ** (2 - first), (work.session.editor.labels.shape[first] // 2, 0)


def selected(key: str) -> Callable[[Any], None]:
    def use(work: Any) -> None:
        by_hand(work, "S", [(0, 0)])
        press(work.viewer, key)

    return use


def delete_under_pointer(work: Any) -> None:
    point_at(work.viewer, work.session.objects, at(work, (0, 0)))
    press(work.viewer, "D")


def interpolate(work: Any) -> None:
    """Rub out the planes between the first and the last, and fill them again."""
    labels, plane = work.session.editor.labels, work.plane
    pixels = np.nonzero(labels == 1)
    middle = np.abs(pixels[plane.axis] - plane.at) <= 2
    work.session.objects.data_setitem(tuple(axis[middle] for axis in pixels), 0)
    volume_px = work.session.editor.index.count(1)
    work.display.select([1])
    press(work.viewer, "I")
    assert work.session.editor.index.count(1) > 1.6 * volume_px


def smooth(work: Any) -> None:
    spike = tuple(np.array([int(value)]) for value in at(work, (8, 0)))
    work.session.objects.data_setitem(spike, 1)
    selected("O")(work)
    assert work.session.editor.labels[spike] == 0


def fill(work: Any) -> None:
    hole = tuple(np.array([int(value)]) for value in at(work, (0, 0)))
    work.session.objects.data_setitem(hole, 0)
    work.display.select([1])
    press(work.viewer, "H")
    assert work.session.editor.labels[hole] == 1


def brush(work: Any) -> None:
    press(work.viewer, "P")
    draw(work.viewer, work.session.objects, [at(work, (9, 9)), at(work, (9, 7))])


TABLE = {"labels", "table", "features"}
BOX = [(-9, -9), (-9, 9), (9, 9), (9, -9)]
ACTIONS: dict[str, tuple[Callable[[Any], None], set[str], Callable[[Any], set[int]]]] = {
    "merge": (
        lambda work: by_hand(work, "M", [(0, 0), other_ball(work)[1]]),
        TABLE,
        lambda work: {1, other_ball(work)[0]},
    ),
    "split by line": (
        lambda work: by_hand(work, "C", [(0, -9), (0, 9)]),
        TABLE,
        lambda work: {1, 9},
    ),
    "delete": (selected("D"), TABLE, lambda work: {1}),
    "delete under the pointer": (delete_under_pointer, TABLE, lambda work: {1}),
    "reclassify by key": (selected("0"), {"table"}, lambda work: {1}),
    "reclassify by lasso": (lambda work: by_hand(work, "T", BOX), {"table"}, lambda work: {1}),
    "smooth": (smooth, TABLE, lambda work: {1}),
    "fill": (fill, TABLE, lambda work: {1}),
    "interpolate": (interpolate, TABLE, lambda work: {1}),
    "brush": (brush, TABLE, lambda work: {9}),
    "add an outline": (
        lambda work: by_hand(work, "A", [(9, -8), (9, 8), (13, 8), (13, -8)]),
        TABLE,
        lambda work: {9},
    ),
    "outline a region": (
        lambda work: by_hand(work, "W", BOX),
        {"regions"},
        lambda work: set(),
    ),
    "review an area": (
        lambda work: by_hand(work, "Shift-R", BOX),
        {"reviewed", "marks"},
        lambda work: set(),
    ),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_an_action_changes_what_is_seen_and_is_one_step(
    work: Any, name: str, notes: list[str], qtbot: Any
) -> None:
    act, changes, concerned = ACTIONS[name]
    work.corrector.object_class = 0
    act(work)
    assert notes == []
    after, edit = state(work), work.session.last_step.edit
    assert {*edit.changed, *edit.added, *edit.removed} <= concerned(work)
    assert_in_step(work, qtbot)
    press(work.viewer, "Control-Z")
    before = state(work)
    assert changes <= differs(before, after)
    assert_in_step(work, qtbot)
    press(work.viewer, "Control-Shift-Z")
    assert_same(after, state(work))
    assert_in_step(work, qtbot)


def assert_in_step(work: Any, qtbot: Any) -> None:
    """Table and canvas are what looking at every pixel again gives."""
    editor = work.session.editor
    pd.testing.assert_frame_equal(editor.table, measured_anew(editor), check_exact=True)
    qtbot.waitUntil(lambda: work.display.refresher.is_done, timeout=RUN_MS)
    for layer in (*work.session.layers, work.display.marks_layer):
        assert_drawn(layer)


def test_in_the_3d_display_it_says_where_to_draw(viewer: Any, notes: list[str], work: Any) -> None:
    viewer.dims.ndisplay = 3
    by_hand(work, "M", [(0, 0), (5, 5)])
    assert len(notes) == 1 and "2D display" in notes[0]
