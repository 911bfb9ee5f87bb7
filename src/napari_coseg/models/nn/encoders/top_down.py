"""Shared convolutions of encoders: a top-down path as in a U-Net."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
"""Builds a normalisation for a number of channels."""


class ConvNormAct(nn.Sequential):
    """A 3x3 convolution, its normalisation and a ReLU."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int = 1, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            norm(channels_out),
            nn.ReLU(inplace=True),
        )


class TopDown(nn.Module):
    """Joins a coarse map with finer ones, step by step, as the second half of a U-Net.

    The coarse map is projected to the level's channels before it is enlarged, and added rather than
    concatenated: half the work at the finest strides, which take most of the time.

    Parameters
    ----------
    coarse
        Channels of the coarse map.
    channels
        Channels of each level, from fine to coarse.
    norm
        Normalisation after each convolution.
    """

    def __init__(self, coarse: int, channels: tuple[int, ...], norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.bring = nn.ModuleList()
        self.join = nn.ModuleList()
        for level in reversed(channels):
            self.bring.append(nn.Conv2d(coarse, level, 1))
            pair = (ConvNormAct(level, level, norm=norm) for _ in range(2))
            self.join.append(nn.Sequential(*pair))
            coarse = level

    def forward(self, coarse: Tensor, levels: list[Tensor]) -> list[Tensor]:
        """Map (B, C, Y/2s, X/2s) and levels whose coarsest is at stride s -> one map per level."""
        joined = []
        for bring, join, level in zip(self.bring, self.join, reversed(levels), strict=True):
            larger = F.interpolate(
                bring(coarse), scale_factor=2, mode="bilinear", align_corners=False
            )
            coarse = join(level + larger)
            joined.append(coarse)
        return joined[::-1]
