"""A MedUniSeg of five narrow stages, for volumes and planes, and its card."""

from __future__ import annotations

from typing import Any

import torch

from napari_coseg.core.card import ClassEntry, ModelCard, Normalisation, OutputMap, TaskEntry
from napari_coseg.models.meduniseg.model import MedUniSeg

TINY: dict[str, Any] = {
    "widths": (4, 6, 8, 10, 12),
    "modal_width": 16,
    "modal_grid_2d": (4, 6),
    "modal_grid_3d": (2, 3, 4),
    "prompt_channels": 8,
    "prompt_grid": (2, 3, 4),
}
NAMES = ("bone", "vessel", "tumour", "oedema")


def meduniseg_card(
    channels: int = 1, dimensions: int = 3, config: dict[str, Any] | None = None, **changed: Any
) -> ModelCard:
    """Two modalities, two tasks of two and three classes, at 3 x 0.5 x 0.5 mm."""
    values: dict[str, Any] = {
        "name": "tiny MedUniSeg",
        "family": "meduniseg",
        "config": TINY | (config or {}),
        "channels": tuple(f"sequence {n}" for n in range(channels)),
        "dimensions": dimensions,
        "modalities": ("CT", "MR"),
        "tasks": (
            TaskEntry(name="head", classes=("bone", "vessel"), modalities=("CT",)),
            TaskEntry(name="brain", classes=("tumour", "oedema", "vessel")),
        ),
        "semantic_classes": tuple(
            ClassEntry(id=n, name=name, color=(n, 0, 0)) for n, name in enumerate(NAMES, start=1)
        ),
        "maps": (OutputMap(name="semantic", channels=5, activation="softmax"),),
        "pixel_size_um": 500.0,
        "slice_spacing_um": 3000.0 if dimensions == 3 else None,
        "normalisation": Normalisation(
            mean=(40.0,) * channels, std=(200.0,) * channels, values="measured"
        ),
        "tile_size_px": 64,
    }
    return ModelCard(**{**values, **changed})


def tiny_meduniseg(card: ModelCard | None = None, seed: int = 0) -> MedUniSeg:
    torch.manual_seed(seed)
    return MedUniSeg(card or meduniseg_card()).eval()
