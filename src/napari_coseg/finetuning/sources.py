"""Reviewed images from where they lie: workspaces and labelled folders, one or several together."""

from __future__ import annotations

from pathlib import Path

from napari_coseg.core.errors import DatasetError
from napari_coseg.finetuning.from_folder import is_labelled_folder, read_folder
from napari_coseg.finetuning.from_workspace import is_workspace, read_workspace
from napari_coseg.finetuning.joining import together
from napari_coseg.finetuning.reviewed import ReviewedSet


def read_reviewed(*paths: str | Path) -> ReviewedSet:
    """Read what is reviewed in workspaces and labelled folders, and check it.

    Parameters
    ----------
    *paths
        Workspaces, and labelled folders (``dataset.json`` beside ``images/``).

    Returns
    -------
    ReviewedSet
        Images with labels and masks of where these were reviewed, for `finetune`.

    Raises
    ------
    CosegError
        Where a folder is neither, is damaged, or nothing in any of them is reviewed.
    """
    if not paths:
        raise DatasetError("no workspace and no labelled folder was named")
    return together([_read(Path(path).expanduser()) for path in paths]).checked()


def _read(path: Path) -> ReviewedSet:
    if is_workspace(path):
        return read_workspace(path)
    if is_labelled_folder(path):
        return read_folder(path)
    if not path.is_dir():
        raise DatasetError(f"there is no folder {path}; name a workspace or a labelled folder")
    raise DatasetError(
        f"{path} is neither a workspace (workspace.json) nor a labelled folder (dataset.json "
        "beside images/); save corrections as a workspace, or describe your labels in dataset.json"
    )
