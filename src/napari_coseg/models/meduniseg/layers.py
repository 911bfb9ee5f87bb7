"""Convolutions that serve volumes and planes, with the changes of MedUniSeg*.

At depth 1 only the middle plane of a kernel meets the image, and the mean of the two planes that an
upscaling makes is an upscaling with the mean of its kernel's planes. So these layers compute planes
in 2D, with the same result, two to three times faster (`benchmarks/planes.py`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

Sides = tuple[int, int, int]


class Convolution(nn.Conv3d):
    """A 3D convolution with padding ``kernel // 2``. Maps (B, C, Z, Y, X) in and out.

    Parameters
    ----------
    change
        Another layer whose answer is added for adapted images; None for none.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        kernel: Sides,
        stride: Sides = (1, 1, 1),
        bias: bool = True,
        change: Change | None = None,
    ) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(width_in, width_out, kernel, stride, padding, bias=bias)
        self.change: Change | None = change

    def forward(self, maps: Tensor, adapted: Tensor | None = None) -> Tensor:
        """Convolve; `adapted` (B, 1, 1, 1, 1) is 1 for images that get the change."""
        if maps.shape[2] == 1:
            middle = self.weight[:, :, self.kernel_size[0] // 2]
            plane = maps.squeeze(2)
            answer = F.conv2d(plane, middle, self.bias, self.stride[1:], self.padding[1:])
            answer = answer.unsqueeze(2)
        else:
            answer = super().forward(maps)
        if self.change is None or adapted is None:
            return answer
        return answer + adapted * self.change(maps)


class Upscaling(nn.ConvTranspose3d):
    """A transposed convolution whose kernel is its stride, without bias.

    Planes stay planes.

    Parameters
    ----------
    factors
        Along z, y, x.
    single_plane
        For planes: the mean of the planes that the kernel makes, or the first of them.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        factors: Sides,
        single_plane: Literal["mean", "first"] = "mean",
        change: Upscaling | None = None,
    ) -> None:
        super().__init__(width_in, width_out, factors, factors, bias=False)
        self.single_plane = single_plane
        self.change: Upscaling | None = change

    def forward(  # type: ignore[override]  # the output's size follows from the input's
        self, maps: Tensor, is_plane: bool, adapted: Tensor | None = None
    ) -> Tensor:
        """Enlarge; the coarsest maps of a volume may have a depth of 1, too, and are no plane."""
        if is_plane:
            mean = self.single_plane == "mean"
            kernel = self.weight.mean(2) if mean else self.weight[:, :, 0]
            answer = F.conv_transpose2d(maps.squeeze(2), kernel, stride=self.stride[1:])
            answer = answer.unsqueeze(2)
        else:
            answer = super().forward(maps)
        if self.change is None or adapted is None:
            return answer
        return answer + adapted * self.change(maps, is_plane)


class LowRankConvolution(nn.Module):
    """LoRA of a convolution: ``alpha / rank * up(down(maps))`` (Hu et al. 2022, in 3D).

    `down` has the kernel and stride of the convolution, `up` is 1x1x1 and starts at zero. The paper
    gives only rank and alpha; this layout is ours.
    """

    def __init__(
        self, width_in: int, width_out: int, kernel: Sides, stride: Sides, rank: int, alpha: float
    ) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = Convolution(width_in, rank, kernel, stride, bias=False)
        self.up = Convolution(rank, width_out, (1, 1, 1), bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.scale * self.up(self.down(maps))

    def weight_change(self) -> Tensor:
        """What to add to the convolution's kernel, (C_out, C_in, z, y, x)."""
        up = self.up.weight.flatten(1)  # (C_out, rank)
        return self.scale * (up @ self.down.weight.flatten(1)).view(
            len(up), *self.down.weight.shape[1:]
        )


Change: TypeAlias = LowRankConvolution | Convolution


class ConvBlock(nn.Module):
    """Convolution, instance normalisation, leaky ReLU."""

    def __init__(
        self, width_in: int, width_out: int, kernel: Sides, stride: Sides, lora: tuple[int, float]
    ) -> None:
        super().__init__()
        self.conv = lora_convolution(width_in, width_out, kernel, stride, lora)
        self.norm = nn.InstanceNorm3d(width_out, affine=True)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, maps: Tensor, adapted: Tensor | None = None) -> Tensor:
        return self.activation(self.norm(self.conv(maps, adapted)))


class Stem(nn.Module):
    """The first block: a convolution for each number of channels, one normalisation for all."""

    def __init__(self, channels: tuple[int, ...], width: int, lora: tuple[int, float]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict(
            {str(n): lora_convolution(n, width, (1, 3, 3), (1, 1, 1), lora) for n in channels}
        )
        self.norm = nn.InstanceNorm3d(width, affine=True)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, images: Tensor, adapted: Tensor | None = None) -> Tensor:
        convolution = self.convolutions[str(images.shape[1])]
        return self.activation(self.norm(convolution(images, adapted)))


def lora_convolution(
    width_in: int, width_out: int, kernel: Sides, stride: Sides, lora: tuple[int, float]
) -> Convolution:
    """A convolution, with a low-rank change where the rank (`lora[0]`) is not 0."""
    rank, alpha = lora
    change = LowRankConvolution(width_in, width_out, kernel, stride, rank, alpha) if rank else None
    return Convolution(width_in, width_out, kernel, stride, change=change)
