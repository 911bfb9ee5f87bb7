"""List the datasets that are read, check a folder of one, or write one as a plain folder."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import DatasetError, SettingsError

if TYPE_CHECKING:
    from napari_coseg.datasets.base import Dataset, DatasetReport, SplitReport

HELP = "list, check and prepare labelled datasets"
MOST_PROBLEMS = 20
_Result = TypeVar("_Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the datasets: what they hold, and how they are read")
    listing.set_defaults(action=_list)
    checking = actions.add_parser(
        "check", help="read all of a dataset once: what is missing, and what was counted"
    )
    _add_dataset(checking)
    checking.set_defaults(action=_check)
    preparing = actions.add_parser(
        "prepare",
        help="write a dataset as a plain folder of images and label files, with a split file",
        description="Without --output, only what the dataset itself needs before it can be read; "
        "volumes are unpacked into ROOT/unpacked, so that training can read their slices in any "
        "order (a byte a voxel for each channel and for the labels).",
    )
    _add_dataset(preparing)
    preparing.add_argument("--output", type=Path, help="folder to write; must not exist")
    preparing.add_argument(
        "--pixel-size-um", type=float, help="resample all images to it (default: as they are)"
    )
    preparing.add_argument("--seed", type=int, default=0, help="of the split file (default: 0)")
    preparing.set_defaults(action=_prepare)


def run(arguments: argparse.Namespace) -> int:
    """Do the action."""
    code: int = arguments.action(arguments)
    return code


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="as `napari-coseg datasets list` gives it")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="volumes of CT: the values, in HU, that become black and white",
    )
    parser.add_argument(
        "--every-slice", action="store_true", help="volumes: slices without labels, too"
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
    report = _with_progress(_open(arguments), lambda dataset, line: dataset.check(line))
    for split, counts in report.splits.items():
        print("\n".join(split_table(split, counts)))
    for note in report.notes:
        print(f"note: {note}")
    for problem in report.problems[:MOST_PROBLEMS]:
        print(f"problem: {problem}")
    _raise_if_broken(report)
    return 0


def split_table(split: str, counts: SplitReport) -> list[str]:
    """Lines of text: the counts of a split, then its classes, a row each."""
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
        told = "1 problem" if count == 1 else f"{count} problems"
        raise DatasetError(
            f"dataset {report.name!r} in {report.root} has {told}, the first: {report.problems[0]}"
        )


def _prepare(arguments: argparse.Namespace) -> int:
    from napari_coseg.core.files import refuse_existing
    from napari_coseg.datasets.plain_copy import write_plain_copy

    if arguments.output:
        refuse_existing([arguments.output], overwrite=False)
    dataset = _open(arguments)
    for path in dataset.prepare():
        print(path)
    if arguments.output is None:
        for path in _with_progress(dataset, lambda dataset, line: dataset.unpack(line)):
            print(path)
        return 0
    report = _with_progress(
        dataset,
        lambda dataset, line: write_plain_copy(
            dataset,
            arguments.output,
            pixel_size_um=arguments.pixel_size_um,
            seed=arguments.seed,
            progress=line,
        ),
    )
    for split, images in report.images.items():
        print(f"{split}: {images:,} images")
    print(report.split_file or "too few images for a split file")
    print(report.output)
    return 0


def _open(arguments: argparse.Namespace) -> Dataset:
    """The dataset, with what was said of its volumes."""
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


def _with_progress(dataset: Dataset, job: Callable[[Dataset, ProgressLine], _Result]) -> _Result:
    line = ProgressLine(dataset.name)
    try:
        return job(dataset, line)
    finally:
        line.close()
