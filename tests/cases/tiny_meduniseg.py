"""A MedUniSeg of five narrow stages, for volumes and planes, and its card."""

from __future__ import annotations

from typing import Any

import torch

from cases.tiny_volume_family import volume_card
from napari_coseg.core.card import ModelCard
from napari_coseg.models.meduniseg.model import MedUniSeg

TINY: dict[str, Any] = {
    "widths": (4, 6, 8, 10, 12),
    "modal_width": 16,
    "modal_grid_2d": (4, 6),
    "modal_grid_3d": (2, 3, 4),
    "prompt_channels": 8,
    "prompt_grid": (2, 3, 4),
}


def meduniseg_card(
    channels: int = 1, dimensions: int = 3, config: dict[str, Any] | None = None, **changed: Any
) -> ModelCard:
    """Two modalities, two tasks of two and three classes, at 3 x 0.5 x 0.5 mm."""
    values = {
        "name": "tiny MedUniSeg",
        "family": "meduniseg",
        "config": TINY | (config or {}),
        "tile_size_px": 64,
    }
    return volume_card(channels, dimensions, **{**values, **changed})


def tiny_meduniseg(card: ModelCard | None = None, seed: int = 0) -> MedUniSeg:
    torch.manual_seed(seed)
    return MedUniSeg(card or meduniseg_card()).eval()
