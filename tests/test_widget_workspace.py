"""The Workspace dock: corrections of layers are kept, whatever makes them, and come back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel

from napari_coseg.editing.objects import delete, merge, set_class
from napari_coseg.editing.review import Reviewed
from napari_coseg.types import Instances, Prediction
from napari_coseg.widgets import outputs
from napari_coseg.widgets.correct_reading import desk_of, request_of
from napari_coseg.widgets.correct_session import SESSIONS, Session
from napari_coseg.widgets.workspace import WorkspaceWidget
from napari_coseg.widgets.workspace_guard import Buttons, CloseGuard
from napari_coseg.widgets.workspace_keeper import WorkspaceKeeper, keeper_of
from napari_coseg.workspace import recent, writer
from napari_coseg.workspace.folder import open_workspace
from workspace_cases import image_file, wide_desk

Corrected = tuple[Any, Any, Any]
"""A viewer with an image and its labels, the objects, the regions."""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qapp: Any) -> Iterator[None]:
    monkeypatch.setenv(recent.PLACE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(writer, "GATHER_S", 0.01)
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    yield
    for session in list(SESSIONS.open):
        session.close()


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def keepers() -> Iterator[Callable[[Any], WorkspaceKeeper]]:
    """Keepers whose workspaces are closed in the end."""
    made = []

    def make(viewer: Any) -> WorkspaceKeeper:
        made.append(keeper_of(viewer))
        return made[-1]

    yield make
    for keeper in made:
        if keeper.workspace is not None:
            keeper.give_up()


def filled(viewer: Any, folder: Path) -> Corrected:
    """An image from a file, and labels over it as Segment adds them."""
    desk = wide_desk()
    path = image_file(folder, desk.labels.shape)
    (image,) = _opened(viewer, path)
    prediction = Prediction(
        desk.regions,
        desk.region_classes,
        Instances(desk.labels, desk.table, desk.classes),
        desk.pixel_size_um,
        {"axes": "YX", "model": "discs"},
    )
    regions, objects = outputs.add_prediction(viewer, image, "YX", prediction)
    return image, objects, regions


def _opened(viewer: Any, path: Path) -> list[Any]:
    from napari.layers._source import layer_source

    with layer_source(path=str(path)):
        return [viewer.add_image(np.load(path), name="tissue", scale=(0.5, 0.25))]


def session_on(objects: Any, regions: Any) -> Session:
    return Session(objects, regions, desk_of(*request_of(objects, regions)))


def kept(keeper: WorkspaceKeeper, qtbot: Any, folder: Path, corrected: Corrected) -> Path:
    """Make a workspace and keep the layers in it; where it is."""
    path = folder / "tissue.coseg"
    keeper.create(path)
    qtbot.waitUntil(lambda: keeper.workspace is not None and not keeper.busy, timeout=20_000)
    keeper.add(*corrected)
    qtbot.waitUntil(lambda: bool(keeper.links) and not keeper.busy, timeout=20_000)
    return path


def same(path: Path, objects: Any, regions: Any) -> None:
    saved = open_workspace(path).entries[0].load()
    np.testing.assert_array_equal(saved.labels, objects.data)
    np.testing.assert_array_equal(saved.regions, regions.data)
    assert saved.desk().table["id"].tolist() == np.unique(objects.data)[1:].tolist()


# -- what is told ------------------------------------------------------------------------------


def test_corrections_of_a_session_are_kept_as_they_are_made_and_undone(
    viewer: Any, keepers: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    keeper = keepers(viewer)
    path = kept(keeper, qtbot, tmp_path, (image, objects, regions))
    session = session_on(objects, regions)
    session.do(merge(session.desk, [1, 2, 3]))
    session.do(delete(session.desk, [4]))
    session.do(set_class(session.desk, [5], 2))
    session.mark("Reviewed", Reviewed(objects.data.shape).with_objects([5]))
    objects.undo()
    objects.undo()
    objects.redo()
    (link,) = keeper.links.values()
    link.writer.flush()  # without a look at the layers
    same(path, objects, regions)
    saved = open_workspace(path).entries[0].load()
    np.testing.assert_array_equal(saved.desk().table["class_id"], session.desk.table["class_id"])
    assert saved.reviewed.ids == session.reviewed.ids == set()
    objects.redo()
    link.writer.flush()
    assert open_workspace(path).entries[0].load().reviewed.ids == {5}


def _paint(objects: Any, regions: Any) -> None:
    objects.selected_label = 500
    objects.paint((300, 300), 7)
    regions.data_setitem((np.arange(9), np.arange(9)), 2)


def _undo(objects: Any, regions: Any) -> None:
    _paint(objects, regions)
    objects.undo()


def _write(objects: Any, regions: Any) -> None:
    objects.data[:40, 560:] = 7
    regions.data[590:, :] = 1


def _replace(objects: Any, regions: Any) -> None:
    objects.data = np.roll(objects.data, 5, axis=0)


@pytest.mark.parametrize("change", [_paint, _undo, _write, _replace])
def test_what_changes_without_a_session_is_found(
    change: Callable[[Any, Any], None], viewer: Any, keepers: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    keeper = keepers(viewer)
    path = kept(keeper, qtbot, tmp_path, (image, objects, regions))
    change(objects, regions)
    (link,) = keeper.links.values()
    link.scan()
    qtbot.waitUntil(lambda: not link._scanning and not link._differing, timeout=20_000)
    link.writer.flush()
    same(path, objects, regions)


def test_what_changes_while_it_is_added_is_found(
    viewer: Any, keepers: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    keeper = keepers(viewer)
    keeper.create(tmp_path / "tissue.coseg")
    qtbot.waitUntil(lambda: not keeper.busy, timeout=20_000)
    session = session_on(objects, regions)
    keeper.add(image, objects, regions)
    session.do(delete(session.desk, [1, 2]))
    qtbot.waitUntil(lambda: bool(keeper.links), timeout=20_000)
    session.do(delete(session.desk, [3]))
    keeper.save_now()
    same(tmp_path / "tissue.coseg", objects, regions)


def test_a_layer_that_becomes_another_image_is_told(
    viewer: Any, keepers: Any, qtbot: Any, tmp_path: Path
) -> None:
    keeper = keepers(viewer)
    corrected = filled(viewer, tmp_path)
    kept(keeper, qtbot, tmp_path, corrected)
    corrected[1].data = np.zeros((9, 9), np.int32)
    (link,) = keeper.links.values()
    with qtbot.waitSignal(link.troubled, timeout=20_000) as told:
        link.scan()
    assert "add the layer to the workspace anew" in told.args[0]


# -- the dock ----------------------------------------------------------------------------------


@pytest.fixture
def docks(keepers: Any) -> Iterator[Callable[[Any], WorkspaceWidget]]:
    made = []

    def make(viewer: Any) -> WorkspaceWidget:
        keepers(viewer)
        made.append(WorkspaceWidget(viewer))
        return made[-1]

    yield make
    for dock in made:
        dock.close()


def test_a_new_workspace_keeps_the_labels_at_once(
    viewer: Any, docks: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, objects, regions = filled(viewer, tmp_path)
    dock = docks(viewer)
    path = tmp_path / "new.coseg"
    monkeypatch.setattr("napari_coseg.widgets.workspace.ask_new_folder", lambda _: path)
    dock.new_button.click()
    qtbot.waitUntil(lambda: bool(dock.keeper.links), timeout=20_000)
    assert dock.images.count() == 1
    same(path, objects, regions)


def test_a_workspace_that_was_left_is_offered_and_resumed(
    viewer: Any, docks: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    dock = docks(viewer)
    path = kept(dock.keeper, qtbot, tmp_path, (image, objects, regions))
    assert not dock.resume_button.isVisibleTo(dock)
    session = session_on(objects, regions)
    session.do(delete(session.desk, [1]))
    session.mark("Reviewed", Reviewed(objects.data.shape).with_objects([2]))
    dock.keeper.save_now()
    dock.keeper.give_up()  # as a crash leaves it: saved, but not closed

    other = ViewerModel()
    again = docks(other)
    assert again.resume_button.isVisibleTo(again)
    assert "tissue.coseg" in again.resume_button.text()
    again.resume_button.click()
    qtbot.waitUntil(lambda: again.images.count() == 1 and not again.keeper.busy, timeout=20_000)
    again.show_button.click()
    qtbot.waitUntil(lambda: bool(again.keeper.links), timeout=20_000)
    shown = {layer.name: layer for layer in other.layers}
    np.testing.assert_array_equal(shown["tissue objects"].data, objects.data)
    np.testing.assert_array_equal(shown["tissue regions"].data, regions.data)
    np.testing.assert_array_equal(shown["tissue"].data, image.data)
    assert outputs.classes_of(shown["tissue objects"]) == outputs.classes_of(objects)
    resumed = session_on(shown["tissue objects"], shown["tissue regions"])
    assert resumed.reviewed.ids == {2}
    again.close_button.click()
    qtbot.waitUntil(lambda: again.keeper.workspace is None, timeout=20_000)
    qtbot.waitUntil(lambda: not again.keeper.busy, timeout=20_000)
    assert not recent.unfinished()
    same(path, objects, regions)


@pytest.mark.parametrize("where", ["found", "labels only"])
def test_an_image_that_is_gone_is_asked_for(
    where: str,
    viewer: Any,
    docks: Any,
    qtbot: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, objects, _ = corrected = filled(viewer, tmp_path)
    dock = docks(viewer)
    path = kept(dock.keeper, qtbot, tmp_path, corrected)
    dock.keeper.finish()
    (tmp_path / "far").mkdir()
    shutil.move(tmp_path / "tissue.npy", tmp_path / "far" / "other.npy")

    def answer(self: Any, error: Any, entry: Any) -> None:
        if where == "found":
            self.keeper.open_entry(entry, [tmp_path / "far" / "other.npy"])
        else:
            self.keeper.open_entry(entry, with_image=False)

    monkeypatch.setattr(WorkspaceWidget, "_ask_image", answer)
    other = ViewerModel()
    again = docks(other)
    again.keeper.open(path)
    qtbot.waitUntil(lambda: again.images.count() == 1 and not again.keeper.busy, timeout=20_000)
    again.show_button.click()
    qtbot.waitUntil(lambda: bool(again.keeper.links), timeout=20_000)
    names = [layer.name for layer in other.layers]
    expected = ["tissue regions", "tissue objects"]
    assert names == (["tissue", *expected] if where == "found" else expected)
    np.testing.assert_array_equal(other.layers["tissue objects"].data, objects.data)
    np.testing.assert_allclose(other.layers["tissue objects"].scale, (0.5, 0.25))


def test_the_state_of_saving_is_shown(
    viewer: Any, docks: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    dock = docks(viewer)
    session = session_on(objects, regions)
    session.do(delete(session.desk, [1]))
    dock._tell()
    assert "kept nowhere: tissue regions, tissue objects" in dock.state.text()
    path = kept(dock.keeper, qtbot, tmp_path, (image, objects, regions))
    dock._tell()
    assert "Saved" in dock.state.text() and "s ago" in dock.state.text()
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", refuse)
        session.do(delete(session.desk, [2]))
        (link,) = dock.keeper.links.values()
        qtbot.waitUntil(lambda: link.writer.state.error is not None, timeout=20_000)
        dock._tell()
        assert "Not saved" in dock.state.text() and "the disk is full" in dock.state.text()
    qtbot.waitUntil(lambda: link.writer.state.error is None, timeout=20_000)
    dock._tell()
    assert "Saved" in dock.state.text()
    same(path, objects, regions)


# -- closing the window ------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the dialogs are answered with, and what they asked."""
    answers: dict[str, Any] = {"answer": Buttons.Cancel, "folder": None, "questions": []}

    def ask(_: Any, layers: list[Any], reason: str) -> Any:
        answers["questions"].append(reason or [layer.name for layer in layers])
        return answers["answer"]

    monkeypatch.setattr("napari_coseg.widgets.workspace_guard.ask", ask)
    monkeypatch.setattr(
        "napari_coseg.widgets.workspace_guard.ask_new_folder", lambda _: answers["folder"]
    )
    return answers


class SeenWindow:
    """Of a window the one thing that the guard asks."""

    @staticmethod
    def isVisible() -> bool:
        return True


def guard_of(keeper: WorkspaceKeeper) -> CloseGuard:
    guard = CloseGuard.__new__(CloseGuard)
    guard._window, guard._keeper = SeenWindow, keeper
    return guard


@pytest.mark.parametrize(
    ("answer", "closes"), [(Buttons.Cancel, False), (Buttons.Discard, True), (Buttons.Save, True)]
)
def test_closing_asks_about_what_is_kept_nowhere(
    answer: Any, closes: bool, viewer: Any, keepers: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    keeper = keepers(viewer)
    _, objects, regions = filled(viewer, tmp_path)
    session = session_on(objects, regions)
    session.do(delete(session.desk, [1]))
    asked |= {"answer": answer, "folder": tmp_path / "saved.coseg"}
    assert guard_of(keeper)._may_close() is closes
    assert asked["questions"] == [["tissue regions", "tissue objects"]]
    if answer == Buttons.Save:
        same(tmp_path / "saved.coseg", objects, regions)
    else:
        assert not (tmp_path / "saved.coseg").exists()


def test_closing_asks_nothing_where_all_was_taken_back(
    viewer: Any, keepers: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    keeper = keepers(viewer)
    _, objects, regions = filled(viewer, tmp_path)
    session = session_on(objects, regions)
    session.do(delete(session.desk, [1]))
    session.undo()
    assert guard_of(keeper)._may_close()
    assert not asked["questions"]


def test_closing_saves_what_is_kept_without_a_question(
    viewer: Any, keepers: Any, qtbot: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    keeper = keepers(viewer)
    image, objects, regions = filled(viewer, tmp_path)
    path = kept(keeper, qtbot, tmp_path, (image, objects, regions))
    _paint(objects, regions)
    assert guard_of(keeper)._may_close()
    assert not asked["questions"]
    same(path, objects, regions)
    assert not recent.unfinished()


def test_closing_asks_where_the_disk_refuses(
    viewer: Any,
    keepers: Any,
    qtbot: Any,
    asked: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = keepers(viewer)
    image, objects, regions = filled(viewer, tmp_path)
    path = kept(keeper, qtbot, tmp_path, (image, objects, regions))
    _paint(objects, regions)

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert not guard_of(keeper)._may_close()
        assert "the disk is full" in asked["questions"][0]
    keeper.save_now()
    same(path, objects, regions)


@pytest.mark.slow
def test_the_guard_stands_before_a_real_window(
    asked: dict[str, Any], make_napari_viewer: Any, tmp_path: Path
) -> None:
    viewer = make_napari_viewer(show=True)
    window = viewer.window._qt_window
    viewer.window.add_plugin_dock_widget("napari-coseg", "Workspace")
    _, objects, regions = filled(viewer, tmp_path)
    session = session_on(objects, regions)
    session.do(delete(session.desk, [1]))
    window.close()
    assert window.isVisible()
    assert asked["questions"] == [["tissue regions", "tissue objects"]]
    asked["answer"] = Buttons.Discard
    assert guard_of(keeper_of(viewer))._may_close()


KILLED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari_coseg.editing.objects import delete, merge
from napari_coseg.widgets import workspace_link
from napari_coseg.widgets.workspace_keeper import keeper_of
from test_widget_workspace import filled, session_on
workspace_link.SCAN_MS = 300
folder = Path({folder!r})
app = QApplication([])
viewer = ViewerModel()
corrected = filled(viewer, folder)
keeper = keeper_of(viewer)
keeper.create(folder / "tissue.coseg")
steps = []

def go():
    if keeper.busy:
        return
    if not keeper.links:
        keeper.add(*corrected)
    elif not steps:
        session = session_on(*corrected[1:])
        session.do(merge(session.desk, [1, 2, 3]))
        session.do(delete(session.desk, [4]))
        corrected[1].undo()
        corrected[1].selected_label = 500
        corrected[1].paint((300, 300), 7)  # a stroke, which the session takes
        corrected[2].data[590:, :] = 1  # and something that nobody tells of
        np.savez(folder / "expected.npz", objects=corrected[1].data, regions=corrected[2].data)
        steps.append(session)
    else:
        (link,) = keeper.links.values()
        state = link.writer.state
        scanned = not link._known.watches["regions"].differing(corrected[2].data)
        if scanned and not state.waiting:
            print("written", flush=True)

timer = QTimer()
timer.timeout.connect(go)
timer.start(200)
app.exec()
"""


@pytest.mark.gui
@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_after_kill_9_the_workspace_is_offered_with_all_corrections(
    viewer: Any, docks: Any, tmp_path: Path
) -> None:
    code = KILLED.format(path=sys.path, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
    finally:
        process.kill()
        process.wait()
    dock = docks(viewer)
    assert "tissue.coseg" in dock.resume_button.text()
    saved = open_workspace(tmp_path / "tissue.coseg").entries[0].load()
    expected = np.load(tmp_path / "expected.npz")
    np.testing.assert_array_equal(saved.labels, expected["objects"])
    np.testing.assert_array_equal(saved.regions, expected["regions"])
    assert saved.desk().table["id"].tolist() == np.unique(saved.labels)[1:].tolist()
