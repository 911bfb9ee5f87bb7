"""Segment a real image that comes along; open napari with the result where there is a screen."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.cli.segment import add_model_arguments, inference_settings

HELP = "segment a real image that comes along"
QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    parser.add_argument("--output-dir", type=Path, default=Path("demo-output"), help="folder")
    parser.add_argument("--no-window", action="store_true", help="write files, open no napari")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the results (over those of an earlier demo), say where, and show them."""
    from napari_coseg.formats.ome_tiff import write_image
    from napari_coseg.formats.registry import export
    from napari_coseg.images.readers.samples import colon
    from napari_coseg.inference.loading import load_model
    from napari_coseg.inference.run import segment

    image = colon()
    model = load_model(arguments.model, arguments.device, adapter=arguments.adapter)
    progress = ProgressLine(image.name)
    try:
        found = segment(image, model, settings=inference_settings(arguments), progress=progress)
    finally:
        progress.close()
    folder = arguments.output_dir.resolve()
    results = export(found, image, folder, overwrite=True)
    picture = folder / f"{image.name}.ome.tif"
    write_image(picture, image, overwrite=True)
    for file in (picture, *results):
        print(file)
    if arguments.no_window or not has_window():
        return 0
    return subprocess.run(window_command(picture, results), check=False).returncode


def window_command(picture: Path, results: list[Path]) -> list[str]:
    """The window is a program of its own: the command line knows neither napari nor Qt."""
    shown = [str(path) for path in (picture, *results[:3])]
    return [sys.executable, "-m", "napari_coseg.widgets.show", *shown]


def has_window() -> bool:
    """Whether there is a screen, napari and a Qt binding."""
    screen = not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    binding = any(importlib.util.find_spec(name) for name in QT_BINDINGS)
    return screen and binding and importlib.util.find_spec("napari") is not None
