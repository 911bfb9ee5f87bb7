"""Loss of MedUniSeg: Dice and cross-entropy of the task's classes, at each scale of the decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1e-5


def scale_weights(scales: int) -> list[float]:
    """Half of the scale before, full size first; the lowest does not count. They add up to 1."""
    weights = [0.5**n for n in range(scales - 1)]
    return [*(weight / sum(weights) for weight in weights), 0.0]


def dice_and_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy less the mean Dice of samples and foreground classes, after a softmax.

    Parameters
    ----------
    logits
        (B, K, Z, Y, X), already cut to the classes of the batch's task.
    target
        (B, Z, Y, X) int64, 0 to K - 1.
    """
    probabilities = logits.float().softmax(1)
    truth = F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probabilities)
    sums = [
        values[:, 1:].flatten(2).sum(2) for values in (probabilities * truth, probabilities, truth)
    ]
    both, found, wanted = sums
    dice = (2 * both + SMOOTH) / (found + wanted + SMOOTH)
    return F.cross_entropy(logits.float(), target) - dice.mean()


def deep_supervision_loss(logits: Sequence[Tensor], target: Tensor, classes: int) -> Tensor:
    """The weighted sum over all scales, for a batch of one task.

    Parameters
    ----------
    logits
        Of each scale, full size first, (B, H, z, y, x), as `MedUniSeg.forward` gives them.
    target
        (B, Z, Y, X) int64 numbers of the task's classes, 0 for background; lower scales take every
        n-th pixel.
    classes
        Of the task, with the background: further channels are cut off before the softmax, so that
        they get no gradient.
    """
    terms = []
    for maps, weight in zip(logits, scale_weights(len(logits)), strict=True):
        if not weight:
            continue
        steps = [n // m for n, m in zip(target.shape[1:], maps.shape[2:], strict=True)]
        smaller = target[:, :: steps[0], :: steps[1], :: steps[2]]
        terms.append(weight * dice_and_cross_entropy(maps[:, :classes], smaller))
    return torch.stack(terms).sum()
