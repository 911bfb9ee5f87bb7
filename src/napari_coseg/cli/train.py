"""Train a model from a recipe; run it again with --resume to go on after an interruption.

On several GPUs: torchrun --nproc_per_node=2 -m napari_coseg.cli.main train RECIPE --data DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.cli.starting import add_init_argument, first_weights
from napari_coseg.core.errors import OutputError

if TYPE_CHECKING:
    from napari_coseg.training.recipe import Recipe

HELP = "train a model from a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a .toml file")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds the recipe's datasets"
    )
    add_init_argument(parser)
    parser.add_argument("--output", type=Path, help="folder (default: training/<recipe>)")
    parser.add_argument("--resume", action="store_true", help="go on with what is in --output")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare crops")
    parser.add_argument(
        "--tensorboard", action="store_true", help="write curves to OUTPUT/tensorboard as well"
    )
    parser.add_argument(
        "--pictures-every",
        type=int,
        metavar="STEPS",
        help="write image, truth and prediction of some crops to OUTPUT/pictures",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, then say where the chosen weights are."""
    from napari_coseg.evaluation.run import score_held_out
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.training.processes import first_of_all, joined
    from napari_coseg.training.recipe import read_recipe
    from napari_coseg.training.run import train_recipe
    from napari_coseg.training.settings import STATE_FILE

    recipe = _with_logs(read_recipe(arguments.recipe), arguments)
    output = arguments.output or Path("training") / recipe.name
    speaks = first_of_all()
    if speaks and output.exists() and any(output.iterdir()) and not arguments.resume:
        raise OutputError(
            f"{output} holds an earlier training; give --resume to go on with it, or another "
            "--output"
        )
    goes_on = (output / STATE_FILE).exists()
    # The others get the first process' weights, and must not fetch the same file at once.
    start = first_weights(recipe, arguments.init) if speaks and not goes_on else None
    progress = ProgressLine(recipe.name)
    try:
        with joined(choose_device(arguments.device)) as (processes, device):
            weights = train_recipe(
                recipe,
                arguments.data,
                output,
                score_held_out,
                device=device,
                workers=arguments.workers,
                progress=progress,
                processes=processes,
                start=start,
            )
    finally:
        progress.close()
    if speaks:
        print(weights)
    return 0


def _with_logs(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with the logs that the command line asks for."""
    asked: dict[str, Any] = {}
    if arguments.tensorboard:
        asked["tensorboard"] = True
    if arguments.pictures_every is not None:
        asked["pictures_every_steps"] = arguments.pictures_every
    if not asked:
        return recipe
    logs = type(recipe.logs).from_mapping({**recipe.logs.model_dump(), **asked})
    return recipe.model_copy(update={"logs": logs})
