"""Co-Seg networks small enough to build and run within a test."""

from __future__ import annotations

from typing import Any

import torch

from cases.tiny_models import TINY_CONFIG, tiny_card
from napari_coseg.core.card import ModelCard
from napari_coseg.models.coseg.model import Coseg

COSEG_CONFIG: dict[str, Any] = {
    name: value for name, value in TINY_CONFIG.items() if not name.startswith("scan_")
} | {"lora_rank": 3}


def tiny_coseg_card(types: tuple[str, ...] = (), **config: Any) -> ModelCard:
    """One class of regions and, as in the paper, no classes of objects."""
    return tiny_card(types=types).model_copy(
        update={"family": "coseg", "config": COSEG_CONFIG | config}
    )


def tiny_coseg(card: ModelCard | None = None, seed: int = 0) -> Coseg:
    """Every weight random, those that start at zero or one too."""
    generator = torch.Generator().manual_seed(seed)
    model = Coseg(card or tiny_coseg_card()).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model
