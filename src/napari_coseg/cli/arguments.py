"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_coseg.inference.settings import InferenceSettings


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare pixel size, axes and channels of an image."""
    parser.add_argument(
        "--pixel-size-um",
        type=numbers,
        metavar="UM",
        help="pixel size in micrometres: one number, or y,x or z,y,x (default: the file's)",
    )
    parser.add_argument("--axes", help="axes of the image, for example CYX (default: guessed)")
    parser.add_argument(
        "--channels",
        type=_integers,
        metavar="N,N,N",
        help="indices of the red, green and blue channels, or of one grey channel",
    )


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the image and pixel size of labels, and where results are written."""
    parser.add_argument("--image", type=Path, help="the image (default: found beside the labels)")
    parser.add_argument(
        "--pixel-size-um",
        type=numbers,
        metavar="UM",
        help="pixel size in micrometres: one number, or y,x or z,y,x (default: the labels')",
    )
    parser.add_argument("--output-dir", type=Path, help="output folder (default: the labels')")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the model, its device and the inference settings."""
    parser.add_argument("--model", default="default", help="weights file (default: the shipped)")
    parser.add_argument("--adapter", type=Path, help="adapter that was fine-tuned from the model")
    add_inference_arguments(parser)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the device and the inference settings."""
    add_device_argument(parser)
    parser.add_argument("--tile-size", type=int, metavar="PX", help="side of a tile")
    parser.add_argument("--batch-size", type=int, metavar="N", help="tiles in one batch")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_key_and_value,
        metavar="NAME=VALUE",
        dest="more_settings",
        help="any other inference setting, for example --set object_threshold=0.4",
    )


def inference_settings(arguments: argparse.Namespace) -> InferenceSettings:
    """Settings from the arguments, defaults for the others."""
    from napari_coseg.inference.settings import InferenceSettings

    named: dict[str, Any] = {
        "tile_size_px": arguments.tile_size,
        "batch_size": arguments.batch_size,
        "window": getattr(arguments, "window_name", None) or getattr(arguments, "window", None),
    }
    given = {key: value for key, value in named.items() if value is not None}
    return InferenceSettings.from_mapping(dict(arguments.more_settings) | given)


def numbers(text: str) -> list[float]:
    """Parse one number, or several separated by commas."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number or a list of them") from error


def _integers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer or three of them") from error


def _key_and_value(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return key.strip(), value.strip()


def add_init_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the checkpoint that a training starts from."""
    parser.add_argument(
        "--init",
        metavar="CHECKPOINT",
        help="checkpoint to start from: a file; the name of a SAM2 download, such as sam2.1-large; "
        "or efficientnet-lite0, which an installed package carries",
    )
