"""Train a model from a recipe; run it again with --resume to go on after an interruption."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.errors import OutputError

HELP = "train a model from a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a .toml file")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds the recipe's datasets"
    )
    parser.add_argument("--output", type=Path, help="folder (default: training/<recipe>)")
    parser.add_argument("--resume", action="store_true", help="go on with what is in --output")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare crops")


def run(arguments: argparse.Namespace) -> int:
    """Train, then say where the chosen weights are."""
    from napari_coseg.evaluation import score_held_out
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.training.recipe import read_recipe
    from napari_coseg.training.run import train_recipe

    recipe = read_recipe(arguments.recipe)
    output = arguments.output or Path("training") / recipe.name
    if output.exists() and any(output.iterdir()) and not arguments.resume:
        raise OutputError(
            f"{output} holds an earlier training; give --resume to go on with it, or another "
            "--output"
        )
    progress = ProgressLine(recipe.name)
    try:
        weights = train_recipe(
            recipe,
            arguments.data,
            output,
            score_held_out,
            device=choose_device(arguments.device),
            workers=arguments.workers,
            progress=progress,
        )
    finally:
        progress.close()
    print(weights)
    return 0
