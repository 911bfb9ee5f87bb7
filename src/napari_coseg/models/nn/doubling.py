"""One upscaling step of SAM's decoder, to twice the size."""

from __future__ import annotations

from torch import Tensor, nn

from napari_coseg.models.nn.norm import ChannelNorm


class Doubling(nn.Module):
    """One transposed convolution; the feature of that size is added before the activation."""

    def __init__(self, before: int, after: int, norm: bool, refine: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, kernel_size=2, stride=2)
        self.norm = ChannelNorm(after) if norm or refine else nn.Identity()
        self.activation = nn.GELU()
        self.refine: nn.Module | None = None
        if refine:
            self.refine = nn.Sequential(
                nn.Conv2d(after, after, 3, padding=1), ChannelNorm(after), nn.ReLU()
            )

    def forward(self, pixels: Tensor, feature: Tensor) -> Tensor:
        pixels = self.activation(self.norm(self.up(pixels) + feature))
        if self.refine is not None:
            pixels = pixels + self.refine(pixels)
        return pixels
