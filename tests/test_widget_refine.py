"""The Refine widget: preview, accept with one undo step a layer, discard, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.widget_values import PICTURE, RUN_MS, SHAPE, UM
from napari_coseg.widgets.correct.gesture import Gesture

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]
LEFT = np.s_[:, :80]


@pytest.fixture
def segmented(viewer: Any, make_widget: Callable[..., Any], qtbot: Any) -> Any:
    """A viewer with the layers of a run: image, regions, objects."""
    viewer.add_image(PICTURE, name="biopsy", scale=(0.5, 0.5), units=(UM, UM))
    widget = make_widget(viewer, "segment_crossed")
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    return viewer


@pytest.fixture
def widget(segmented: Any, worker: Any) -> Any:
    from napari_coseg.widgets.refine.widget import RefineWidget

    widget = RefineWidget(segmented, worker)
    yield widget
    widget.close()


def refined(qtbot: Any, widget: Any) -> None:
    """Click on Refine, and wait for the preview."""
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    qtbot.waitUntil(lambda: "Comparing" not in widget.bar.text.text(), timeout=RUN_MS)


def wipe_regions(viewer: Any) -> None:
    """As a person would: a change that napari can undo."""
    regions = viewer.layers["biopsy regions"]
    at = np.nonzero(regions.data[LEFT])
    regions.data_setitem(at, 0)


def session_on(objects: Any, regions: Any) -> Any:
    """A correction session, as the Correct dock starts it."""
    from napari_coseg.widgets.correct.reading import editor_of, request_of
    from napari_coseg.widgets.correct.session import CorrectionSession

    return CorrectionSession(objects, regions, editor_of(*request_of(objects, regions)))


def correcting_on(viewer: Any) -> Any:
    """The tools of a correction session on the layers of the run."""
    from napari_coseg.widgets.correct.interaction import Interaction

    layers = viewer.layers["biopsy objects"], viewer.layers["biopsy regions"]
    return Interaction(viewer, session_on(*layers))


def names(viewer: Any) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_objects_follow_wiped_regions_and_undo_brings_them_back(
    segmented: Any, widget: Any, qtbot: Any
) -> None:
    objects = segmented.layers["biopsy objects"]
    before, rows = objects.data.copy(), objects.features.copy()
    assert before[LEFT].any()
    wipe_regions(segmented)
    refined(qtbot, widget)
    preview = segmented.layers["preview of biopsy objects"]
    assert (preview.data[LEFT][before[LEFT] > 0] > 0).mean() > 0.8
    np.testing.assert_array_equal(objects.data, before)
    np.testing.assert_array_equal(preview.scale, objects.scale)
    widget.accept_button.click()
    assert names(segmented) == ["biopsy", "biopsy regions", "biopsy objects"]
    assert not objects.data[:, :70].any()
    assert objects.data[:, 90:].any()
    assert set(objects.features["index"]) == set(np.unique(objects.data)) - {0}
    objects.undo()
    np.testing.assert_array_equal(objects.data, before)
    changed = "region"  # of objects in what was wiped by hand
    pd.testing.assert_frame_equal(
        objects.features.drop(columns=changed), rows.drop(columns=changed)
    )


def test_layers_may_be_renamed_after_the_run(segmented: Any, widget: Any, qtbot: Any) -> None:
    segmented.layers["biopsy"].name = "slide 1"
    segmented.layers["biopsy objects"].name = "nuclei"
    assert widget.objects_box.currentText() == "nuclei"
    other = np.zeros((*SHAPE, 3), np.uint8)
    segmented.add_image(other, name="biopsy")
    wipe_regions(segmented)
    refined(qtbot, widget)
    assert (segmented.layers["preview of nuclei"].data[LEFT] > 0).any()


@pytest.mark.parametrize(
    ("act", "found", "stem"),
    [
        (lambda v: None, "biopsy", "biopsy"),
        (lambda v: setattr(v.layers["biopsy"], "name", "slide 1"), "slide 1", "slide_1"),
        (lambda v: v.layers.remove("biopsy"), None, "biopsy"),
        (
            lambda v: (v.layers.remove("biopsy"), v.add_image(PICTURE, name="biopsy")),
            "biopsy",
            "biopsy",
        ),
        (
            lambda v: (v.layers.remove("biopsy"), v.add_labels(PICTURE[..., 0], name="biopsy")),
            None,
            "biopsy",
        ),
    ],
    ids=["as it was", "renamed", "removed", "opened again", "labels of that name"],
)
def test_the_image_of_a_run_is_found_again(
    segmented: Any, act: Any, found: str | None, stem: str
) -> None:
    from napari_coseg.widgets.labelled_image import file_stem, image_of, run_image_of
    from napari_coseg.widgets.outputs import made_of

    objects = segmented.layers["biopsy objects"]
    act(segmented)
    image = image_of(segmented, objects)
    assert (image and image.name) == found
    assert made_of(objects) == "biopsy"
    assert file_stem(segmented, objects) == stem
    by_hand = segmented.add_labels(objects.data.copy(), name="my nuclei")
    assert run_image_of(segmented, by_hand) is None
    by_shape = image_of(segmented, by_hand)
    assert (by_shape and by_shape.name) == found
    assert file_stem(segmented, by_hand) == "my_nuclei"


def test_labels_that_changed_meanwhile_are_not_overwritten(
    segmented: Any, widget: Any, qtbot: Any, notes: list[str]
) -> None:
    objects = segmented.layers["biopsy objects"]
    wipe_regions(segmented)
    refined(qtbot, widget)
    at = np.nonzero(objects.data[LEFT])
    objects.data_setitem(at, 5000)
    widget.accept_button.click()
    assert "have changed since" in notes[-1]
    assert (objects.data[LEFT][at] == 5000).all()


@pytest.mark.parametrize("turn", ["begins", "ends"])
def test_a_preview_is_not_accepted_once_correcting_began_or_ended(
    segmented: Any, widget: Any, qtbot: Any, notes: list[str], turn: str
) -> None:
    """Its edits belong to the table and the undo of the session of then."""
    objects, regions = segmented.layers["biopsy objects"], segmented.layers["biopsy regions"]
    session = session_on(objects, regions) if turn == "ends" else None
    wipe_regions(segmented)
    refined(qtbot, widget)
    if session is None:
        session = session_on(objects, regions)
    else:
        session.close()
    before = objects.data.copy()
    widget.accept_button.click()
    assert "refine again" in notes[-1]
    np.testing.assert_array_equal(objects.data, before)
    assert session.undo_name != "Take a new run"
    session.close()
    refined(qtbot, widget)
    widget.accept_button.click()
    assert not np.array_equal(objects.data, before)


def test_discarding_changes_nothing(segmented: Any, widget: Any, qtbot: Any) -> None:
    before = segmented.layers["biopsy objects"].data.copy()
    wipe_regions(segmented)
    refined(qtbot, widget)
    assert widget.discard_button.isEnabled()
    widget.discard_button.click()
    np.testing.assert_array_equal(segmented.layers["biopsy objects"].data, before)
    assert names(segmented) == ["biopsy", "biopsy regions", "biopsy objects"]
    assert not widget.accept_button.isEnabled()


def test_a_session_of_corrections_makes_it_one_step(
    segmented: Any, widget: Any, qtbot: Any
) -> None:
    """Table and labels follow; what is reviewed stays."""
    objects, regions = segmented.layers["biopsy objects"], segmented.layers["biopsy regions"]
    session = session_on(objects, regions)
    kept = int(objects.data[LEFT][objects.data[LEFT] > 0][0])
    session.mark("Review", session.reviewed.with_objects([kept]))
    before, rows = objects.data.copy(), len(session.editor.table)
    wipe_regions(segmented)
    refined(qtbot, widget)
    widget.accept_button.click()
    assert session.undo_name == "Take a new run"
    assert len(session.editor.table) < rows
    assert (objects.data[before == kept] == kept).all()
    session.undo()
    np.testing.assert_array_equal(objects.data, before)
    assert len(session.editor.table) == rows
    session.close()


def test_regions_follow_objects(segmented: Any, widget: Any, qtbot: Any) -> None:
    objects, regions = segmented.layers["biopsy objects"], segmented.layers["biopsy regions"]
    at = np.nonzero(np.ones((40, 40), bool))
    objects.data_setitem((at[0] + 120, at[1] + 150), int(objects.data.max()) + 1)
    widget.corrected["regions"].setChecked(False)
    widget.corrected["objects"].setChecked(True)
    assert not regions.data[140:155, 160:180].any()
    refined(qtbot, widget)
    widget.accept_button.click()
    assert regions.data[140:155, 160:180].all()


def test_what_the_process_has_lost_is_computed_by_the_same_run(
    segmented: Any, widget: Any, worker: Any, qtbot: Any
) -> None:
    forgotten: list[Any] = []
    worker.submit("cases.worker_jobs:forget").done.connect(forgotten.append)
    qtbot.waitUntil(lambda: bool(forgotten), timeout=RUN_MS)
    wipe_regions(segmented)
    refined(qtbot, widget)
    assert widget.accept_button.isEnabled()


def test_a_closed_segment_dock_leaves_nobody_waiting_for_its_process(
    segmented: Any, widget: Any, weights: Any, qtbot: Any, notes: list[str]
) -> None:
    """Refine, and Add by a click in Correct, use the process of the dock that ran the model."""
    from napari_coseg.widgets import runs
    from napari_coseg.widgets.segment import SegmentWidget

    segment = SegmentWidget(segmented)  # with a process of its own
    objects = segmented.layers["biopsy objects"]
    segment.worker.submit("cases.worker_jobs:slow", {"polite": False})
    runs.hold(runs.arguments_of(objects)["key"], segment.worker)
    wipe_regions(segmented)
    widget.bar.run_button.click()
    correcting = correcting_on(segmented)
    correcting.corrector.add(Gesture(np.argwhere(objects.data == 0)[:1]))
    segment.close()
    assert len(notes) == 1 and "was closed" in notes[0]
    assert widget.bar.run_button.isEnabled()
    correcting.close()
    correcting.session.close()
    refined(qtbot, widget)
    assert widget.accept_button.isEnabled()


def test_a_deleted_object_is_grown_again_at_a_click(
    segmented: Any, widget: Any, qtbot: Any
) -> None:
    correcting = correcting_on(segmented)
    editor = correcting.session.editor
    row = editor.table.iloc[len(editor.table) // 2]
    before = editor.labels == row["id"]
    correcting.corrector.delete([int(row["id"])])
    count = len(editor.table)
    correcting.corrector.add(Gesture(np.array([[row["centroid_y"], row["centroid_x"]]])))
    qtbot.waitUntil(lambda: len(editor.table) > count, timeout=RUN_MS)
    (new,) = correcting.display.selected
    after = editor.labels == new
    assert (before & after).sum() / (before | after).sum() > 0.7
    assert editor.rows([new])["class"].tolist() == [row["class"]]
    correcting.close()
    correcting.session.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda viewer, widget: viewer.layers.clear(), "segment an image", id="empty"),
        pytest.param(
            lambda viewer, widget: viewer.layers.remove("biopsy"), "open it again", id="no image"
        ),
        pytest.param(
            lambda viewer, widget: viewer.layers.remove("biopsy regions"),
            "segment again",
            id="no regions",
        ),
        pytest.param(
            lambda viewer, widget: widget.corrected["regions"].setChecked(False),
            "Choose what you corrected",
            id="nothing said",
        ),
    ],
)
def test_what_is_missing_is_reported(
    segmented: Any, widget: Any, notes: list[str], spoil: Any, message: str
) -> None:
    spoil(segmented, widget)
    widget.bar.run_button.click()
    assert not widget.bar.is_busy
    assert message.lower() in notes[-1].lower()


def test_nothing_corrected_is_reported(
    segmented: Any, widget: Any, notes: list[str], qtbot: Any
) -> None:
    widget.bar.run_button.click()
    qtbot.waitUntil(lambda: not widget.bar.is_busy, timeout=RUN_MS)
    assert "cover the same pixels as after the run" in notes[-1]
