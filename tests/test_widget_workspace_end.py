"""Closing a window with a workspace asks or saves; kill -9 loses nothing that was recorded."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel

from cases.widget_values import RUN_MS
from cases.workspace_viewers import filled, kept, same, session_on
from napari_coseg.core.errors import WorkspaceError
from napari_coseg.labels.editing.objects import delete
from napari_coseg.widgets.workspace.controller import controller_of
from napari_coseg.widgets.workspace.guard import Buttons, may_close
from napari_coseg.workspace import recent
from napari_coseg.workspace.folder import open_workspace

pytest_plugins = ["cases.workspace_viewers"]
pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the dialogs are answered with, and what they asked."""
    answers: dict[str, Any] = {"answer": Buttons.Cancel, "folder": None, "questions": []}

    def ask(_: Any, layers: list[Any], reason: str) -> Any:
        answers["questions"].append(reason or [layer.name for layer in layers])
        return answers["answer"]

    monkeypatch.setattr("napari_coseg.widgets.workspace.guard.ask", ask)
    monkeypatch.setattr(
        "napari_coseg.widgets.workspace.guard.ask_new_folder", lambda _: answers["folder"]
    )
    return answers


@pytest.mark.parametrize(
    ("answer", "closes"), [(Buttons.Cancel, False), (Buttons.Discard, True), (Buttons.Save, True)]
)
def test_closing_asks_about_what_is_kept_nowhere(
    answer: Any, closes: bool, viewer: Any, controllers: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    controller = controllers(viewer)
    _, objects, regions = filled(viewer, tmp_path)
    session = session_on(objects, regions)
    session.do(delete(session.editor, [1]))
    asked |= {"answer": answer, "folder": tmp_path / "saved.coseg"}
    assert may_close(controller, None) is closes
    assert asked["questions"] == [["tissue regions", "tissue objects"]]
    if answer == Buttons.Save:
        same(tmp_path / "saved.coseg", objects, regions)
    else:
        assert not (tmp_path / "saved.coseg").exists()


def test_discarding_what_is_kept_nowhere_saves_the_rest(
    viewer: Any, controllers: Any, qtbot: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    controller = controllers(viewer)
    image, objects, regions = filled(viewer, tmp_path)
    path = kept(controller, qtbot, tmp_path, (image, objects, regions))
    other = viewer.add_labels(np.zeros((50, 50), np.int32), name="other")
    for layer in (objects, other):
        layer.paint((20, 20), 7)
    asked["answer"] = Buttons.Discard
    assert may_close(controller, None)
    assert asked["questions"] == [["other"]]
    same(path, objects, regions)


def test_closing_asks_nothing_where_all_was_taken_back(
    viewer: Any, controllers: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    controller = controllers(viewer)
    _, objects, regions = filled(viewer, tmp_path)
    session = session_on(objects, regions)
    session.do(delete(session.editor, [1]))
    session.undo()
    assert may_close(controller, None)
    assert not asked["questions"]


def test_closing_saves_what_is_kept_without_a_question(
    viewer: Any, controllers: Any, qtbot: Any, asked: dict[str, Any], tmp_path: Path
) -> None:
    controller = controllers(viewer)
    image, objects, regions = filled(viewer, tmp_path)
    path = kept(controller, qtbot, tmp_path, (image, objects, regions))
    objects.paint((300, 300), 7)
    assert may_close(controller, None)
    assert not asked["questions"]
    same(path, objects, regions)
    assert not recent.unfinished()


def test_closing_asks_where_the_disk_refuses(
    viewer: Any,
    controllers: Any,
    qtbot: Any,
    asked: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller = controllers(viewer)
    image, objects, regions = filled(viewer, tmp_path)
    path = kept(controller, qtbot, tmp_path, (image, objects, regions))

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        objects.paint((300, 300), 7)  # once the disk refuses, or it might be saved before
        assert not may_close(controller, None)
        assert "the disk is full" in asked["questions"][0]

    def is_saved() -> bool:
        try:
            controller.save_now()
        except WorkspaceError:  # of an attempt that began while the disk still refused
            return False
        return True

    qtbot.waitUntil(is_saved, timeout=RUN_MS)
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
    session.do(delete(session.editor, [1]))
    window.close()
    assert window.isVisible()
    assert asked["questions"] == [["tissue regions", "tissue objects"]]
    asked["answer"] = Buttons.Discard
    assert may_close(controller_of(viewer), None)


KILLED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari_coseg.labels.editing.objects import delete, merge
from napari_coseg.widgets.workspace import link as workspace_link
from napari_coseg.widgets.workspace.controller import controller_of
from cases.workspace_viewers import filled, session_on
workspace_link.SCAN_MS = 300
folder = Path({folder!r})
app = QApplication([])
viewer = ViewerModel()
corrected = filled(viewer, folder)
controller = controller_of(viewer)
controller.create(folder / "tissue.coseg")
steps = []

def go():
    if controller.busy:
        return
    if not controller.links:
        controller.add(*corrected)
    elif not steps:
        session = session_on(*corrected[1:])
        session.do(merge(session.editor, [1, 2, 3]))
        session.do(delete(session.editor, [4]))
        corrected[1].undo()
        corrected[1].selected_label = 500
        corrected[1].paint((300, 300), 7)  # a stroke, which the session takes
        corrected[2].data[590:, :] = 1  # and a change without an event
        np.savez(folder / "expected.npz", objects=corrected[1].data, regions=corrected[2].data)
        steps.append(session)
    else:
        (link,) = controller.links.values()
        state = link.writer.state
        if link.is_recorded and not state.waiting:
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
    assert saved.table["id"].tolist() == np.unique(saved.labels)[1:].tolist()
