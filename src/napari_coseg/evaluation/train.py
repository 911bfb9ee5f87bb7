"""`train`: a recipe and a folder of data to the weights that score best on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.core.errors import OutputError, SettingsError
from napari_coseg.evaluation.run import score_held_out
from napari_coseg.inference.loading import choose_device
from napari_coseg.models.checkpoints.starting import initialise, starting_file
from napari_coseg.training.processes import first_of_all, joined
from napari_coseg.training.recipe import Recipe, read_recipe
from napari_coseg.training.run import train_recipe
from napari_coseg.training.settings import STATE_FILE

if TYPE_CHECKING:
    from napari_coseg.models.base import CosegModel

Progress = Callable[[float, str], None]


def train(
    recipe: str | Path | Recipe,
    data_root: str | Path,
    output_dir: str | Path | None = None,
    *,
    init: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    workers: int = 1,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Path:
    """Train a model from a recipe.

    Under ``torchrun`` each process calls this function, and they share every batch.

    Parameters
    ----------
    recipe
        Name of a shipped recipe, path of a ``.toml`` file, or a `Recipe`.
    data_root
        Folder that holds the datasets that the recipe names.
    output_dir
        Gets weights, state and log; ``training/<name of the recipe>`` where None.
    init
        SAM2 weights to start from: a file, or the name of a download. Recipes that do not train
        the encoder's trunk need them.
    resume
        Continue the training in `output_dir`.
    device
        As for `load_model`.
    workers
        Processes that prepare crops.
    progress
        Called with the part done (0..1) and one line of text.
    report
        Called with a text that says which parts of the network started from `init`.
    should_cancel
        Asked before every step; True ends the training, which `resume` continues.

    Returns
    -------
    Path
        The weights that scored best on the held-out images.

    Raises
    ------
    OutputError
        If `output_dir` holds a training and `resume` is False.
    SettingsError, DatasetError, CheckpointError
        If the recipe, the data or `init` cannot be used.
    Cancelled
        If `should_cancel` said so.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    output = Path(output_dir) if output_dir is not None else Path("training") / recipe.name
    is_first = first_of_all()
    if is_first and output.exists() and any(output.iterdir()) and not resume:
        raise OutputError(
            f"{output} holds an earlier training: resume it (--resume), or choose another folder"
        )
    # The other processes get their weights from the first, and must not fetch the same file.
    starts = is_first and not (output / STATE_FILE).exists()
    start = first_weights(recipe, init, progress, report) if starts else None
    with joined(choose_device(device)) as (processes, chosen_device):
        return train_recipe(
            recipe,
            Path(data_root),
            output,
            score_held_out,
            device=chosen_device,
            workers=workers,
            progress=progress,
            should_cancel=should_cancel,
            processes=processes,
            start=start,
        )


def first_weights(
    recipe: Recipe,
    init: str | Path | None,
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
) -> Callable[[CosegModel], None] | None:
    """Give the function that sets a network's first weights; None for a random start.

    The file is looked for, or downloaded, at once: not after the data was read.

    Raises
    ------
    SettingsError
        If there is no `init`, but the recipe never trains the trunk: it would stay random.
    CheckpointError
        As `starting_file`.
    """
    if init is None:
        if "trunk" not in recipe.trained_parts:
            raise SettingsError(
                f"recipe {recipe.name!r} does not train the encoder's trunk, which must then start "
                "from SAM2: name a checkpoint as init (--init), a file or sam2.1-large for example"
            )
        return None
    path = starting_file(init, progress=progress)

    def start(model: CosegModel) -> None:
        found = initialise(model, path)
        if report is not None:
            report(str(found))

    return start
