"""EfficientNet-Lite, pretrained on photographs, with a shared top-down path to stride 2.

    images (B, 3, Y, X)
      stem, then seven stages of inverted bottlenecks -> maps at strides 2, 4, 8, 16 and 32
      neck: 1x1 convolutions to one width, stride 32 added to stride 16, layer normalisation
      -> embedding (B, C, Y/16, X/16)
      top-down path: the embedding joined with the trunk's maps at strides 8, 4 and 2
      -> finer maps (B, C_s, Y/s, X/s)

EfficientNet: Tan and Le, ICML 2019 (table 1, the block table; section 5, the scaling of width and
depth). Inverted bottleneck: Sandler et al., CVPR 2018. The Lite variants leave out
squeeze-and-excitation, take ReLU6 in place of swish, and scale neither the stem nor the depth of
the first and last stage. Weights that were trained with TensorFlow expect its padding: strided
convolutions are padded more below and on the right.

Batch normalisation keeps the statistics of the starting weights: those of mixed batches would vary.
New layers are normalised per pixel, so that a crop's features do not depend on its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Self

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from napari_coseg.models.nn.encoders.base import Encoder, EncoderConfig, finer_strides
from napari_coseg.models.nn.encoders.top_down import TopDown
from napari_coseg.models.nn.norm import ChannelNorm

STEM_CHANNELS = 32
BATCH_NORM_EPS = 1e-3


class Stage(NamedTuple):
    """One row of the paper's table 1, before scaling."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),  # at stride 2, the stem's
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),  # at stride 16
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class EfficientNetLiteConfig(EncoderConfig):
    """Shape of an EfficientNet-Lite encoder."""

    kind: Literal["efficientnet-lite"] = "efficientnet-lite"
    width_factor: float = Field(1.0, ge=0.125, le=4, description="of the stages' channels")
    depth_factor: float = Field(1.0, ge=0.125, le=4, description="of the stages' blocks")
    top_down_channels: tuple[int, ...] = Field(
        (24, 48, 80),
        min_length=2,
        max_length=3,
        description="channels of the top-down path at strides 2, 4 and 8, or 4 and 8",
    )
    batch_statistics: bool = Field(
        False,
        description="batch normalisation learns its statistics, for a trunk that is trained "
        "from scratch",
    )

    @property
    def kind_name(self) -> str:
        return self.kind


EFFICIENTNET_LITE_SIZES: dict[str, EfficientNetLiteConfig] = {
    "efficientnet-lite0": EfficientNetLiteConfig(),
    "efficientnet-lite1": EfficientNetLiteConfig(depth_factor=1.1),
    "efficientnet-lite2": EfficientNetLiteConfig(width_factor=1.1, depth_factor=1.2),
}


class EfficientNetLite(Encoder):
    """The trunk, a neck for context, and a top-down path to stride 2."""

    Config: ClassVar = EfficientNetLiteConfig
    sizes: ClassVar = EFFICIENTNET_LITE_SIZES
    start: ClassVar = "efficientnet-lite"
    config: EfficientNetLiteConfig

    def __init__(
        self,
        config: EfficientNetLiteConfig,
        width: int = 128,
        high_resolution_channels: tuple[int, ...] = (64, 48, 32),
        adapter_ratio: float = 0.0,
        adapter_kernel_size: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(config)
        of_stride = self.trunk.channels
        self.context = Pointwise(of_stride[32], width)
        self.reduce = Pointwise(of_stride[16], width)
        self.embedding_norm = ChannelNorm(width)
        strides = finer_strides(len(high_resolution_channels))  # from coarse to fine
        path = config.top_down_channels[::-1][: len(strides)]
        self.laterals = nn.ModuleList(
            Pointwise(of_stride[stride], channels)
            for stride, channels in zip(strides, path, strict=True)
        )
        self.top_down = TopDown(width, path[::-1], ChannelNorm)
        self.projections = nn.ModuleList(
            Pointwise(before, after)
            for before, after in zip(path, high_resolution_channels, strict=True)
        )
        self.channels = {16: width, **dict(zip(strides, high_resolution_channels, strict=True))}

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = self.trunk(images)
        context = F.interpolate(self.context(maps[32]), scale_factor=2, mode="nearest")
        embedding = self.embedding_norm(self.reduce(maps[16]) + context)
        strides = finer_strides(len(self.laterals))
        levels = [lateral(maps[s]) for lateral, s in zip(self.laterals, strides, strict=True)]
        joined = self.top_down(embedding, levels[::-1])
        fine = [
            project(level) for project, level in zip(self.projections, joined[::-1], strict=True)
        ]
        return embedding, tuple(fine[::-1])

    def parts(self) -> dict[str, list[nn.Parameter]]:
        trunk = list(self.trunk.parameters())
        known = {id(p) for p in trunk}
        neck = [p for p in self.parameters() if id(p) not in known]
        return {"trunk": trunk, "adapters": [], "neck": neck}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.trunk.blocks)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not self.config.batch_statistics:
            for module in self.trunk.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


class Trunk(nn.Module):
    """Images (B, 3, Y, X) -> the last map of each stride, (B, C, Y/s, X/s) by s."""

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__()
        self.stem = _convolution(3, STEM_CHANNELS, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        self.channels: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        before, stride = STEM_CHANNELS, 2
        for number, stage in enumerate(STAGES):
            after = _scaled_channels(stage.channels, config.width_factor)
            is_outer = number in (0, len(STAGES) - 1)
            count = stage.blocks if is_outer else math.ceil(stage.blocks * config.depth_factor)
            stride *= stage.stride
            for block in range(count):
                step = stage.stride if block == 0 else 1
                self.blocks.append(
                    InvertedBottleneck(before, after, stage.kernel, step, stage.expansion)
                )
                before = after
            self.channels[stride], self.ends[stride] = after, len(self.blocks) - 1

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        maps, pixels = {}, self.stem(images)
        ends = {block: stride for stride, block in self.ends.items()}
        for number, block in enumerate(self.blocks):
            pixels = block(pixels)
            if number in ends:
                maps[ends[number]] = pixels
        return maps


class InvertedBottleneck(nn.Module):
    """Expand, depthwise convolution, project; with a residual if shapes agree."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = before * expansion
        self.expand = _expansion(before, hidden) if expansion > 1 else nn.Identity()
        self.filter = _convolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = nn.Sequential(
            Pointwise(hidden, after, bias=False), nn.BatchNorm2d(after, eps=BATCH_NORM_EPS)
        )
        self.is_residual = stride == 1 and before == after

    def forward(self, pixels: Tensor) -> Tensor:
        changed: Tensor = self.project(self.filter(self.expand(pixels)))
        return pixels + changed if self.is_residual else changed


class Pointwise(nn.Conv2d):
    """A 1x1 convolution as a product of matrices on (B, Y, X, C).

    Torch has no fast single-threaded 1x1 convolution for channels-last memory: this takes 10 % less
    time, forward and backward.
    """

    def __init__(self, before: int, after: int, bias: bool = True) -> None:
        super().__init__(before, after, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        last = F.linear(input.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias)
        return last.permute(0, 3, 1, 2)


class _StridedConv2d(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's padding: more at the far end for even sizes."""

    def forward(self, input: Tensor) -> Tensor:
        before, after = (self.kernel_size[0] - 2) // 2, (self.kernel_size[0] - 1) // 2
        return super().forward(F.pad(input, (before, after, before, after)))


def _expansion(before: int, after: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(after, eps=BATCH_NORM_EPS)
    return nn.Sequential(Pointwise(before, after, bias=False), norm, nn.ReLU6(inplace=True))


def _convolution(
    before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    if stride == 1:
        padding = kernel // 2
        layer = nn.Conv2d(before, after, kernel, 1, padding, groups=groups, bias=False)
    else:
        layer = _StridedConv2d(before, after, kernel, stride, 0, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after, eps=BATCH_NORM_EPS), nn.ReLU6(inplace=True))


def _scaled_channels(channels: int, factor: float, multiple: int = 8) -> int:
    """The nearest multiple of 8 to the scaled number, never below nine tenths of it.

    >>> _scaled_channels(40, 1.1), _scaled_channels(16, 1.1)
    (48, 16)
    """
    scaled = channels * factor
    nearest = max(multiple, int(scaled + multiple / 2) // multiple * multiple)
    return nearest if nearest >= 0.9 * scaled else nearest + multiple
