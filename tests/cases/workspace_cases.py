"""Workspaces to test with: a plane and a stack of made-up nuclei, an image file beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cases import label_editors
from napari_coseg.core.types import Image
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import Workspace, create_workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

WIDE_PX = 600
"""More than one chunk along each axis."""


def wide_editor() -> LabelEditor:
    return label_editors.plane(size_px=WIDE_PX, count=80)


DESKS = {"plane": wide_editor, "stack": label_editors.stack}


def saved_of(editor: LabelEditor, reviewed: Reviewed | None = None) -> Saved:
    """Copies of what is on an editor."""
    prediction = replace(
        editor.prediction,
        regions=None if editor.regions is None else editor.regions.copy(),
        instances=replace(editor.prediction.instances, labels=editor.labels.copy()),
        provenance={"model": "discs", "settings": {"batch": 2}},
    )
    return Saved(prediction, reviewed)


def image_file(folder: Path, shape: tuple[int, ...], name: str = "tissue.npy") -> Path:
    path = folder / name
    np.save(path, np.random.default_rng(3).integers(0, 255, shape, np.uint8))
    return path


def filled(folder: Path, editor: LabelEditor) -> tuple[Workspace, Entry]:
    """A workspace in `folder` with the editor as its one entry, of an image in `folder`."""
    workspace = create_workspace(folder / "tissue.coseg")
    return workspace, add_to(workspace, folder, editor)


def add_to(
    workspace: Workspace, folder: Path, editor: LabelEditor, name: str = "tissue.npy"
) -> Entry:
    path = image_file(folder, editor.labels.shape, name)
    image = Image(np.load(path), "ZYX"[-editor.labels.ndim :], editor.pixel_size_um, path.stem)
    return workspace.add(reference_of(image, path, workspace.path), saved_of(editor))


def assert_same(saved: Saved, editor: LabelEditor) -> None:
    """What was saved is what is on the editor, bit by bit, and makes the same editor."""
    assert saved.labels.dtype == editor.labels.dtype
    np.testing.assert_array_equal(saved.labels, editor.labels)
    if editor.regions is None:
        assert saved.regions is None
    else:
        np.testing.assert_array_equal(saved.regions, editor.regions)
    pd.testing.assert_frame_equal(LabelEditor(saved.prediction).table, editor.table)
