"""What Co-Seg++ costs: encoded once, it takes half of the released code's FLOPs."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cases.tiny_models import tiny_card, tiny_model
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.from_coseg_plus import AS_PUMA
from napari_coseg.models.checkpoints.frugal import FrugalBuilding
from napari_coseg.models.coseg_plus.model import CosegPlus
from napari_coseg.models.costs import as_markdown, encoded_once, encoded_twice, measure_costs
from napari_coseg.models.outline import build_outline
from napari_coseg.models.registry import build

RELEASED_LEARNABLE = {
    "tiny": 14_220_000,
    "small": 14_510_000,
    "base-plus": 16_040_000,
    "large": 22_178_543,
}


def test_both_ways_of_running_give_the_same_answer() -> None:
    model = tiny_model()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        once, twice = encoded_once(model, images), encoded_twice(model, images)
    for name, maps in once._asdict().items():
        apart = torch.cat([getattr(one, name) for one in twice])
        torch.testing.assert_close(maps, apart, rtol=1e-4, atol=1e-4)


def test_a_second_encoding_is_counted() -> None:
    table = measure_costs(tiny_card(), 64, batch=2, repeats=1)
    once, twice = table.rows
    assert 1.2 < twice.gflop / once.gflop < 2
    assert all(row.latency_ms is not None and row.latency_ms > 0 for row in table.rows)
    assert 0 < table.learnable_m < table.parameters_m
    everything = tuple(CosegPlus(tiny_card()).parts())
    all_learn = measure_costs(tiny_card(), 64, repeats=0, learnable=everything)
    assert all_learn.learnable_m == pytest.approx(all_learn.parameters_m)
    assert f"| {twice.name} | {twice.gflop:.1f} |" in as_markdown(table)


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
