"""Segment images and write regions, objects, the object table and an overlay of each."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import CosegError, SettingsError

if TYPE_CHECKING:
    from napari_coseg.inference.settings import InferenceSettings
    from napari_coseg.models.base import CosegModel

HELP = "find regions and objects in images"
ALWAYS = ("csv", "overlay")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    add_model_arguments(parser)
    add_image_arguments(parser)
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values that become black and white, such as -1000 3000 of CT (Hounsfield units). "
        "Otherwise the model's own window; where it has none, values that are negative or beyond "
        "16 bits are stretched from the 0.1st to the 99.9th percentile of the image, so that a "
        "tissue is another grey in each",
    )
    parser.add_argument(
        "--output-dir", type=Path, help="folder for the results; beside each image otherwise"
    )
    parser.add_argument(
        "--format",
        action="append",
        dest="formats",
        metavar="NAME",
        help="format of the labels (default: ome-tiff); may be given several times",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """What the image is, where its file does not say it."""
    parser.add_argument(
        "--pixel-size-um",
        type=numbers,
        metavar="UM",
        help="micrometres a pixel: one number, or y,x or z,y,x; what the file says otherwise",
    )
    parser.add_argument("--axes", help="axes of the image, for example CYX; guessed otherwise")
    parser.add_argument(
        "--channels",
        type=_whole_numbers,
        metavar="N,N,N",
        help="channels that are red, green and blue, or the one that is grey",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, on which device, and the settings of inference."""
    parser.add_argument("--model", default="default", help="weights file (default: the shipped)")
    parser.add_argument("--adapter", type=Path, help="adapter that was fine-tuned from the model")
    add_inference_arguments(parser)


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """The device and the settings of inference, but not the model."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--tile-size", type=int, metavar="PX", help="side of a tile")
    parser.add_argument("--batch-size", type=int, metavar="N", help="tiles in one call")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_key_and_value,
        metavar="NAME=VALUE",
        dest="more_settings",
        help="any other setting of inference, for example --set object_threshold=0.4",
    )


def inference_settings(arguments: argparse.Namespace) -> InferenceSettings:
    """The settings that the arguments name, the defaults for the rest."""
    from napari_coseg.inference.settings import InferenceSettings

    given: dict[str, Any] = dict(arguments.more_settings)
    for key, value in (
        ("tile_size_px", arguments.tile_size),
        ("batch_size", arguments.batch_size),
        ("window", getattr(arguments, "window", None)),
    ):
        if value is not None:
            given[key] = value
    return InferenceSettings.from_mapping(given)


def run(arguments: argparse.Namespace) -> int:
    """Segment one image after the other; a bad one does not stop those after it."""
    from napari_coseg.formats.registry import output_paths
    from napari_coseg.inference.loading import load_model

    settings = inference_settings(arguments)
    formats = tuple(dict.fromkeys([*(arguments.formats or ["ome-tiff"]), *ALWAYS]))
    output_paths(Path(), "", formats)  # a format that does not exist is told before any work
    _refuse_twins(arguments.images, arguments.output_dir)
    model = load_model(arguments.model, arguments.device, adapter=arguments.adapter)
    failed = 0
    for path in arguments.images:
        try:
            written = segment_file(path, model, settings, formats, arguments)
        except CosegError as error:
            failed += 1
            print(f"napari-coseg: {path}: {error}", file=sys.stderr)
        else:
            for file in written:
                print(file)
    if failed and len(arguments.images) > 1:
        print(f"napari-coseg: {failed} of {len(arguments.images)} images failed", file=sys.stderr)
    return 2 if failed else 0


def segment_file(
    path: Path,
    model: CosegModel,
    settings: InferenceSettings,
    formats: tuple[str, ...],
    arguments: argparse.Namespace,
) -> list[Path]:
    """Read, segment, write one image; returns the files written."""
    from napari_coseg.core.files import refuse_existing
    from napari_coseg.formats.registry import export, output_paths
    from napari_coseg.images.intake import understand
    from napari_coseg.images.readers.registry import read_image
    from napari_coseg.inference.run import segment

    read = read_image(path)
    image = understand(read, arguments.axes, arguments.pixel_size_um)
    folder = arguments.output_dir or path.parent
    refuse_existing(output_paths(folder, image.name, formats), arguments.overwrite)
    progress = ProgressLine(path.name)
    try:
        found = segment(
            image, model, channels=arguments.channels, settings=settings, progress=progress
        )
    finally:
        progress.close()
    if image.pixel_size_um is None:
        print(
            f"{path.name}: the file says no pixel size; {found.pixel_size_um[-1]:g} um was assumed "
            "(--pixel-size-um)",
            file=sys.stderr,
        )
    return export(found, image, folder, formats, overwrite=arguments.overwrite)


def _refuse_twins(images: list[Path], output_dir: Path | None) -> None:
    """Two images of one name would write the same files."""
    from napari_coseg.images.readers.registry import stem_of

    names = Counter((output_dir or path.parent, stem_of(path)) for path in images)
    (folder, name), times = names.most_common(1)[0]
    if times > 1:
        raise SettingsError(
            f"{times} of the images are called {name!r} and would write the same files in "
            f"{folder}; segment them one after the other with different --output-dir"
        )


def numbers(text: str) -> list[float]:
    """One number, or several with commas between, as an argument's type."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, nor several") from error


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, or three") from error


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return key.strip(), value.strip()
