"""Segment images and write regions, objects, the object table and an overlay of each."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_coseg.cli.arguments import (
    add_image_arguments,
    add_model_arguments,
    inference_settings,
)
from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import CosegError, ImageError, SettingsError
from napari_coseg.core.windows import WINDOWS

if TYPE_CHECKING:
    from napari_coseg.core.types import Image
    from napari_coseg.inference.settings import InferenceSettings
    from napari_coseg.models.base import SegmentationModel

HELP = "find regions and objects in images"
ALWAYS = ("csv", "overlay")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="image files, DICOM folders or zip archives",
    )
    add_model_arguments(parser)
    add_image_arguments(parser)
    parser.add_argument(
        "--estimate-pixel-size",
        action="store_true",
        help="estimate the pixel size of images that have none from the size of nuclei; right to "
        "a factor of about 2",
    )
    parser.add_argument("--series", help="number or UID of the series of a DICOM scan of several")
    parser.add_argument(
        "--fill-gaps",
        action="store_true",
        help="accept DICOM series with missing slices, which are filled, or doubled ones",
    )
    window = parser.add_mutually_exclusive_group()
    window.add_argument(
        "--window-name", choices=list(WINDOWS), help="as --window, a named one of CT"
    )
    window.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values that become black and white, such as -1000 3000 for CT (Hounsfield units; "
        "default: the model's window). Without either, images with negative values or more than "
        "16 bits are stretched from their 0.1st to their 99.9th percentile, so that the grey "
        "value of a tissue differs between images",
    )
    parser.add_argument(
        "--slices",
        type=_slice_range,
        metavar="A:B",
        help="slices of stacks from A up to, not including, B, or one slice; counted from 0, along "
        "the axis that a volume is cut across, which is the one of its largest spacing "
        "(default: all)",
    )
    parser.add_argument("--output-dir", type=Path, help="output folder (default: the image's)")
    parser.add_argument(
        "--format",
        action="append",
        dest="formats",
        metavar="NAME",
        help="format of the labels (default: ome-tiff); may be repeated",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def run(arguments: argparse.Namespace) -> int:
    """Segment the images, each even if others fail."""
    from napari_coseg.formats.registry import output_paths
    from napari_coseg.inference.loading import load_any_family

    settings = inference_settings(arguments)
    formats = tuple(dict.fromkeys([*(arguments.formats or ["ome-tiff"]), *ALWAYS]))
    output_paths(Path(), "", formats)  # reports unknown formats before any work
    _refuse_equal_names(arguments.images, arguments.output_dir)
    model = load_any_family(arguments.model, arguments.device, adapter=arguments.adapter)
    failed = 0
    for path in arguments.images:
        try:
            print(*segment_file(path, model, settings, formats, arguments), sep="\n")
        except CosegError as error:
            failed += 1
            print(f"napari-coseg: {path}: {error}", file=sys.stderr)
    if failed and len(arguments.images) > 1:
        print(f"napari-coseg: {failed} of {len(arguments.images)} images failed", file=sys.stderr)
    return 2 if failed else 0


def segment_file(
    path: Path,
    model: SegmentationModel,
    settings: InferenceSettings,
    formats: tuple[str, ...],
    arguments: argparse.Namespace,
) -> list[Path]:
    """Segment one image; returns the files written."""
    from napari_coseg.core.files import refuse_existing
    from napari_coseg.formats.registry import export, output_paths
    from napari_coseg.images.intake import understand
    from napari_coseg.images.readers.registry import read_image
    from napari_coseg.inference.cutting import sliced_across
    from napari_coseg.inference.run import segment

    image = understand(
        read_image(path, arguments.series, arguments.fill_gaps),
        arguments.axes,
        arguments.pixel_size_um,
    )
    folder = arguments.output_dir or path.parent
    refuse_existing(output_paths(folder, image.name, formats), arguments.overwrite)
    if image.pixel_size_um is None:
        image = _with_estimate(image, model, arguments)
    with ProgressLine(path.name) as progress:
        found = segment(
            image,
            model,
            channels=arguments.channels,
            settings=settings,
            slices=arguments.slices,
            progress=progress,
        )
    if how := sliced_across(found.provenance):
        print(f"{path.name}: {how}", file=sys.stderr)
    return export(found, image, folder, formats, overwrite=arguments.overwrite)


def _with_estimate(image: Image, model: SegmentationModel, arguments: argparse.Namespace) -> Image:
    """The image with a pixel size estimated from its objects; refused where that was not asked."""
    from napari_coseg.inference.pixel_size import ASSUMED, estimate_pixel_size, judge_of

    judge = judge_of(model)
    estimate = judge and estimate_pixel_size(image, judge, arguments.channels)
    if not (estimate and arguments.estimate_pixel_size):
        if estimate:
            advice = f"; judged by its nuclei it is {estimate}. Give it by --pixel-size-um, or "
            advice += "take this estimate by --estimate-pixel-size"
        elif judge:
            advice = ", and too few nuclei were found to estimate it: give it by --pixel-size-um"
        else:
            advice = ", and it can be estimated for H&E alone: give it by --pixel-size-um"
        raise ImageError(
            f"the file has no pixel size{advice} (the model's own is {model.card.pixel_size_um:g} "
            "um)"
        )
    print(
        f"{image.name}: the pixel size is estimated from the nuclei, {estimate}; a wrong size "
        "gives wrong objects and areas (set it by --pixel-size-um)",
        file=sys.stderr,
    )
    sizes = (estimate.um,) * len(image.spatial_axes)
    return replace(image, geometry=image.geometry.with_pixel_size(sizes, assumed=ASSUMED))


def _slice_range(text: str) -> tuple[int, int]:
    try:
        first, colon, last = text.partition(":")
        return int(first), int(last) if colon else int(first) + 1
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not of the form A:B, or one number"
        ) from error


def _refuse_equal_names(images: list[Path], output_dir: Path | None) -> None:
    from napari_coseg.images.readers.registry import stem_of

    names = Counter((output_dir or path.parent, stem_of(path)) for path in images)
    (folder, name), times = names.most_common(1)[0]
    if times > 1:
        raise SettingsError(
            f"{times} of the images are called {name!r} and would write the same files in "
            f"{folder}; segment them separately, with different --output-dir"
        )
