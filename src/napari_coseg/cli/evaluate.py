"""Segment the labelled images of a dataset and compare: a table on screen, all of it as CSV.

With --table, the row of a paper's table as well.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.cli.segment import add_inference_arguments, inference_settings
from napari_coseg.datasets.registry import DATASETS

if TYPE_CHECKING:
    from napari_coseg.datasets.base import Dataset

HELP = "score a model on a labelled dataset"
LEGEND = (
    "(mean): over the images whose labels have the class. (pooled): pixels and objects of all\n"
    "images summed first. (classes): mean over the classes; its IoU is the mIoU. Objects match at\n"
    "an IoU above 0.5. Hausdorff distances (HD, HD95) leave out images where a side is empty."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("model", help="weights file, or: default")
    parser.add_argument("--adapter", type=Path, help="adapter that was fine-tuned from the model")
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", help="which images (default: test images, else validation)")
    parser.add_argument(
        "--partition",
        help="file or name of a split in three, or of names held out (colon_default, multi_organ): "
        "then the splits are train, validation and test; "
        "a training that drew its own writes split.json beside its weights",
    )
    parser.add_argument("--output", type=Path, help="CSV file: every image, class and metric")
    parser.add_argument(
        "--table",
        metavar="NAME",
        help="also print the row of the papers' tables, as Markdown, in their columns for one "
        "dataset: puma, crag, glas, toothfairy2 and others; an unknown name tells all",
    )
    parser.add_argument(
        "--distances-at-1024",
        action="store_true",
        help="measure Hausdorff distances as the papers do, too: in pixels of the image stretched "
        "to 1024 x 1024 (HD_1024px; a column of its own in --table)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the CSV file")
    add_inference_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print means and pooled scores, write the whole table."""
    from napari_coseg.core.files import atomic_write, refuse_existing
    from napari_coseg.datasets.registry import open_dataset
    from napari_coseg.evaluation.run import compared_classes, evaluate, summary
    from napari_coseg.inference.loading import load_model
    from napari_coseg.labels.metrics.paper_tables import paper_row, tables_of

    settings = inference_settings(arguments)
    if arguments.table:
        tables_of(arguments.table)  # a name that does not exist is told before any work
    if arguments.output:
        refuse_existing([arguments.output], arguments.overwrite)
    dataset = open_dataset(arguments.dataset, arguments.root, arguments.partition)
    model = load_model(arguments.model, arguments.device, adapter=arguments.adapter)
    split = arguments.split or dataset.split_to_score
    progress = ProgressLine(f"{dataset.name} {split}")
    try:
        table = evaluate(
            model,
            dataset,
            split,
            settings=settings,
            distances_at_1024=arguments.distances_at_1024,
            progress=progress,
        )
    finally:
        progress.close()
    print(scored_on(dataset, split, asked=bool(arguments.split)))
    for line in compared_classes(model.card, dataset):
        print(line)
    print(summary(table).round(4).to_string(na_rep="-"))
    print(LEGEND)
    if arguments.table:
        print()
        print(paper_row(table, arguments.table, model.card.name, dataset.pixel_size_um))
    if arguments.output:
        with atomic_write(arguments.output, arguments.overwrite) as partial:
            table.to_csv(partial, index=False)
        print(arguments.output)
    return 0


def scored_on(dataset: Dataset, split: str, asked: bool) -> str:
    """Which images the numbers are of, and where nobody asked for them, what else there is."""
    count = len(dataset.names(split))
    images = "1 image" if count == 1 else f"{count} images"
    told = f"{dataset.name}: scored on the split {split!r}, {images}"
    others = [other for other in dataset.splits if other != split]
    if asked or not others:
        return told
    return f"{told} (--split takes another: {', '.join(others)})"
