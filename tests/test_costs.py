"""What Co-Seg++ costs: encoded once, it takes half of the released code's FLOPs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from napari_coseg.checkpoints.from_coseg_plus import AS_PUMA
from napari_coseg.checkpoints.frugal import FrugalBuilding
from napari_coseg.models.base import CosegModel
from napari_coseg.models.coseg_plus.model import CosegPlus
from napari_coseg.models.outline import build_outline
from napari_coseg.models.registry import build
from tiny_models import tiny_card

RELEASED_LEARNABLE = {
    "tiny": 14_220_000,
    "small": 14_510_000,
    "base-plus": 16_040_000,
    "large": 22_178_543,
}


def flops(model: CosegModel, side: int, device: str) -> int:
    model.requires_grad_(False).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side, device=device))
    return int(counter.get_total_flops())


@pytest.mark.parametrize("size", RELEASED_LEARNABLE)
def test_no_more_learns_than_in_the_released_code(size: str) -> None:
    with FrugalBuilding(10**9):
        model = CosegPlus(AS_PUMA.model_copy(update={"config": {"encoder": size}}))
    parts = model.parts()
    learnable = sum(p.numel() for name in parts if name != "trunk" for p in parts[name])
    assert sum(p.numel() for part in parts.values() for p in part) == sum(
        p.numel() for p in model.parameters()
    )
    assert 0.8 * RELEASED_LEARNABLE[size] < learnable <= RELEASED_LEARNABLE[size]


@pytest.mark.slow
def test_the_large_network_takes_half_of_the_released_codes_flops() -> None:
    model = build_outline(AS_PUMA.model_copy(update={"config": {"encoder": "large"}}))
    assert flops(model, 1024, "meta") <= 0.53 * 3_888e9


@pytest.mark.slow
def test_the_count_without_numbers_is_the_count_of_a_real_run() -> None:
    card = tiny_card()
    with sdpa_kernel(SDPBackend.MATH):  # the counter knows nothing of the CPU's fused attention
        counted = flops(build(card), 128, "cpu")
    assert flops(build_outline(card), 128, "meta") == counted > 0
