"""Segment the labelled images of a dataset and compare the results with the labels.

Mean and pooled scores are printed; --output writes all scores, --table prints a paper's table row.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.cli.arguments import add_inference_arguments, inference_settings
from napari_coseg.cli.progress import ProgressLine
from napari_coseg.datasets.registry import DATASETS

if TYPE_CHECKING:
    from napari_coseg.datasets.base import Dataset

HELP = "score a model on a labelled dataset"
LEGEND = (
    "(mean): over the images whose labels have the class. (pooled): over the pixels and objects\n"
    "of all images. (classes): mean over the classes; its IoU is the mIoU. Objects match at an\n"
    "IoU above 0.5. Hausdorff distances (HD, HD95) omit images where either mask is empty."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", help="weights file, or: default")
    parser.add_argument("--adapter", type=Path, help="adapter that was fine-tuned from the model")
    parser.add_argument("--dataset", required=True, help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--split", help="which images (default: test images, else validation)")
    parser.add_argument(
        "--partition",
        help="file or name of a partition into train, validation and test, or of held-out images "
        "(colon_default, multi_organ). A training that drew its own wrote split.json beside its "
        "weights",
    )
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="segment whole volumes and score them in 3D (nnunet-raw, toothfairy2, "
        "synthetic-cbct); without it each slice is an image",
    )
    parser.add_argument("--output", type=Path, help="CSV file: every image, class and metric")
    parser.add_argument(
        "--table",
        metavar="NAME",
        help="also print a Markdown row with the columns of the papers' table for one dataset: "
        "puma, crag, glas, toothfairy2 and others (an unknown name lists all)",
    )
    parser.add_argument(
        "--distances-at-1024",
        action="store_true",
        help="also measure Hausdorff distances as in the papers, in pixels of the image resized to "
        "1024 x 1024 (HD_1024px)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the CSV file")
    add_inference_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print mean and pooled scores and write all."""
    from napari_coseg.core.files import atomic_write, refuse_existing
    from napari_coseg.datasets.registry import open_dataset
    from napari_coseg.evaluation.run import compared_classes, evaluate, summary
    from napari_coseg.inference.loading import load_model
    from napari_coseg.labels.metrics.paper_tables import paper_row, tables_of

    settings = inference_settings(arguments)
    if arguments.table:
        tables_of(arguments.table)  # reports unknown names before any work
    if arguments.output:
        refuse_existing([arguments.output], arguments.overwrite)
    dataset = open_dataset(arguments.dataset, arguments.root, arguments.partition)
    model = load_model(arguments.model, arguments.device, adapter=arguments.adapter)
    split = arguments.split or dataset.split_to_score
    with ProgressLine(f"{dataset.name} {split}") as progress:
        table = evaluate(
            model,
            dataset,
            split,
            settings=settings,
            distances_at_1024=arguments.distances_at_1024,
            volumes=arguments.volumes,
            progress=progress,
        )
    print(scored_on(dataset, split, asked=bool(arguments.split)))
    print(*compared_classes(model.card, dataset), sep="\n")
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
    """Name the images scored, and the other splits if the user named none."""
    count = len(dataset.names(split))
    line = f"{dataset.name}: scored on the split {split!r}, {count} image{'s' * (count != 1)}"
    others = [other for other in dataset.splits if other != split]
    if asked or not others:
        return line
    return f"{line} (other splits for --split: {', '.join(others)})"
