"""Workspaces to test with: a plane and a stack of made-up nuclei, an image file beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import editing_desks
from napari_coseg.editing.desk import Desk
from napari_coseg.editing.review import Reviewed
from napari_coseg.types import Image
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.folder import Workspace, create_workspace
from napari_coseg.workspace.image import reference_of
from napari_coseg.workspace.saved import Saved

WIDE_PX = 600
"""More than one chunk along each axis."""


def wide_desk() -> Desk:
    return editing_desks.plane(size_px=WIDE_PX, count=80)


DESKS = {"plane": wide_desk, "stack": editing_desks.stack}


def saved_of(desk: Desk, reviewed: Reviewed | None = None) -> Saved:
    """Copies of what is on a desk."""
    return Saved(
        desk.labels.copy(),
        desk.pixel_size_um,
        None if desk.regions is None else desk.regions.copy(),
        desk.table,
        reviewed or Reviewed(desk.labels.shape),
        desk.classes,
        desk.region_classes,
        {"model": "discs", "settings": {"batch": 2}},
    )


def image_file(folder: Path, shape: tuple[int, ...], name: str = "tissue.npy") -> Path:
    path = folder / name
    np.save(path, np.random.default_rng(3).integers(0, 255, shape, np.uint8))
    return path


def filled(folder: Path, desk: Desk) -> tuple[Workspace, Entry]:
    """A workspace in `folder` with the desk as its one entry, of an image in `folder`."""
    workspace = create_workspace(folder / "tissue.coseg")
    return workspace, add_to(workspace, folder, desk)


def add_to(workspace: Workspace, folder: Path, desk: Desk, name: str = "tissue.npy") -> Entry:
    path = image_file(folder, desk.labels.shape, name)
    image = Image(np.load(path), "ZYX"[-desk.labels.ndim :], desk.pixel_size_um, path.stem)
    return workspace.add(reference_of(image, path, workspace.path), saved_of(desk))


def assert_same(saved: Saved, desk: Desk) -> None:
    """What was saved is what is on the desk, bit by bit, and makes the same desk."""
    assert saved.labels.dtype == desk.labels.dtype
    np.testing.assert_array_equal(saved.labels, desk.labels)
    if desk.regions is None:
        assert saved.regions is None
    else:
        np.testing.assert_array_equal(saved.regions, desk.regions)
    pd.testing.assert_frame_equal(saved.desk().table, desk.table)
