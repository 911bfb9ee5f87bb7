"""Start networks from published weights, by path or by name.

`Encoder.start` names the kind of weights that fit; `STARTS` has their readers.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.download import (
    Progress,
    ShouldCancel,
    download,
    downloaded,
    find,
    place_of,
)
from napari_coseg.models.checkpoints.from_efficientnet import packaged_file
from napari_coseg.models.checkpoints.reports import StartReport

if TYPE_CHECKING:
    from napari_coseg.models.base import CosegModel

STARTS: dict[str, str] = {
    "sam2": "napari_coseg.models.checkpoints.from_sam2:initialise_encoder",
    "efficientnet-lite": "napari_coseg.models.checkpoints.from_efficientnet:initialise_trunk",
}
"""Functions that fill a network from a file, by `Encoder.start`."""


def initialise(
    model: CosegModel,
    path_or_name: str | Path,
    *,
    progress: Progress | None = None,
    should_cancel: ShouldCancel | None = None,
) -> StartReport:
    """Start a network from published weights; parts that do not fit are unchanged.

    Parameters
    ----------
    model
        Of any family, with an encoder that has a `start`; changed in place.
    path_or_name, progress, should_cancel
        As in `starting_file`.

    Raises
    ------
    CheckpointError
        If the file is not available, is of another size, or does not fit the encoder.
    """
    path = starting_file(path_or_name, progress=progress, should_cancel=should_cancel)
    encoder = model.image_encoder
    if encoder is None or encoder.start is None:
        raise CheckpointError(f"{model.card.name!r} has no encoder that could start from {path}")
    module, name = STARTS[encoder.start].split(":")
    report: StartReport = getattr(importlib.import_module(module), name)(model, path)
    return report


def starting_file(
    path_or_name: str | Path,
    *,
    progress: Progress | None = None,
    should_cancel: ShouldCancel | None = None,
) -> Path:
    """Resolve a path or name to a checkpoint file, downloading it by name.

    Parameters
    ----------
    path_or_name
        A file; a name in `download.SAM2_CHECKPOINTS`, which is downloaded if needed; the file name
        of one, which is looked up but never downloaded, since it may be a mistyped path; or the
        name of an encoder whose weights an installed package ships
        (`from_efficientnet.PACKAGES`).
    progress, should_cancel
        As in `download`.

    Raises
    ------
    CheckpointError
        If there is no such file; explains how to get it.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
    packaged = packaged_file(str(path_or_name))
    if packaged is not None:
        return packaged
    try:
        checkpoint = find(path.name)
    except CheckpointError as error:
        raise CheckpointError(f"there is no file {path}, and {error}") from error
    if str(path_or_name) == checkpoint.name:
        return download(checkpoint, progress=progress, should_cancel=should_cancel)
    bare = str(path_or_name) == checkpoint.file_name
    there = downloaded(checkpoint) if bare else None
    if there is None:
        raise CheckpointError(
            f"there is no file {path}; get it by `napari-coseg models download {checkpoint.name}` "
            f"({checkpoint.size_mb:,.0f} MB), or fetch {checkpoint.url} and save it as "
            f"{place_of(checkpoint)}"
        )
    return there
