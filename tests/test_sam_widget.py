"""SAM2 in the Correct widget: driven by a hand, answered by the real worker process.

The network is sam2's own, small and with random weights: a mask's shape means nothing here, but it
must be the one that the same network gives by hand, and become one object by one undo step.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cases.correct_hand import add_layers, assert_same, draw, press, state
from cases.label_editors import measured_anew, plane, stack
from cases.tiny_sam2 import save_tiny, tiny_in_use
from cases.widget_values import RUN_MS
from napari_coseg.core.errors import EditError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.inference.sam2.model import load_sam2
from napari_coseg.inference.sam2.prompts import SamPrompts
from napari_coseg.inference.sam2.windows import Prompt, SamMask, on_labels
from napari_coseg.labels.editing.add_mask import add_mask
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.widgets.correct import sam_tasks

pytestmark = pytest.mark.gui
pytest_plugins = ["cases.widget_fixtures"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam2") / "tiny.pt")


@pytest.fixture(scope="module")
def by_hand(tiny: Path) -> SamPrompts:
    """The same network in this process."""
    with tiny_in_use():
        return SamPrompts(load_sam2(tiny).model)


@pytest.fixture
def tiny_jobs(monkeypatch: pytest.MonkeyPatch, worker: Any) -> None:
    """Jobs for the tiny network, all in one process that stays."""
    from napari_coseg.widgets.correct import sam

    made = sam.Sam

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sam_tasks, "LOAD", "cases.tiny_sam2:load")
    monkeypatch.setattr(sam_tasks, "ANSWER", "cases.tiny_sam2:answer")
    monkeypatch.setattr(sam, "Sam", lambda *about: made(*about, worker=worker))


def started(viewer: Any, qtbot: Any, editor: Any, **place: Any) -> Any:
    from napari_coseg.widgets.correct.widget import CorrectWidget

    add_layers(viewer, editor, **place)
    widget = CorrectWidget(viewer)
    widget.start_button.click()
    qtbot.waitUntil(lambda: widget.interaction is not None, timeout=RUN_MS)
    return widget


RGB = np.random.default_rng(5).integers(0, 256, (160, 160, 3), dtype=np.uint8)


@pytest.fixture
def widget(viewer: Any, qtbot: Any, tiny: Path, tiny_jobs: None) -> Iterator[Any]:
    """At work on a plane with few objects, SAM2 chosen."""
    viewer.add_image(RGB, name="biopsy", scale=(0.5, 0.25), translate=(3, 5))
    widget = started(viewer, qtbot, plane(count=6), scale=(0.5, 0.25), translate=(3, 5))
    choose_sam(widget, tiny, qtbot)
    yield widget
    widget.close()


def choose_sam(widget: Any, weights: Path, qtbot: Any) -> None:
    widget.add_choice.choose_file(weights)
    qtbot.waitUntil(lambda: "is ready" in widget.status.text(), timeout=RUN_MS)


def use(widget: Any, points: Any, qtbot: Any, key: str = "A", **held: Any) -> None:
    """Draw with the tool, and wait for what comes of it."""
    press(widget.interaction.viewer, key)
    draw(widget.interaction.viewer, widget.interaction.session.objects, points, **held)
    sam = widget.sam_control.sam
    qtbot.waitUntil(lambda: sam is None or not sam.is_busy, timeout=RUN_MS)


def background(widget: Any, number: int = 2000) -> tuple[float, float]:
    y, x = np.argwhere(widget.interaction.session.objects.data == 0)[number]
    return float(y), float(x)


def assert_added(by_hand: SamPrompts, before: np.ndarray, prompt: Prompt, widget: Any) -> int:
    """All that changed is one object, the answer by hand where nothing was; its id."""
    found = by_hand.answer(
        RgbSource(understand(RGB)), prompt, pixel_size_um=(0.5, 0.25), key="the image"
    )
    clicks = [p for p, on in zip(prompt.points, prompt.positive, strict=True) if on]
    edit = add_mask(
        LabelEditor.of_labels(before.copy(), (0.5, 0.25)), found.mask, found.corner, clicks=clicks
    )
    after = widget.interaction.session.objects.data
    (new,) = set(np.unique(after)) - set(np.unique(before))
    wanted = before.copy()
    wanted[edit.indices] = new
    np.testing.assert_array_equal(after, wanted)
    assert_in_step(widget.interaction)
    return int(new)


def assert_in_step(work: Any) -> None:
    pd.testing.assert_frame_equal(work.session.editor.table, measured_anew(work.session.editor))


# ---------------------------------------------------------------------------------------------


def test_clicks_and_boxes_become_what_sam2_says_by_one_step_each(
    widget: Any, by_hand: SamPrompts, notes: list[str], qtbot: Any
) -> None:
    """On an image with scale and offset: a click, clicks that refine it, a box; undo and redo."""
    session, at = widget.interaction.session, background(widget)
    widget.interaction.corrector.object_class = 2
    before = state(widget.interaction)
    y, x = at
    use(widget, [at], qtbot)
    click = Prompt((at,), (True,))
    new = assert_added(by_hand, before["labels"], click, widget)
    row = session.editor.rows([new]).iloc[0]
    assert (row["class_id"], row["class_probability"]) == (2, 1.0)
    assert "Added object" in widget.status.text()
    assert "confidence" in widget.status.text()
    assert widget.interaction.display.selected == (new,)

    use(widget, [(y + 9, x + 12)], qtbot, shift=True)  # not part of it
    use(widget, [(y - 6, x + 20)], qtbot, control=True)  # this too
    refined = click.with_point((y + 9, x + 12), False).with_point((y - 6, x + 20), True)
    assert_added(by_hand, before["labels"], refined, widget)
    after = state(widget.interaction)

    press(widget.interaction.viewer, "Control-Z")
    assert_same(before, state(widget.interaction))
    assert session.undo_name is None, "one step, however many clicks"
    press(widget.interaction.viewer, "Control-Shift-Z")
    assert_same(after, state(widget.interaction))
    use(widget, [(y + 3, x - 9)], qtbot, shift=True)  # it can be refined still
    again = refined.with_point((y + 3, x - 9), False)
    assert_added(by_hand, before["labels"], again, widget)

    between = state(widget.interaction)
    use(widget, [(30, 100), (60, 60), (71, 141)], qtbot)
    assert_added(by_hand, between["labels"], Prompt(box=(30, 100, 71, 141)), widget)
    for _ in range(2):
        session.undo()
    assert_same(before, state(widget.interaction))
    assert notes == []


def test_the_image_is_encoded_once_for_clicks_beside_each_other(
    widget: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    submit = widget.sam_control.sam.worker.submit

    def received(*about: Any) -> Any:
        job = submit(*about)
        job.done.connect(lambda reply: counts.append(reply.values.get("encoded")))
        return job

    monkeypatch.setattr(widget.sam_control.sam.worker, "submit", received)
    y, x = background(widget)
    use(widget, [(y, x)], qtbot)
    use(widget, [(y + 4, x + 4)], qtbot, shift=True)
    use(widget, [(y, x), (y + 9, x + 9)], qtbot)
    assert len(counts) == 3
    assert len(set(counts)) == 1
    widget.interaction.viewer.layers["biopsy"].data = 255 - RGB
    widget.interaction.session.undo()
    widget.interaction.session.undo()
    use(widget, [(y, x)], qtbot)
    assert counts[-1] == counts[0] + 1, "another image"


def test_reviewed_areas_stay_free(widget: Any, qtbot: Any, notes: list[str]) -> None:
    y, x = background(widget)
    session = widget.interaction.session
    area = [(0, x + 6), (0, 159), (159, 159), (159, x + 6)]
    use(widget, area, qtbot, key="Shift-R")
    marked = session.reviewed.objects.mask()
    before = session.objects.data.copy()
    use(widget, [(y, x)], qtbot)
    changed = session.objects.data != before
    assert changed.any()
    assert not (changed & marked).any()
    use(widget, np.argwhere(marked & (session.objects.data == 0))[:1].tolist(), qtbot)
    assert notes == ["This area is marked as reviewed; remove the mark to add objects"]


def at_object(widget: Any) -> tuple[float, float]:
    y, x = np.argwhere(widget.interaction.session.objects.data > 0)[50]
    return float(y), float(x)


def undo_all(session: Any) -> int:
    """How many steps there were."""
    count = 0
    while session.undo_name is not None:
        session.undo()
        count += 1
    return count


def something_else_then_refine(widget: Any, qtbot: Any) -> None:
    at = background(widget)
    use(widget, [at], qtbot)
    widget.interaction.corrector.set_class(widget.interaction.display.selected, 1)
    use(widget, [at], qtbot, shift=True)


REFUSED = {
    "on an object": (
        lambda widget, qtbot: use(widget, [at_object(widget)], qtbot),
        "is already there",
        0,
    ),
    "refining nothing": (
        lambda widget, qtbot: use(widget, [background(widget)], qtbot, shift=True),
        "click an object first",
        0,
    ),
    "refining after something else": (something_else_then_refine, "undo what came after it", 2),
    "outside": (
        lambda widget, qtbot: use(widget, [(-40, -40), (-20, -20)], qtbot),
        "outside the image",
        0,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_reported(
    widget: Any, name: str, qtbot: Any, notes: list[str]
) -> None:
    act, message, steps = REFUSED[name]
    act(widget, qtbot)
    assert len(notes) == 1
    assert message in notes[0]
    assert undo_all(widget.interaction.session) == steps


def test_without_an_image_nothing_can_be_asked(widget: Any, qtbot: Any, notes: list[str]) -> None:
    widget.interaction.viewer.layers.remove("biopsy")
    use(widget, [background(widget)], qtbot)
    assert "There is no image under 'biopsy objects'" in notes[0]


def test_a_slice_of_a_stack_is_asked_about(
    viewer: Any, qtbot: Any, tiny: Path, tiny_jobs: None, by_hand: SamPrompts
) -> None:
    """The image has a slice more before the labels' first, and half their resolution."""
    editor = stack()
    volume = np.random.default_rng(1).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    viewer.add_image(
        volume, name="biopsy", scale=(2, 1, 0.5), translate=(-2, 0.25, 0.125)
    )  # centres of coarse pixels lie between those of fine ones
    widget = started(viewer, qtbot, editor, scale=(2, 0.5, 0.25))
    viewer.dims.set_point(0, 2.0)
    choose_sam(widget, tiny, qtbot)
    before = widget.interaction.session.objects.data.copy()
    y, x = map(float, np.argwhere(before[1] == 0)[500])
    use(widget, [(1, y, x)], qtbot)
    source = RgbSource(Image(volume, "ZYX"))
    matrix = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]])
    prompt = Prompt(((y, x),), (True,))
    found = by_hand.answer(source, prompt.mapped(matrix), z=2, pixel_size_um=(1, 0.5), key="z")
    mask, corner = on_labels(found, matrix, (96, 96))
    edit = add_mask(
        LabelEditor.of_labels(before.copy(), editor.pixel_size_um),
        mask,
        corner,
        clicks=[(y, x)],
        z=1,
    )
    before[edit.indices] = edit.new_values
    np.testing.assert_array_equal(widget.interaction.session.objects.data, before)
    widget.close()


# ---------------------------------------------------------------------------------------------
# The choice


def test_a_file_that_is_no_sam2_is_reported_and_the_choice_goes_back(
    viewer: Any, qtbot: Any, tmp_path: Path, notes: list[str]
) -> None:
    """By the real jobs, in a process of its own, which ends afterwards."""
    widget = started(viewer, qtbot, plane(count=3))
    other = tmp_path / "other.pt"
    other.write_bytes(b"not at all")
    widget.add_choice.choose_file(other)
    assert widget.sam_control.sam is not None
    qtbot.waitUntil(lambda: bool(notes), timeout=RUN_MS)
    assert "other.pt is not a weights file" in notes[0]
    assert widget.add_choice.weights is None
    assert widget.sam_control.sam is None
    assert widget.interaction.corrector.proposer is None
    widget.close()


@pytest.mark.parametrize("end", ["choice", "finish", "close"])
def test_the_process_ends_with_the_choice_the_session_and_the_dock(
    viewer: Any, qtbot: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(sam_tasks, "LOAD", "cases.tiny_sam2:load")
    widget = started(viewer, qtbot, plane(count=3))
    widget.add_choice.choose_file(tiny)
    worker = widget.sam_control.sam.worker
    assert worker.pid is not None
    assert widget.add_choice.bar.is_busy, "loading is seen"
    ends = {
        "choice": widget.add_choice.choose_maps,
        "finish": widget.start_button.click,
        "close": widget.close,
    }
    ends[end]()
    assert worker.pid is None
    assert widget.sam_control.sam is None
    assert not widget.add_choice.bar.is_busy
    widget.close()


def test_a_second_click_on_what_the_first_has_added_meanwhile_adds_nothing(
    widget: Any, notes: list[str]
) -> None:
    """Both are asked before the first is answered."""
    from napari_coseg.widgets.correct.proposals import Proposals

    answers = []

    class Later:
        is_busy = False

        def ask(self, prompt: Any, z: Any, done: Any, failed: Any) -> None:
            answers.append(done)

    work = widget.interaction
    work.set_proposer(Proposals(work.corrector, Later()))
    y, x = map(int, background(widget))
    press(work.viewer, "A")
    for _ in range(2):
        draw(work.viewer, work.session.objects, [(y, x)])
    mask = np.zeros((160, 160), bool)
    mask[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = True
    for done in answers:
        done(SamMask(mask, (0, 0), 0.9, False))
    assert undo_all(work.session) == 1
    assert len(notes) == 1
    assert "is already there" in notes[0]


def test_cancel_stops_all_that_is_asked_and_nothing_is_added(
    widget: Any, qtbot: Any, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam_tasks, "ANSWER", "cases.worker_jobs:slow_segment")
    before = state(widget.interaction)
    y, x = background(widget)
    press(widget.interaction.viewer, "A")
    for by in (0, 3):
        draw(widget.interaction.viewer, widget.interaction.session.objects, [(y + by, x)])
    assert widget.sam_control.sam.is_busy, "the window does not wait for the minute that it takes"
    assert widget.add_choice.bar.is_busy
    widget.add_choice.bar.cancel_button.click()
    qtbot.waitUntil(lambda: not widget.sam_control.sam.is_busy, timeout=RUN_MS)
    assert not widget.add_choice.bar.is_busy
    assert_same(before, state(widget.interaction))
    assert widget.status.text() == "SAM2 was cancelled"
    assert notes == []


def test_downloaded_files_are_offered_first(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_coseg.widgets.correct.add_choice import AddChoice

    monkeypatch.setenv("NAPARI_COSEG_CACHE", str(tmp_path))
    with (tmp_path / "sam2_hiera_small.pt").open("wb") as file:
        file.truncate(184_309_650)
    choice = AddChoice()
    qtbot.addWidget(choice)
    listed = [choice.box.itemText(n) for n in range(choice.box.count())]
    assert listed == ["the model's maps", "SAM2 small", "SAM2: choose a file…"]
    assert choice.weights is None
    choice.box.setCurrentIndex(1)
    assert choice.weights == tmp_path / "sam2_hiera_small.pt"


def test_a_drag_is_drawn_as_a_box_and_with_shift_as_the_outline(widget: Any, qtbot: Any) -> None:
    viewer, objects = widget.interaction.viewer, widget.interaction.session.objects
    shown = []
    drawing = widget.interaction.mouse.line
    drawing.show = lambda points, *, closed: shown.append(points.tolist())
    press(viewer, "A")
    before = len(objects.features)
    draw(viewer, objects, [(100, 20), (110, 10), (130, 60)], shift=True)
    assert shown[1] == [[100, 20], [110, 10], [130, 60]]
    assert len(objects.features) == before + 1, "an outline needs no SAM2"
    shown.clear()
    use(widget, [(20, 20), (40, 10), (50, 60)], qtbot)
    assert shown[1] == [[20, 20], [20, 60], [50, 60], [50, 20]]


# ---------------------------------------------------------------------------------------------
# Masks that become objects


@pytest.mark.parametrize(
    ("clicks", "expected"),
    [([], 40), ([(0, 1)], 10), ([(30, 30), (0, 1)], 10)],
    ids=["the largest", "the clicked", "the first that lies on one"],
)
def test_of_several_pieces_one_becomes_the_object(clicks: Any, expected: int) -> None:
    editor = plane(count=3)
    editor.labels[:] = 0
    mask = np.zeros((20, 20), bool)
    mask[0, :10] = mask[10:14, 5:15] = True
    edit = add_mask(editor, mask, (0, 0), clicks=clicks)
    assert len(edit.new_values) == expected


def test_a_mask_over_others_alone_is_refused() -> None:
    editor = plane(count=60)
    mask = editor.labels[20:60, 20:60] > 0
    with pytest.raises(EditError, match="another object or reviewed"):
        add_mask(editor, mask & (editor.labels[20:60, 20:60] > 0), (20, 20))


def test_an_answer_that_ends_at_the_sides_of_its_window_says_so() -> None:
    from napari_coseg.widgets.correct.proposals import confidence

    cut = SamMask(np.ones((2, 2), bool), (0, 0), 0.5, True)
    assert "confidence 50%" in confidence(cut)
    assert "did not see the whole object: drag a box" in confidence(cut)
