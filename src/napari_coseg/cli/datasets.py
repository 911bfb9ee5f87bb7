"""List the supported datasets, check one, or write one as a plain folder."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import DatasetError, SettingsError

if TYPE_CHECKING:
    from napari_coseg.datasets.base import Dataset, DatasetReport, SplitReport

HELP = "list, check and prepare labelled datasets"
MOST_PROBLEMS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="supported datasets and how they are read")
    listing.set_defaults(run=_list)
    checking = actions.add_parser("check", help="read a whole dataset, count it, report problems")
    _add_dataset(checking)
    checking.set_defaults(run=_check)
    preparing = actions.add_parser(
        "prepare",
        help="write a dataset as a plain folder of images and label files, with a split file",
        description="Without --output, write only what reading the dataset needs: volumes are "
        "unpacked into ROOT/unpacked, so that training reads their slices in any order (a byte "
        "per voxel for each channel and for the labels).",
    )
    _add_dataset(preparing)
    preparing.add_argument("--output", type=Path, help="folder to write; must not exist")
    preparing.add_argument(
        "--pixel-size-um", type=float, help="resample all images to it (default: no resampling)"
    )
    preparing.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    preparing.set_defaults(run=_prepare)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="name from `napari-coseg datasets list`")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="CT volumes: values, in HU, that become black and white",
    )
    parser.add_argument(
        "--every-slice", action="store_true", help="volumes: also slices without labels"
    )


def _list(arguments: argparse.Namespace) -> int:
    from napari_coseg.datasets.registry import DATASETS

    width = max(map(len, DATASETS))
    for name, place in DATASETS.items():
        module_name, class_name = place.split(":")
        module = importlib.import_module(module_name)
        print(f"{name:<{width}}  {_first_line(module)}")
        print(f"{'':<{width}}  {_first_line(getattr(module, class_name))}")
    return 0


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().split("\n")[0].replace("``", "")


def _check(arguments: argparse.Namespace) -> int:
    dataset = _open(arguments)
    with ProgressLine(dataset.name) as progress:
        report = dataset.check(progress)
    for split, counts in report.splits.items():
        print("\n".join(split_table(split, counts)))
    for note in report.notes:
        print(f"note: {note}")
    for problem in report.problems[:MOST_PROBLEMS]:
        print(f"problem: {problem}")
    _raise_if_broken(report)
    return 0


def split_table(split: str, counts: SplitReport) -> list[str]:
    """Format the counts of a split and of its classes as lines of text."""
    lines = [f"{split}: {counts.images:,} images, {counts.objects:,} objects"]
    pixels = sum(counts.region_pixels.values())
    rows = [
        (f"object class {name}", f"{number:,}", _share(number, counts.objects))
        for name, number in counts.objects_by_class.items()
    ]
    rows += [
        (f"region class {name}", f"{number:,} px", _share(number, pixels))
        for name, number in counts.region_pixels.items()
    ]
    if rows:
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines += [
            f"  {name:<{widths[0]}}  {number:>{widths[1]}}  {share:>{widths[2]}}"
            for name, number, share in rows
        ]
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _raise_if_broken(report: DatasetReport) -> None:
    if report.problems:
        count = len(report.problems)
        raise DatasetError(
            f"dataset {report.name!r} in {report.root} has {count} problem{'s' * (count != 1)}, "
            f"the first: {report.problems[0]}"
        )


def _prepare(arguments: argparse.Namespace) -> int:
    from napari_coseg.core.files import refuse_existing
    from napari_coseg.datasets.plain_copy import write_plain_copy

    if arguments.output:
        refuse_existing([arguments.output], overwrite=False)
    dataset = _open(arguments)
    for path in dataset.prepare():
        print(path)
    with ProgressLine(dataset.name) as progress:
        if arguments.output is None:
            for path in dataset.unpack(progress):
                print(path)
            return 0
        report = write_plain_copy(
            dataset,
            arguments.output,
            pixel_size_um=arguments.pixel_size_um,
            seed=arguments.seed,
            progress=progress,
        )
    for split, images in report.images.items():
        print(f"{split}: {images:,} images")
    print(report.split_file or "too few images for a split file")
    print(report.output)
    return 0


def _open(arguments: argparse.Namespace) -> Dataset:
    """Open the dataset with the options for volumes."""
    from napari_coseg.datasets.nnunet_raw import NnunetRaw
    from napari_coseg.datasets.registry import open_dataset

    dataset = open_dataset(arguments.name, arguments.root)
    if isinstance(dataset, NnunetRaw):
        window = tuple(arguments.window) if arguments.window else dataset.window_hu
        return dataclasses.replace(dataset, window_hu=window, every_slice=arguments.every_slice)
    if arguments.window or arguments.every_slice:
        raise SettingsError(
            f"--window and --every-slice are for volumes; {arguments.name!r} has none"
        )
    return dataset
