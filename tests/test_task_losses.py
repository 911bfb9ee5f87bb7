"""The loss of MedUniSeg, against values by hand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_coseg.training.task_losses import (
    deep_supervision_loss,
    dice_and_cross_entropy,
    scale_weights,
)


@pytest.mark.parametrize(
    ("scales", "weights"), [(5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0]), (3, [2 / 3, 1 / 3, 0])]
)
def test_weights_halve_with_the_size(scales: int, weights: list[float]) -> None:
    assert scale_weights(scales) == pytest.approx(weights)


def test_the_loss_of_even_odds() -> None:
    """Half of each pixel is foreground, two of four pixels are: Dice 2 * 1 / (2 + 2)."""
    target = torch.tensor([[[[0, 1], [1, 0]]]])
    loss = dice_and_cross_entropy(torch.zeros(1, 2, 1, 2, 2), target)
    assert float(loss) == pytest.approx(math.log(2) - 0.5, abs=1e-4)


def test_channels_of_other_tasks_get_no_gradient() -> None:
    logits = [torch.randn(1, 4, n, 2 * n, 2 * n, requires_grad=True) for n in (4, 2, 1)]
    deep_supervision_loss(logits, torch.randint(0, 2, (1, 4, 8, 8)), classes=2).backward()
    assert logits[0].grad is not None
    assert logits[0].grad[:, 2:].abs().sum() == 0
    assert logits[0].grad[:, :2].abs().sum() > 0
    assert logits[2].grad is None
