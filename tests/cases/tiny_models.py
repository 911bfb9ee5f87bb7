"""Co-Seg++ networks small enough to build and run within a test."""

from __future__ import annotations

from typing import Any

import torch

from napari_coseg.core.card import ClassEntry, ModelCard
from napari_coseg.models.coseg_plus.model import CosegPlus
from napari_coseg.models.nn.encoders.hiera import HieraConfig

TINY_TRUNK = HieraConfig(
    embed_dim=8, num_heads=1, stages=(1, 2, 1, 1), global_attention_blocks=(2,)
)
TINY_CONFIG: dict[str, Any] = {
    "encoder": TINY_TRUNK.model_dump(mode="json"),
    "width": 32,
    "upscaling_channels": [16, 8],
    "decoder_mlp_dim": 24,
    "fusion_mlp_dim": 40,
    "scan_state": 3,
    "scan_rank": 5,
}


def tiny_card(
    regions: tuple[str, ...] = ("gland",), types: tuple[str, ...] = ("round", "long"), **config: Any
) -> ModelCard:
    def entries(names: tuple[str, ...]) -> tuple[ClassEntry, ...]:
        return tuple(
            ClassEntry(id=i, name=name, color=(10 * i, 200, 30)) for i, name in enumerate(names, 1)
        )

    return ModelCard(
        name="tiny",
        family="coseg-plus",
        config=TINY_CONFIG | config,
        semantic_classes=entries(regions),
        instance_classes=entries(types),
        pixel_size_um=0.5,
    )


def tiny_model(card: ModelCard | None = None, seed: int = 0) -> CosegPlus:
    """Every weight random, those that start at zero or one too."""
    generator = torch.Generator().manual_seed(seed)
    model = CosegPlus(card or tiny_card()).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return model
