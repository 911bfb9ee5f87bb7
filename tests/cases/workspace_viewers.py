"""Viewers with labels that a workspace keeps, for its tests: name this file in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cases.widget_values import RUN_MS
from cases.workspace_cases import image_file, wide_editor
from napari_coseg.workspace import recent, writer
from napari_coseg.workspace.folder import open_workspace

Corrected = tuple[Any, Any, Any]
"""An image in a viewer and labels of it: the image, the objects, the regions."""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qapp: Any) -> Iterator[None]:
    monkeypatch.setenv(recent.PLACE_VARIABLE, str(tmp_path / "state"))
    monkeypatch.setattr(writer, "GATHER_S", 0.01)
    monkeypatch.setattr(writer, "RETRY_S", 0.05)
    from napari_coseg.widgets.correct.session import SESSIONS
    from napari_coseg.widgets.workspace import link

    monkeypatch.setattr(link, "SCAN_MS", 3_600_000)  # tests scan when they want to

    yield
    for session in list(SESSIONS.open):
        session.close()


@pytest.fixture
def controllers() -> Iterator[Callable[[Any], Any]]:
    """Controllers whose workspaces are closed in the end."""
    from napari_coseg.widgets.workspace.controller import controller_of

    made = []

    def make(viewer: Any) -> Any:
        made.append(controller_of(viewer))
        return made[-1]

    yield make
    for controller in made:
        if controller.workspace is not None:
            controller.abandon()


def filled(viewer: Any, folder: Path) -> Corrected:
    """An image from a file, and labels over it as Segment adds them."""
    from napari_coseg.widgets import outputs

    editor = wide_editor()
    path = image_file(folder, editor.labels.shape)
    (image,) = _opened(viewer, path)
    prediction = replace(editor.prediction, provenance={"axes": "YX", "model": "discs"})
    regions, objects = outputs.add_prediction(viewer, image, "YX", prediction)
    return image, objects, regions


def _opened(viewer: Any, path: Path) -> list[Any]:
    from napari.layers._source import layer_source

    with layer_source(path=str(path)):
        return [viewer.add_image(np.load(path), name="tissue", scale=(0.5, 0.25))]


def session_on(objects: Any, regions: Any) -> Any:
    """A session of corrections, as the Correct dock begins one."""
    from napari_coseg.widgets.correct.reading import editor_of, request_of
    from napari_coseg.widgets.correct.session import CorrectionSession

    return CorrectionSession(objects, regions, editor_of(*request_of(objects, regions)))


def kept(controller: Any, qtbot: Any, folder: Path, corrected: Corrected) -> Path:
    """Make a workspace and keep the layers in it; where it is."""
    path = folder / "tissue.coseg"
    controller.create(path)
    qtbot.waitUntil(
        lambda: controller.workspace is not None and not controller.busy, timeout=RUN_MS
    )
    controller.add(*corrected)
    qtbot.waitUntil(lambda: bool(controller.links) and not controller.busy, timeout=RUN_MS)
    return path


def same(path: Path, objects: Any, regions: Any) -> None:
    """What the workspace holds is what the layers show."""
    saved = open_workspace(path).entries[0].load()
    np.testing.assert_array_equal(saved.labels, objects.data)
    np.testing.assert_array_equal(saved.regions, regions.data)
    assert saved.table["id"].tolist() == np.unique(objects.data)[1:].tolist()


@pytest.fixture
def docks(controllers: Any) -> Iterator[Callable[[Any], Any]]:
    """Docks that are closed in the end."""
    from napari_coseg.widgets.workspace.widget import WorkspaceWidget

    made = []

    def make(viewer: Any) -> Any:
        controllers(viewer)
        made.append(WorkspaceWidget(viewer))
        return made[-1]

    yield make
    for dock in made:
        dock.close()
