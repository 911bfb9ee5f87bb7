"""The ``napari-coseg`` program: one module for each command."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from napari_coseg import __version__
from napari_coseg.core.errors import CosegError

COMMANDS: dict[str, str] = {
    "segment": "napari_coseg.cli.segment",
    "measure": "napari_coseg.cli.measure",
    "export": "napari_coseg.cli.export",
    "demo": "napari_coseg.cli.demo",
    "explain": "napari_coseg.cli.explain",
    "models": "napari_coseg.cli.models",
    "train": "napari_coseg.cli.train",
    "finetune": "napari_coseg.cli.finetune",
    "adapters": "napari_coseg.cli.adapters",
    "evaluate": "napari_coseg.cli.evaluate",
    "calibrate": "napari_coseg.cli.calibrate",
    "datasets": "napari_coseg.cli.datasets",
    "ablate": "napari_coseg.cli.ablate",
}
"""Each module has ``HELP``, ``add_arguments(parser)`` and ``run(arguments) -> exit code``.

A command with actions has no ``run``: it sets one for the parser of each action.
"""

USERS_MISTAKE, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    A `CosegError` is printed as one line; other exceptions are bugs and show their traceback.
    """
    parsed = build_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _print_warning
        try:
            code: int = parsed.run(parsed)
        except CosegError as error:
            print(f"napari-coseg: {error}", file=sys.stderr)
            return USERS_MISTAKE
        except KeyboardInterrupt:
            print("\nnapari-coseg: interrupted", file=sys.stderr)
            return INTERRUPTED
    return code


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="napari-coseg",
        description="Find regions and objects of microscopy images in one run.",
    )
    parser.add_argument("--version", action="version", version=f"napari-coseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, place in COMMANDS.items():
        module = importlib.import_module(place)
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        if hasattr(module, "run"):
            command.set_defaults(run=module.run)
    return parser


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=file or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
