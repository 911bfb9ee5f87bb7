"""Model families by name. To add one, write ``models/<name>/`` and add a line."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from napari_coseg.core.errors import CheckpointError

if TYPE_CHECKING:
    from napari_coseg.core.card import ModelCard
    from napari_coseg.models.base import CosegModel, SegmentationModel

FAMILIES: dict[str, str] = {
    "coseg": "napari_coseg.models.coseg.model:Coseg",
    "coseg-plus": "napari_coseg.models.coseg_plus.model:CosegPlus",
    "meduniseg": "napari_coseg.models.meduniseg.model:MedUniSeg",
}


def build(card: ModelCard) -> SegmentationModel:
    """A network with random weights, of the family and shape that `card` names."""
    if card.family not in FAMILIES:
        raise CheckpointError(
            f"model family {card.family!r} is not known; this version knows {', '.join(FAMILIES)}"
        )
    module, name = FAMILIES[card.family].split(":")
    return getattr(importlib.import_module(module), name)(card)


def build_two_task(card: ModelCard) -> CosegModel:
    """`build`, for a card of a two-task family; a CheckpointError for any other."""
    from napari_coseg.models.base import as_two_task

    return as_two_task(build(card))
