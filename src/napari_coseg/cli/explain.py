"""Draw the mask prompts and the decoders' attention between the two tasks as a PNG."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_coseg.cli.arguments import add_device_argument, add_image_arguments

HELP = "draw how regions and objects guide each other in an image"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="image file")
    parser.add_argument("--model", default="default", help="weights file (default: the shipped)")
    add_device_argument(parser)
    add_image_arguments(parser)
    parser.add_argument("--output", type=Path, help="PNG (default: <image>_guidance.png)")
    parser.add_argument("--overwrite", action="store_true", help="replace the PNG")


def run(arguments: argparse.Namespace) -> int:
    """Draw the prediction at the image's centre."""
    import PIL.Image

    from napari_coseg.core.files import atomic_write, refuse_existing
    from napari_coseg.formats.panels import draw
    from napari_coseg.images.readers.registry import stem_of
    from napari_coseg.inference.guidance import mutual_guidance
    from napari_coseg.inference.loading import load_model

    path = arguments.image
    output = arguments.output or path.with_name(f"{stem_of(path)}_guidance.png")
    refuse_existing([output], arguments.overwrite)
    found = mutual_guidance(
        path,
        load_model(arguments.model, arguments.device),
        arguments.pixel_size_um,
        axes=arguments.axes,
        channels=arguments.channels,
    )
    with atomic_write(output, arguments.overwrite) as partial:
        PIL.Image.fromarray(draw(found.rgb, found.maps())).save(partial, format="PNG")
    print(output)
    return 0
