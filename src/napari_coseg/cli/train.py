"""Train a model from a recipe; --resume continues after an interruption.

On several GPUs: torchrun --nproc_per_node=2 -m napari_coseg.cli.main train RECIPE --data DIR
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.arguments import add_device_argument, add_init_argument
from napari_coseg.cli.progress import ProgressLine

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
    parser.add_argument("--resume", action="store_true", help="resume the training in --output")
    add_device_argument(parser)
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
    """Train, then print the path of the chosen weights."""
    from napari_coseg.evaluation.train import train
    from napari_coseg.training.processes import first_of_all
    from napari_coseg.training.recipe import read_recipe

    recipe = _with_logs(read_recipe(arguments.recipe), arguments)
    progress = ProgressLine(recipe.name)
    try:
        weights = train(
            recipe,
            arguments.data,
            arguments.output,
            init=arguments.init,
            resume=arguments.resume,
            device=arguments.device,
            workers=arguments.workers,
            progress=progress,
            report=print_report,
        )
    finally:
        progress.close()
    if first_of_all():
        print(weights)
    return 0


def print_report(report: str) -> None:
    """Print which part of a network came from where, apart from the results."""
    print(report, file=sys.stderr)


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
