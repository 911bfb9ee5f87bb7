"""List models, show the card of one, import or download checkpoints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_coseg.cli.progress import ProgressLine
from napari_coseg.core.errors import CosegError, OutputError

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard

SLICING = {
    "square": "volumes are cut across their largest spacing, so that pixels are square",
    "axial": "volumes are cut across Z",
}
HELP = "list models, show a model's card, import or download checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="shipped models and model families")
    listing.set_defaults(run=_list)
    info = actions.add_parser("info", help="a model's card")
    info.add_argument("model", nargs="?", default="default", help="weights file, or: default")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)
    importing = actions.add_parser("import", help="convert a released checkpoint to a weights file")
    importing.add_argument(
        "checkpoint", type=Path, help="Co-Seg, Co-Seg++ or UniSeg checkpoint (.pth)"
    )
    importing.add_argument(
        "--output", type=Path, help="weights file (default: beside the checkpoint)"
    )
    importing.add_argument("--card", type=Path, help="model card as JSON: classes, pixel size")
    importing.add_argument("--overwrite", action="store_true", help="replace the weights file")
    importing.set_defaults(run=_import)
    fetching = actions.add_parser(
        "download", help="download a SAM2 checkpoint, to start a training"
    )
    fetching.add_argument("name", nargs="?", help="for example sam2.1-large (default: list all)")
    fetching.add_argument("--folder", type=Path, help="default: the cache folder")
    fetching.set_defaults(run=_download)


def _list(arguments: argparse.Namespace) -> int:
    from napari_coseg.inference.loading import SHIPPED, weights_path
    from napari_coseg.models.checkpoints.native import read_card
    from napari_coseg.models.registry import FAMILIES

    for name in SHIPPED:
        try:
            path = weights_path(name)
            card = read_card(path)
            megabytes = path.stat().st_size / 1e6
            print(f"{name}  {card.name}, {card.family}, {megabytes:.1f} MB, {path}")
        except CosegError as error:
            print(f"{name}  not installed: {error}")
    print(f"families: {', '.join(FAMILIES)}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from napari_coseg.inference.loading import weights_path
    from napari_coseg.models.checkpoints.native import file_sha256, read_card

    path = weights_path(arguments.model)
    card = read_card(path)
    if arguments.json:
        print(card.model_dump_json(indent=2))
        return 0
    fields = {
        "file": path,
        "sha256": file_sha256(path),
        "family": card.family,
        **class_names(card),
        "pixel size": f"{card.pixel_size_um:g} um",
        "slices": SLICING[card.slicing] if card.dimensions == 2 else "",
        "tile": f"{card.tile_size_px} px, halo {card.halo_px} px",
        "trained on": card.training_data,
        "licence": card.licence,
        "scores": card.scores or "",
        "adapted from": card.adapted_from or "",
        "notes": card.notes,
    }
    print_fields(card.name, fields)
    return 0


def class_names(card: ModelCard) -> dict[str, str]:
    """Fields of a card with the names of its classes."""
    regions, objects = card.semantic_classes, card.instance_classes
    return {
        "regions": ", ".join(entry.name for entry in regions) or "none",
        "objects": ", ".join(entry.name for entry in objects) or "no types",
    }


def print_fields(title: str, fields: dict[str, Any]) -> None:
    """Print a title and all fields with a value."""
    print(title)
    for key, value in fields.items():
        if str(value):
            print(f"  {key:<13}{value}")


def _import(arguments: argparse.Namespace) -> int:
    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.checkpoints.native import save
    from napari_coseg.models.checkpoints.released import import_released

    output = arguments.output or arguments.checkpoint.with_suffix(".safetensors")
    if output.exists() and not arguments.overwrite:
        raise OutputError(f"{output} already exists; give another --output, or --overwrite")
    card = ModelCard.from_mapping(_json(arguments.card)) if arguments.card else None
    imported = import_released(arguments.checkpoint, card)
    save(output, imported.model)
    if imported.model.card.licence:
        print(f"licence: {imported.model.card.licence}", file=sys.stderr)
    ignored = imported.report.ignored
    print(f"{imported.report.used} entries used, {len(ignored)} not used by the network:")
    for name in ignored:
        print(f"  {name}", file=sys.stderr)
    print(output)
    return 0


def _download(arguments: argparse.Namespace) -> int:
    from napari_coseg.models.checkpoints.download import SAM2_CHECKPOINTS, download, find, place_of

    if arguments.name is None:
        for known in SAM2_CHECKPOINTS.values():
            print(f"{known.name:<18}{known.size_mb:>5,.0f} MB  {known.url}")
        return 0
    checkpoint = find(arguments.name)
    to = place_of(checkpoint, arguments.folder)
    print(f"{checkpoint.url}, {checkpoint.size_mb:,.0f} MB, to {to}", file=sys.stderr)
    with ProgressLine(checkpoint.name) as progress:
        path = download(checkpoint, arguments.folder, progress=progress)
    print(path)
    return 0


def _json(path: Path) -> dict[str, object]:
    import json

    from napari_coseg.core.errors import SettingsError

    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(
            f"{path} has a {type(values).__name__}; expected the fields of a model card"
        )
    return values
