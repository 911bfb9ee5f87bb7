"""Measure objects: shape, stains or channels, distances, and densities by region and class.

Name one of `<stem>_objects.ome.tif` and `<stem>_regions.ome.tif`; the other, `<stem>_objects.csv`
and the image are found beside it. Label images of other names hold objects. Of a workspace folder,
all images are measured, with their corrections. Writes `<stem>_measurements.csv`, a row for each
object, and `<stem>_summary.csv`, a row for each region and class.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.arguments import add_label_arguments
from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import ImageError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.core.types import Image, Prediction
    from napari_coseg.formats.results import Result
    from napari_coseg.workspace.entry import Entry

HELP = "measure objects, and count them by region and class"
INTENSITIES = ("auto", "he", "hdab", "channels", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "labels",
        nargs="+",
        type=Path,
        metavar="LABELS",
        help="label files, or workspace folders",
    )
    parser.add_argument("--regions", type=Path, help="region labels (default: found beside LABELS)")
    parser.add_argument(
        "--intensity",
        choices=INTENSITIES,
        default="auto",
        help="intensities to measure: of stains (he, hdab), of the image's channels, or none; "
        "auto: he for colour images, else channels",
    )
    add_label_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure all label files and workspaces."""
    from napari_coseg.cli.export import refuse_equal_names
    from napari_coseg.formats.results import find_results

    folders = [path for path in arguments.labels if path.is_dir()]
    results = find_results([path for path in arguments.labels if not path.is_dir()])
    refuse_equal_names(results, arguments.output_dir)
    for option in ("regions", "image"):
        if getattr(arguments, option) and (len(results) > 1 or folders):
            raise SettingsError(
                f"--{option} is for the labels of one image; got {len(results)} images and "
                f"{len(folders)} workspaces"
            )
    if arguments.regions and not arguments.regions.is_file():
        raise ImageError(f"there is no label file {arguments.regions}")
    for result in results:
        measure_result(result, arguments)
    for folder in folders:
        measure_workspace(folder, arguments)
    return 0


def measure_result(result: Result, arguments: argparse.Namespace) -> None:
    """Measure the label files of one image."""
    from napari_coseg.formats.results import find_image, read_result

    folder = arguments.output_dir or result.folder
    _refuse_existing(folder, result.name, arguments)
    wants_image = arguments.intensity != "none"
    image = find_image(result, arguments.image) if wants_image else None
    result = dataclasses.replace(result, regions=arguments.regions or result.regions)
    found = read_result(result, image, arguments.pixel_size_um)
    if wants_image and image is None:
        _warn(f"{result.name}: no image beside the labels, so no intensities are measured")
    _measure(found, image, folder, result.name, arguments)


def measure_workspace(path: Path, arguments: argparse.Namespace) -> None:
    """Measure all images of a workspace; tables are written beside its folder by default."""
    from napari_coseg.formats.place import geometry_of_labels
    from napari_coseg.workspace.folder import open_workspace

    if arguments.pixel_size_um:
        raise SettingsError(f"--pixel-size-um is for label files; {path} has its own")
    folder = arguments.output_dir or path.absolute().parent
    with open_workspace(path) as workspace:
        names = Counter(entry.name for entry in workspace.entries)
        for folder_name, damage in workspace.damaged.items():
            _warn(f"{path}: {folder_name} is skipped: {damage}")
        for entry in workspace.entries:
            name = entry.name if names[entry.name] == 1 else f"{entry.name}_{entry.id}"
            name = name.replace("/", "_").replace("\\", "_")
            _refuse_existing(folder, name, arguments)
            image = _image_of(entry) if arguments.intensity != "none" else None
            found = entry.load().prediction
            geometry = geometry_of_labels(found.geometry, entry.shape, (), image)
            found = dataclasses.replace(found, geometry=geometry)
            _measure(found, image, folder, name, arguments)


def _image_of(entry: Entry) -> Image | None:
    """The part of the image under an entry's labels; None if the image is not found."""
    from napari_coseg.images.intake import crop, understand
    from napari_coseg.images.readers.registry import read_image
    from napari_coseg.workspace.image import ImageNotFound

    try:
        image = understand(read_image(entry.find_image()), entry.image.axes)
    except ImageNotFound as error:
        _warn(f"{entry.name}: {error}; no intensities are measured")
        return None
    bounds = [(o, o + n) for o, n in zip(entry.offset, entry.shape, strict=True)]
    return crop(image, bounds)[0]


def _measure(
    found: Prediction, image: Image | None, folder: Path, name: str, arguments: argparse.Namespace
) -> None:
    from napari_coseg.formats.measurements import write_measurements
    from napari_coseg.labels.measure.run import MeasureSettings, measure

    settings = MeasureSettings.from_mapping({"intensity": arguments.intensity})
    with ProgressLine(name) as progress:
        measured = measure(found, image, settings, progress=progress)
    print(f"{name}: {len(measured.objects):,} objects")
    print(*summary_lines(measured.summary), sep="\n")
    for path in write_measurements(
        measured.objects, measured.summary, folder, name, overwrite=arguments.overwrite
    ):
        print(path)


def _refuse_existing(folder: Path, name: str, arguments: argparse.Namespace) -> None:
    from napari_coseg.core.files import refuse_existing
    from napari_coseg.formats.measurements import measurement_paths

    refuse_existing(measurement_paths(folder, name), arguments.overwrite)


def _warn(message: str) -> None:
    print(message, file=sys.stderr)


def summary_lines(summary: pd.DataFrame) -> list[str]:
    """Format the summary as lines of text, without regions and classes that do not occur."""
    from napari_coseg.labels.measure.columns import column

    unit = "mm3" if "objects_per_mm3" in summary else "mm2"
    part = "volume_fraction" if unit == "mm3" else "area_fraction"
    shown = ["objects", f"objects_per_{unit}", "share_of_objects", part, "region_fraction"]
    titles = ["Region", "Class", *(column(name).title for name in shown)]
    occurs = (summary["objects"] > 0) | (
        (summary["class_id"] < 0) & (summary["region_fraction"] > 0)
    )
    rows = [
        [str(row["region"]), str(row["class"]), *(_formatted(name, row[name]) for name in shown)]
        for row in summary[occurs].to_dict("records")
    ]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    return [
        "  ".join(
            [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
            + [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        )
        for row in [titles, *rows]
    ]


def _formatted(name: str, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "-"
    if name == "objects":
        return f"{value:,}"
    if name.startswith("objects_per"):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.1%}"
