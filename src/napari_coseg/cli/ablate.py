"""Train the rows of one of the papers' ablations with several seeds and print the table.

Rows that tables share are trained once. Start the same command several times to use several GPUs or
processes: each trains rows that the others have not started.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from napari_coseg.cli.arguments import add_device_argument, add_init_argument
from napari_coseg.cli.progress import ProgressLine
from napari_coseg.cli.train import print_report
from napari_coseg.core.errors import SettingsError

HELP = "train the rows of an ablation and compare them"
TABLES = ("components", "paradigm", "scan", "loss-factor", "fractions", "forwards")
COST = "cost"
IMAGES = ("held-out", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a .toml file")
    parser.add_argument(
        "--table",
        choices=(*TABLES, COST),
        default="components",
        help="which rows; cost: parameters, FLOPs and latency (table 9), without training",
    )
    parser.add_argument("--data", type=Path, help="folder of the recipe's datasets")
    add_init_argument(parser)
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for all tables of the recipe (default: ablation/<recipe>, with --steps "
        "ablation/<recipe>-<n>-steps)",
    )
    parser.add_argument(
        "--images",
        choices=IMAGES,
        default=IMAGES[0],
        help="images to score; finished trainings are only scored",
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of trainings of each row")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    add_device_argument(parser)
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare crops")
    parser.add_argument("--size", type=int, default=1024, help="cost: side of the images in pixels")
    parser.add_argument("--batch-size", type=int, default=2, help="cost: images in one batch")


def run(arguments: argparse.Namespace) -> int:
    """Train unfinished rows, then print the table and write it as CSV."""
    if arguments.table == COST:
        return _print_costs(arguments)
    from napari_coseg.evaluation.ablation.rows import ABLATIONS, changed
    from napari_coseg.evaluation.ablation.run import run_ablation
    from napari_coseg.evaluation.ablation.summary import as_markdown, summarise
    from napari_coseg.evaluation.run import score_for_ablation
    from napari_coseg.evaluation.train import first_weights
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.training.recipe import read_recipe

    if arguments.data is None:
        raise SettingsError("--data is missing; give the folder of the recipe's datasets")
    if arguments.seeds < 1:
        raise SettingsError(f"--seeds is {arguments.seeds}; expected at least 1")
    recipe = read_recipe(arguments.recipe)
    if arguments.steps is not None:
        recipe = changed(recipe, {"steps": arguments.steps})
    output = arguments.output or _default_output(recipe.name, arguments.steps)
    ablation = ABLATIONS[arguments.table]
    progress = ProgressLine(f"{recipe.name}, {arguments.table}")
    try:
        start = first_weights(recipe, arguments.init, progress, print_report)
        table = run_ablation(
            recipe,
            ablation,
            arguments.data,
            output,
            partial(score_for_ablation, images=arguments.images),
            images=arguments.images,
            seeds=range(arguments.seeds),
            device=choose_device(arguments.device),
            workers=arguments.workers,
            progress=progress,
            start=start,
            started_from=arguments.init,
        )
    finally:
        progress.close()
    summary = summarise(table, [row.name for row in ablation.rows])
    stem = f"{arguments.table}-{arguments.images}"
    table.to_csv(output / f"{stem}-scores.csv", index=False)
    summary_file = output / f"{stem}-summary.csv"
    summary.to_csv(summary_file, index=False)
    length = f"{recipe.steps} steps" if recipe.steps else f"{recipe.epochs} epochs"
    several = arguments.seeds > 1
    seeds = f"{arguments.seeds} seed{'s' * several}, {arguments.images} images"
    print(f"{ablation.source}: {length}, {seeds}{', mean ± half the 95 % interval' * several}")
    print(as_markdown(summary))
    if len(ablation.rows) > 1:
        print(f"\nDifference to {ablation.rows[-1].name!r}, paired by seed:")
        print(as_markdown(summary, "difference"))
    print(summary_file)
    return 0


def _default_output(name: str, steps: int | None) -> Path:
    return Path("ablation") / (name if steps is None else f"{name}-{steps}-steps")


def _print_costs(arguments: argparse.Namespace) -> int:
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.models.costs import as_markdown, measure_costs
    from napari_coseg.training.recipe import read_recipe

    recipe = read_recipe(arguments.recipe)
    device = choose_device(arguments.device)
    costs = measure_costs(
        recipe.card,
        arguments.size,
        batch=arguments.batch_size,
        device=device,
        learnable=recipe.trained_parts,
    )
    print(f"{recipe.name}: {arguments.batch_size} images of {arguments.size} px, on {device}")
    print(as_markdown(costs))
    return 0
