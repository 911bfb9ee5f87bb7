"""Train the rows of one of the paper's ablations with several seeds, and print the table."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.cli.starting import add_init_argument, first_weights
from napari_coseg.errors import SettingsError

HELP = "train the rows of an ablation and compare them"
TABLES = ("components", "paradigm", "scan", "loss-factor", "fractions", "forwards")
COST = "cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a .toml file")
    parser.add_argument(
        "--table",
        choices=(*TABLES, COST),
        default="components",
        help="which rows; cost: parameters, FLOPs and latency (table 9), trains nothing",
    )
    parser.add_argument("--data", type=Path, help="folder of the recipe's datasets")
    add_init_argument(parser)
    parser.add_argument("--output", type=Path, help="folder (default: ablation/<recipe>/<table>)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each row")
    parser.add_argument("--steps", type=int, help="fewer or more steps than the recipe's")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare crops")
    parser.add_argument("--size", type=int, default=1024, help="cost: side of the images")
    parser.add_argument("--batch-size", type=int, default=2, help="cost: images in one call")


def run(arguments: argparse.Namespace) -> int:
    """Train what is not yet trained, then print the table and write it as CSV."""
    if arguments.table == COST:
        return _print_costs(arguments)
    from napari_coseg.ablation import ABLATIONS, as_markdown, changed, run_ablation, summarise
    from napari_coseg.evaluation import score_held_out
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.training.recipe import read_recipe

    if arguments.data is None:
        raise SettingsError("--data is missing: the folder that holds the recipe's datasets")
    if arguments.seeds < 1:
        raise SettingsError(f"--seeds is {arguments.seeds}; at least 1 training is needed")
    recipe = read_recipe(arguments.recipe)
    if arguments.steps is not None:
        recipe = changed(recipe, {"steps": arguments.steps})
    output = arguments.output or Path("ablation") / recipe.name / arguments.table
    ablation = ABLATIONS[arguments.table]
    start = first_weights(recipe, arguments.init)
    progress = ProgressLine(f"{recipe.name}, {arguments.table}")
    try:
        table = run_ablation(
            recipe,
            ablation,
            arguments.data,
            output,
            score_held_out,
            seeds=range(arguments.seeds),
            device=choose_device(arguments.device),
            workers=arguments.workers,
            progress=progress,
            start=start,
        )
    finally:
        progress.close()
    summary = summarise(table, [row.name for row in ablation.rows])
    table.to_csv(output / "scores.csv", index=False)
    summary.to_csv(output / "summary.csv", index=False)
    length = f"{recipe.steps} steps" if recipe.steps else f"{recipe.epochs} epochs"
    print(
        f"{ablation.source}: {length}, {arguments.seeds} seeds, held-out images, "
        "mean ± half of the 95 % interval"
    )
    print(as_markdown(summary))
    print(output / "summary.csv")
    return 0


def _print_costs(arguments: argparse.Namespace) -> int:
    from napari_coseg.costs import as_markdown, measure_costs
    from napari_coseg.inference.loading import choose_device
    from napari_coseg.training.recipe import read_recipe

    recipe = read_recipe(arguments.recipe)
    device = choose_device(arguments.device)
    costs = measure_costs(recipe.card, arguments.size, batch=arguments.batch_size, device=device)
    print(f"{recipe.name}: {arguments.batch_size} images of {arguments.size} px, on {device}")
    print(as_markdown(costs))
    return 0
