"""The Workspace dock: corrections of layers are kept, whatever makes them, and come back."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("napari")

from napari.components import ViewerModel

from cases.widget_values import RUN_MS
from cases.workspace_viewers import filled, kept, same, session_on
from napari_coseg.core.errors import ImageError
from napari_coseg.labels.editing.objects import delete, merge, set_class
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.widgets import outputs
from napari_coseg.widgets.workspace.widget import WorkspaceWidget
from napari_coseg.workspace import recent
from napari_coseg.workspace.folder import open_workspace

pytest_plugins = ["cases.workspace_viewers"]
pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


# -- what is recorded --------------------------------------------------------------------------


def test_corrections_of_a_session_are_kept_as_they_are_made_and_undone(
    viewer: Any, controllers: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    controller = controllers(viewer)
    path = kept(controller, qtbot, tmp_path, (image, objects, regions))
    session = session_on(objects, regions)
    session.do(merge(session.editor, [1, 2, 3]))
    session.do(delete(session.editor, [4]))
    session.do(set_class(session.editor, [5], 2))
    session.mark("Reviewed", Reviewed(objects.data.shape).with_objects([5]))
    objects.undo()
    objects.undo()
    objects.redo()
    (link,) = controller.links.values()
    link.writer.flush()  # without a look at the layers
    same(path, objects, regions)
    saved = open_workspace(path).entries[0].load()
    np.testing.assert_array_equal(saved.table["class_id"], session.editor.table["class_id"])
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
    change: Callable[[Any, Any], None], viewer: Any, controllers: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    controller = controllers(viewer)
    path = kept(controller, qtbot, tmp_path, (image, objects, regions))
    change(objects, regions)
    (link,) = controller.links.values()
    link.scan()
    qtbot.waitUntil(lambda: not link.is_scanning, timeout=RUN_MS)
    link.writer.flush()
    same(path, objects, regions)


def test_what_changes_while_it_is_added_is_found(
    viewer: Any, controllers: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    controller = controllers(viewer)
    controller.create(tmp_path / "tissue.coseg")
    qtbot.waitUntil(lambda: not controller.busy, timeout=RUN_MS)
    session = session_on(objects, regions)
    controller.add(image, objects, regions)
    session.do(delete(session.editor, [1, 2]))
    qtbot.waitUntil(lambda: bool(controller.links), timeout=RUN_MS)
    session.do(delete(session.editor, [3]))
    controller.save_now()
    same(tmp_path / "tissue.coseg", objects, regions)


def test_a_layer_that_becomes_another_image_is_reported(
    viewer: Any, controllers: Any, qtbot: Any, tmp_path: Path
) -> None:
    controller = controllers(viewer)
    corrected = filled(viewer, tmp_path)
    kept(controller, qtbot, tmp_path, corrected)
    corrected[1].data = np.zeros((9, 9), np.int32)
    (link,) = controller.links.values()
    with qtbot.waitSignal(link.failed, timeout=RUN_MS) as failed:
        link.scan()
    assert "add the layer to the workspace again" in failed.args[0]


# -- the dock ----------------------------------------------------------------------------------


def test_a_new_workspace_keeps_the_labels_at_once(
    viewer: Any, docks: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, objects, regions = filled(viewer, tmp_path)
    dock = docks(viewer)
    path = tmp_path / "new.coseg"
    monkeypatch.setattr("napari_coseg.widgets.workspace.widget.ask_new_folder", lambda _: path)
    dock.new_button.click()
    qtbot.waitUntil(lambda: bool(dock.controller.links), timeout=RUN_MS)
    assert dock.images.count() == 1
    same(path, objects, regions)


def test_regions_are_kept_as_regions_whatever_the_objects_are_called(
    viewer: Any, docks: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, objects, regions = filled(viewer, tmp_path)
    objects.name = "my nuclei"
    dock = docks(viewer)
    assert dock.layers.objects_box.currentText() == "my nuclei"
    assert dock.layers.regions_box.currentText() == "tissue regions"
    path = tmp_path / "new.coseg"
    monkeypatch.setattr("napari_coseg.widgets.workspace.widget.ask_new_folder", lambda _: path)
    dock.new_button.click()
    qtbot.waitUntil(lambda: bool(dock.controller.links), timeout=RUN_MS)
    same(path, objects, regions)


def test_what_is_chosen_stays_chosen_under_another_name(
    viewer: Any, docks: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    for newer in (regions, objects):
        viewer.add_labels(newer.data.copy(), name=f"{newer.name} [2]", metadata=newer.metadata)
    dock = docks(viewer)
    dock.layers.objects_box.setCurrentText("tissue objects")
    for layer, name in ((image, "slide"), (objects, "nuclei"), (regions, "tissue")):
        layer.name = name
    boxes = dock.layers.image_box, dock.layers.objects_box
    assert [box.currentText() for box in boxes] == ["slide", "nuclei"]


def test_one_layer_is_not_kept_as_objects_and_as_regions(viewer: Any, tmp_path: Path) -> None:
    from napari_coseg.widgets.workspace.layers import adding
    from napari_coseg.workspace.folder import create_workspace

    image, objects, _ = filled(viewer, tmp_path)
    with (
        create_workspace(tmp_path / "new.coseg") as workspace,
        pytest.raises(ImageError, match="is chosen as objects and as regions"),
    ):
        adding(workspace, image, objects, objects)


def test_a_workspace_that_was_left_is_offered_and_resumed(
    viewer: Any, docks: Any, qtbot: Any, tmp_path: Path
) -> None:
    image, objects, regions = filled(viewer, tmp_path)
    dock = docks(viewer)
    path = kept(dock.controller, qtbot, tmp_path, (image, objects, regions))
    assert not dock.resume_button.isVisibleTo(dock)
    session = session_on(objects, regions)
    session.do(delete(session.editor, [1]))
    session.mark("Reviewed", Reviewed(objects.data.shape).with_objects([2]))
    dock.controller.save_now()
    dock.controller.abandon()  # as a crash leaves it: saved, but not closed

    other = ViewerModel()
    again = docks(other)
    assert again.resume_button.isVisibleTo(again)
    assert "tissue.coseg" in again.resume_button.text()
    again.resume_button.click()
    qtbot.waitUntil(lambda: again.images.count() == 1 and not again.controller.busy, timeout=RUN_MS)
    again.show_button.click()
    qtbot.waitUntil(lambda: bool(again.controller.links), timeout=RUN_MS)
    shown = {layer.name: layer for layer in other.layers}
    np.testing.assert_array_equal(shown["tissue objects"].data, objects.data)
    np.testing.assert_array_equal(shown["tissue regions"].data, regions.data)
    np.testing.assert_array_equal(shown["tissue"].data, image.data)
    assert outputs.classes_of(shown["tissue objects"]) == outputs.classes_of(objects)
    resumed = session_on(shown["tissue objects"], shown["tissue regions"])
    assert resumed.reviewed.ids == {2}
    again.close_button.click()
    qtbot.waitUntil(lambda: again.controller.workspace is None, timeout=RUN_MS)
    qtbot.waitUntil(lambda: not again.controller.busy, timeout=RUN_MS)
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
    path = kept(dock.controller, qtbot, tmp_path, corrected)
    dock.controller.finish()
    (tmp_path / "far").mkdir()
    shutil.move(tmp_path / "tissue.npy", tmp_path / "far" / "other.npy")

    def answer(self: Any, error: Any, entry: Any) -> None:
        if where == "found":
            self.controller.open_entry(entry, [tmp_path / "far" / "other.npy"])
        else:
            self.controller.open_entry(entry, with_image=False)

    monkeypatch.setattr(WorkspaceWidget, "_ask_image", answer)
    other = ViewerModel()
    again = docks(other)
    again.controller.open(path)
    qtbot.waitUntil(lambda: again.images.count() == 1 and not again.controller.busy, timeout=RUN_MS)
    again.show_button.click()
    qtbot.waitUntil(lambda: bool(again.controller.links), timeout=RUN_MS)
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
    session.do(delete(session.editor, [1]))
    dock.show_state()
    assert "not saved in a workspace: tissue regions, tissue objects" in dock.state.text()
    path = kept(dock.controller, qtbot, tmp_path, (image, objects, regions))
    dock.show_state()
    assert "Saved" in dock.state.text() and "s ago" in dock.state.text()
    with monkeypatch.context() as patch:

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", refuse)
        session.do(delete(session.editor, [2]))
        (link,) = dock.controller.links.values()
        qtbot.waitUntil(lambda: link.writer.state.error is not None, timeout=RUN_MS)
        dock.show_state()
        assert "Not saved" in dock.state.text() and "the disk is full" in dock.state.text()
    qtbot.waitUntil(lambda: link.writer.state.error is None, timeout=RUN_MS)
    dock.show_state()
    assert "Saved" in dock.state.text()
    same(path, objects, regions)
