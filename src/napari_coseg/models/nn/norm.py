"""Layer normalisation over the channels of each pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """(B, C, Y, X) -> the same, each pixel's channels normalised.

    The arithmetic of SAM's LayerNorm2d, through torch's fused kernel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        last = input.permute(0, 2, 3, 1)  # (B, Y, X, C)
        last = F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)
