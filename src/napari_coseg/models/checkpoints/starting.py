"""Where a training starts from: SAM2's weights, by path or by the name of a download."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari_coseg.core.errors import CheckpointError
from napari_coseg.models.checkpoints.download import (
    Progress,
    ShouldCancel,
    download,
    downloaded,
    find,
    place_of,
)
from napari_coseg.models.checkpoints.from_sam2 import StartReport, initialise_encoder

if TYPE_CHECKING:
    from napari_coseg.models.base import CosegModel
    from napari_coseg.models.coseg_plus.model import CosegPlus


def initialise(
    model: CosegModel,
    path_or_name: str | Path,
    *,
    progress: Progress | None = None,
    should_cancel: ShouldCancel | None = None,
) -> StartReport:
    """Start a network from SAM2's weights; what does not fit keeps its own start.

    Parameters
    ----------
    model
        Of any family with a Hiera encoder; changed in place.
    path_or_name, progress, should_cancel
        As in `starting_file`.

    Raises
    ------
    CheckpointError
        If the file cannot be had, is of another size, or its trunk or neck does not fit.
    """
    path = starting_file(path_or_name, progress=progress, should_cancel=should_cancel)
    if not hasattr(getattr(model, "config", None), "hiera"):
        raise CheckpointError(
            f"a model of the family {model.card.family!r} has no Hiera encoder to start from {path}"
        )
    # Families share the encoder and the names of their parts; what a family lacks is passed over.
    return initialise_encoder(cast("CosegPlus", model), path)


def starting_file(
    path_or_name: str | Path,
    *,
    progress: Progress | None = None,
    should_cancel: ShouldCancel | None = None,
) -> Path:
    """The checkpoint meant.

    Parameters
    ----------
    path_or_name
        A file; or a name in `download.SAM2_CHECKPOINTS`, which is fetched unless it is there
        already; or the file name of one, which is looked for among the downloads but never
        fetched: it may as well be a path with a slip in it.
    progress, should_cancel
        As in `download`.

    Raises
    ------
    CheckpointError
        If there is no such file, saying how to get it.
    """
    path = Path(path_or_name).expanduser()
    if path.is_file():
        return path
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
