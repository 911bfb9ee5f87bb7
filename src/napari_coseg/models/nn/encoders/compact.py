"""The compact encoder: small enough to train from scratch on a CPU.

A convolutional stem makes maps at strides 2 and 4 (and 1); Hiera begins at stride 8. The
convolutions of stem and adapters provide the local bias that large encoders learn from millions of
images. With a top-down path the finer maps combine those of the stem with the embedding.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from napari_coseg.models.nn.encoders.hiera import HieraConfig, HieraEncoder
from napari_coseg.models.nn.encoders.top_down import ConvNormAct, TopDown

COMPACT_SIZES: dict[str, HieraConfig] = {
    # No attention at stride 4: it took most of the time and helped least.
    "compact": HieraConfig(
        embed_dim=96,
        num_heads=2,
        stages=(2, 4, 1),
        global_attention_blocks=(3, 4, 5),
        window_sizes=(8, 8, 8),
        background_position_size=None,
        stem_channels=(24, 48, 80),
        top_down=True,
    ),
}


class ConvolutionalStem(nn.Module):
    """Two 3x3 convolutions at each of the strides 2, 4 and 8, and optionally at 1.

    (B, 3, Y, X) -> [(B, C1, Y, X),] (B, C2, Y/2, X/2), (B, C4, Y/4, X/4), tokens (B, C, Y/8, X/8).
    """

    def __init__(self, channels: tuple[int, ...], embed_dim: int) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.refine = nn.ModuleList()
        before = 3
        for level, after in enumerate((*channels, embed_dim)):
            stride = 1 if level == 0 and len(channels) == 3 else 2
            self.down.append(ConvNormAct(before, after, stride))
            self.refine.append(ConvNormAct(after, after))
            before = after

    def forward(self, pixels: Tensor) -> list[Tensor]:
        levels = []
        for down, refine in zip(self.down, self.refine, strict=True):
            pixels = down(pixels)
            pixels = pixels + refine(pixels)
            levels.append(pixels)
        return levels


class _ChannelsLast(nn.Module):
    """Replaces the trunk's patch embedding, since the stem already makes tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.permute(0, 2, 3, 1)


class CompactEncoder(HieraEncoder):
    """A stem, sam2's trunk from stride 8 on, its neck, and a path up to the stem's finest map."""

    sizes: ClassVar = COMPACT_SIZES

    def __init__(
        self,
        config: HieraConfig,
        width: int = 128,
        high_resolution_channels: tuple[int, ...] = (64, 48),
        adapter_ratio: float = 0.5,
        adapter_kernel_size: int = 3,
    ) -> None:
        stem_channels = config.stem_channels or ()
        super().__init__(
            config, width, high_resolution_channels, adapter_ratio, adapter_kernel_size
        )
        self.stem = ConvolutionalStem(stem_channels, config.embed_dim)
        self.trunk.patch_embed = _ChannelsLast()
        # Hiera tiles its window position embedding in windows of eight tokens.
        self.size_multiple = 64
        finer = high_resolution_channels[2:]
        self.top_down: TopDown | None = None
        if config.top_down:
            self.top_down = TopDown(width, stem_channels)
            self.project_finer = nn.ModuleList(
                nn.Conv2d(before, after, 1)
                for before, after in zip(stem_channels[:-1], reversed(finer), strict=True)
            )
        self.channels |= dict(zip((2, 1), finer or stem_channels[-2::-1], strict=False))

    def channels_at_stride_4(self, width: int) -> int:
        return self.config.stem_channels[-1] if self.config.stem_channels else width

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        *levels, tokens = self.stem(images)
        (level_8, embedding, _), _ = self.neck(self.trunk(tokens))
        if self.top_down is not None:
            levels = self.top_down(level_8, levels)
            for number, project in enumerate(self.project_finer):
                levels[number] = project(levels[number])
        *finer, level_4 = levels
        finest = (*finer, self.project_f0(level_4), self.project_f1(level_8))
        return self.embedding_norm(embedding), finest

    def parts(self) -> dict[str, list[nn.Parameter]]:
        parts = super().parts()
        parts["trunk"] += self.stem.parameters()
        if self.top_down is not None:
            parts["neck"] += [*self.top_down.parameters(), *self.project_finer.parameters()]
        return parts
