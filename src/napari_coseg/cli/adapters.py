"""List adapters, show the card of one, or export one for another machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_coseg.core.errors import OutputError

HELP = "list adapters, show or export one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="adapters in folders, newest first")
    listing.add_argument(
        "folders", nargs="*", type=Path, default=[Path()], help="default: the current folder"
    )
    listing.set_defaults(run=_list)
    info = actions.add_parser("info", help="an adapter's card")
    info.add_argument("adapter", type=Path)
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)
    exporting = actions.add_parser("export", help="check an adapter on its base and copy it")
    exporting.add_argument("adapter", type=Path)
    exporting.add_argument("output", type=Path, help="copy, which any machine loads")
    exporting.add_argument("--model", default="default", help="its base")
    exporting.add_argument("--overwrite", action="store_true", help="replace the file")
    exporting.set_defaults(run=_export)


def _list(arguments: argparse.Namespace) -> int:
    from napari_coseg.models.checkpoints.adapter_library import adapters_in

    for path, card in adapters_in(arguments.folders):
        after = card.scores.get("after", {})
        names = ("object_f1", "object_pq", "mean_region_dice")
        scores = ", ".join(f"{name} {after[name]:.3f}" for name in names if name in after)
        size = path.stat().st_size / 1e6
        print(f"{card.name}  {card.date}  on {card.base_name}  {size:.1f} MB  {scores}  {path}")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from napari_coseg.cli.finetune import score_lines
    from napari_coseg.cli.models import class_names, print_fields
    from napari_coseg.models.checkpoints.adapters import read_adapter_card

    card = read_adapter_card(arguments.adapter)
    if arguments.json:
        print(card.model_dump_json(indent=2))
        return 0
    fields = {
        "base": f"{card.base_name}, {card.base_sha256}",
        **class_names(card.model),
        "trained": ", ".join(card.parts),
        "trained on": f"{card.images} images, {card.objects} objects",
        "date": card.date,
        "size": f"{arguments.adapter.stat().st_size / 1e6:.1f} MB, {card.encoding}",
        "settings": ", ".join(f"{key} {value}" for key, value in card.settings.items()),
        "notes": card.notes,
    }
    print_fields(card.name, fields)
    for line in score_lines(card.scores):
        print(f"  {line}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from napari_coseg.inference.loading import load_model
    from napari_coseg.models.checkpoints.adapter_library import copy_adapter

    if arguments.output.exists() and not arguments.overwrite:
        raise OutputError(f"{arguments.output} already exists; give another name, or --overwrite")
    load_model(arguments.model, "cpu", adapter=arguments.adapter)
    copy_adapter(arguments.adapter, arguments.output, overwrite=arguments.overwrite)
    print(arguments.output)
    return 0
