"""The option --init of the commands that train: what a fresh network starts from."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import SettingsError

if TYPE_CHECKING:
    from napari_coseg.models.base import CosegModel
    from napari_coseg.training.recipe import Recipe


def add_init_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --init, which `first_weights` takes."""
    parser.add_argument(
        "--init",
        metavar="CHECKPOINT",
        help="start from SAM2's weights: a file, or a name to download, as sam2.1-large",
    )


def first_weights(
    recipe: Recipe, init: str | None, speaks: bool = True
) -> Callable[[CosegModel], None] | None:
    """What gives a network its first weights; None for a random start.

    The file is looked for, or fetched, at once: not after the data was read.

    Parameters
    ----------
    speaks
        Say which part of a network came from where.

    Raises
    ------
    SettingsError
        If there is no `init`, but the recipe never trains the trunk: it would stay random.
    CheckpointError
        As `starting_file`.
    """
    from napari_coseg.models.checkpoints.starting import initialise, starting_file

    if init is None:
        if "trunk" not in recipe.trained_parts:
            raise SettingsError(
                f"recipe {recipe.name!r} does not train the encoder's trunk, which must then come "
                "from SAM2: give --init with a file or a name, as sam2.1-large"
            )
        return None
    progress = ProgressLine(init)
    try:
        path = starting_file(init, progress=progress)
    finally:
        progress.close()

    def start(model: CosegModel) -> None:
        report = initialise(model, path)
        if speaks:
            print(report, file=sys.stderr)

    return start
