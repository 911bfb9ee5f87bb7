"""Measure objects: shape, stains or channels, distances, and densities by region and class.

Of `<stem>_objects.ome.tif`, `<stem>_regions.ome.tif` and `<stem>_objects.csv`, as `napari-coseg
segment` writes them, one is named and those beside it are found; so is the image. A label image of
another name holds objects. Written are `<stem>_measurements.csv`, a row an object, and
`<stem>_summary.csv`, a row a region and class.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.cli.segment import numbers
from napari_coseg.errors import ImageError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from napari_coseg.cli.export import Result
    from napari_coseg.measure.run import MeasureSettings

HELP = "measure objects, and count them by region and class"
INTENSITIES = ("auto", "he", "hdab", "channels", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("labels", nargs="+", type=Path, metavar="LABELS", help="label files")
    parser.add_argument("--regions", type=Path, help="labels of regions; looked for beside else")
    parser.add_argument("--image", type=Path, help="the image; looked for beside the labels else")
    parser.add_argument(
        "--intensity",
        choices=INTENSITIES,
        default="auto",
        help="what is measured of the image: stains (he, hdab), its channels, none; "
        "auto: he of colours, else channels",
    )
    parser.add_argument(
        "--pixel-size-um",
        type=numbers,
        metavar="UM",
        help="micrometres a pixel: one number, or y,x or z,y,x; what the labels say otherwise",
    )
    parser.add_argument("--output-dir", type=Path, help="folder to write; beside the labels else")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(arguments: argparse.Namespace) -> int:
    """Measure the labels of one image after the other."""
    from napari_coseg.cli.export import find_results
    from napari_coseg.measure.run import MeasureSettings

    results = find_results(arguments.labels)
    for option in ("regions", "image"):
        if getattr(arguments, option) and len(results) > 1:
            raise SettingsError(f"--{option} goes with one image's labels; got {len(results)}")
    if arguments.regions and not arguments.regions.is_file():
        raise ImageError(f"there is no file of regions {arguments.regions}")
    settings = MeasureSettings.from_mapping({"intensity": arguments.intensity})
    for result in results:
        regions = arguments.regions or result.regions
        measure_result(dataclasses.replace(result, regions=regions), settings, arguments)
    return 0


def measure_result(
    result: Result, settings: MeasureSettings, arguments: argparse.Namespace
) -> None:
    """Read, measure, write and print one result."""
    from napari_coseg.cli.export import find_image, read_result
    from napari_coseg.export.files import refuse_existing
    from napari_coseg.export.measurements import measurement_paths, write_measurements
    from napari_coseg.measure.run import measure

    folder = arguments.output_dir or result.folder
    refuse_existing(measurement_paths(folder, result.name), arguments.overwrite)
    wanted = settings.intensity != "none"
    image = find_image(result, arguments.image) if wanted else None
    found = read_result(result, image, arguments.pixel_size_um)
    if wanted and image is None:
        print(
            f"{result.name}: the image is not beside its labels, so no intensities are measured "
            "(--image)",
            file=sys.stderr,
        )
    progress = ProgressLine(result.name)
    try:
        measured = measure(found, image, settings, progress=progress)
    finally:
        progress.close()
    print(f"{result.name}: {len(measured.objects):,} objects")
    print("\n".join(summary_lines(measured.summary)))
    for path in write_measurements(
        measured.objects, measured.summary, folder, result.name, overwrite=arguments.overwrite
    ):
        print(path)


def summary_lines(summary: pd.DataFrame) -> list[str]:
    """The summary as lines of text, without regions and classes that do not occur."""
    from napari_coseg.measure.columns import column

    unit = "mm3" if "objects_per_mm3" in summary else "mm2"
    part = "volume_fraction" if unit == "mm3" else "area_fraction"
    shown = ["objects", f"objects_per_{unit}", "share_of_objects", part, "region_fraction"]
    titles = ["Region", "Class", *(column(name).title for name in shown)]
    occurs = (summary["objects"] > 0) | (
        (summary["class_id"] < 0) & (summary["region_fraction"] > 0)
    )
    rows = [
        [str(row["region"]), str(row["class"]), *(_written(name, row[name]) for name in shown)]
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


def _written(name: str, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "-"
    if name == "objects":
        return f"{value:,}"
    if name.startswith("objects_per"):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:.1%}"
