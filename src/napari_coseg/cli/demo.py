"""Segment a sample image; open napari with the result if there is a screen."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from napari_coseg.cli.arguments import add_model_arguments, inference_settings
from napari_coseg.cli.progress import ProgressLine

HELP = "segment a sample image"
VOLUME_MODEL = "cbct-synthetic"
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--output-dir", type=Path, default=Path("demo-output"), help="folder")
    parser.add_argument(
        "--volume",
        action="store_true",
        help=f"a synthetic cone-beam CT of jaws and teeth, segmented by {VOLUME_MODEL!r}",
    )
    parser.add_argument("--no-window", action="store_true", help="write files, do not open napari")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the results, replacing those of an earlier demo, and show them."""
    from napari_coseg.formats.ome_tiff import write_image
    from napari_coseg.formats.registry import export
    from napari_coseg.images.readers.samples import colon, synthetic_cbct
    from napari_coseg.inference.loading import DEFAULT_MODEL, load_model
    from napari_coseg.inference.run import segment

    image = synthetic_cbct() if arguments.volume else colon()
    name = arguments.model
    if arguments.volume and name == DEFAULT_MODEL:
        name = VOLUME_MODEL
    model = load_model(name, arguments.device, adapter=arguments.adapter)
    with ProgressLine(image.name) as progress:
        found = segment(image, model, settings=inference_settings(arguments), progress=progress)
    folder = arguments.output_dir.resolve()
    results = export(found, image, folder, overwrite=True)
    picture = folder / f"{image.name}.ome.tif"
    write_image(picture, image, overwrite=True)
    print(picture, *results, sep="\n")
    if arguments.no_window or not has_window():
        return 0
    return subprocess.run(window_command(picture, results), check=False).returncode


def window_command(picture: Path, results: list[Path]) -> list[str]:
    """Command of the viewer: a program of its own, as `cli` imports neither napari nor Qt."""
    shown = [str(path) for path in (picture, results[0])]
    return [sys.executable, "-m", "napari_coseg.widgets.show", *shown]


def has_window() -> bool:
    """Whether there is a screen, napari and a Qt binding."""
    screen = not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    binding = any(importlib.util.find_spec(name) for name in QT_BINDINGS)
    return screen and binding and importlib.util.find_spec("napari") is not None
