"""The shared image encoder: sam2's own Hiera trunk and neck, with adapters put in from outside.

    images (B, 3, Y, X)
      Hiera, stages at strides 4, 8, 16, 32, with adapters beside every MLP
      neck: 1x1 convolutions to one width, stage 4 added to stage 3; stage 4 is dropped
      -> embedding (B, C, Y/16, X/16), f1 (B, C1, Y/8, X/8), f0 (B, C0, Y/4, X/4)

With a convolutional stem (the compact size) Hiera begins at stride 8, and f0 and further maps at
strides 2 and 1 are the stem's; or, with a top-down path, the stem's joined with what the trunk saw.

Co-Seg++ section 3.4; sizes as in sam2's own configuration files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.position_encoding import PositionEmbeddingSine
from torch import Tensor, nn

from napari_coseg.core.errors import SettingsError
from napari_coseg.core.settings import Settings
from napari_coseg.models.nn.adapter import AdaptedMLP, Adapter

Blocks = Annotated[int, Field(ge=1, le=128)]


class HieraConfig(Settings):
    """Shape of a Hiera trunk. The named sizes are in `HIERA_SIZES`."""

    embed_dim: int = Field(ge=8)
    num_heads: int = Field(ge=1)
    stages: tuple[Blocks, ...] = Field(min_length=3, max_length=4)
    global_attention_blocks: tuple[int, ...]
    window_sizes: tuple[int, ...] = (8, 4, 14, 7)
    background_position_size: tuple[int, int] | None = Field(
        (7, 7),
        description="grid of the learned absolute position; None leaves it out, since a tile of "
        "tissue has no up or down",
    )
    stem_channels: tuple[int, int] | tuple[int, int, int] | None = Field(
        None,
        description="channels at strides 2 and 4, or 1, 2 and 4, of a convolutional stem that "
        "takes the place of SAM2's single 7x7 convolution; then there are three stages, the first "
        "at stride 8",
    )
    top_down: bool = Field(
        False,
        description="join the embedding with the stem's maps on the way up, by two convolutions at "
        "each stride, as a U-Net does: shared by both tasks, so that their decoders stay light",
    )

    embedding_norm: bool = Field(
        False,
        description="batch normalisation of the embedding. Trained from scratch, the trunk's "
        "residual stream grows constants so large that the decoders' transformers see nothing "
        "else, and no prompt",
    )

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        wanted = 3 if self.stem_channels else 4
        if not len(self.stages) == len(self.window_sizes) == wanted:
            raise ValueError(
                f"{len(self.stages)} stages and {len(self.window_sizes)} window sizes; "
                f"{'with' if self.stem_channels else 'without'} a stem there are {wanted} of each"
            )
        firsts = {sum(self.stages[:stage]) for stage in range(1, wanted)}
        if both := sorted(firsts & set(self.global_attention_blocks)):
            raise ValueError(
                f"blocks {both} are the first of their stages, where sam2's Hiera halves the grid "
                "within windows; global attention is for the blocks after them"
            )
        if self.top_down and not self.stem_channels:
            raise ValueError("a top-down path joins the maps of a stem; give stem_channels as well")
        return self


HIERA_SIZES: dict[str, HieraConfig] = {
    "tiny": HieraConfig(
        embed_dim=96, num_heads=1, stages=(1, 2, 7, 2), global_attention_blocks=(5, 7, 9)
    ),
    "small": HieraConfig(
        embed_dim=96, num_heads=1, stages=(1, 2, 11, 2), global_attention_blocks=(7, 10, 13)
    ),
    "base-plus": HieraConfig(
        embed_dim=112,
        num_heads=2,
        stages=(2, 3, 16, 3),
        global_attention_blocks=(12, 16, 20),
        background_position_size=(14, 14),
    ),
    "large": HieraConfig(
        embed_dim=144,
        num_heads=2,
        stages=(2, 6, 36, 4),
        global_attention_blocks=(23, 33, 43),
        window_sizes=(8, 4, 16, 8),
    ),
    # Ours: small enough to train from scratch on a CPU. The stem and the adapters' convolutions
    # give it the local bias that the large ones learned from millions of pictures; attention at
    # stride 4 cost most of the time and learnt least.
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


def named_shape(encoder: str | HieraConfig) -> HieraConfig:
    """A shape by its name in `HIERA_SIZES`; a shape comes back as it is."""
    if isinstance(encoder, HieraConfig):
        return encoder
    if encoder not in HIERA_SIZES:
        raise SettingsError(f"unknown encoder {encoder!r}; choose one of {', '.join(HIERA_SIZES)}")
    return HIERA_SIZES[encoder]


class ConvolutionalStem(nn.Module):
    """Two 3x3 convolutions at each of the strides 2, 4 and 8, and at 1 where channels say so.

    (B, 3, Y, X) -> [(B, C1, Y, X),] (B, C2, Y/2, X/2), (B, C4, Y/4, X/4), tokens (B, C, Y/8, X/8).
    """

    def __init__(self, channels: tuple[int, ...], embed_dim: int) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.refine = nn.ModuleList()
        before = 3
        for level, after in enumerate((*channels, embed_dim)):
            stride = 1 if level == 0 and len(channels) == 3 else 2
            self.down.append(_ConvNormAct(before, after, stride))
            self.refine.append(_ConvNormAct(after, after))
            before = after

    def forward(self, pixels: Tensor) -> list[Tensor]:
        levels = []
        for down, refine in zip(self.down, self.refine, strict=True):
            pixels = down(pixels)
            pixels = pixels + refine(pixels)
            levels.append(pixels)
        return levels


class TopDown(nn.Module):
    """Joins a coarse map with finer ones, step by step, as the second half of a U-Net.

    coarse (B, C, Y/8, X/8), levels at strides 1, 2, 4 -> one map a level, its size and channels.
    The coarse map is brought to the level's channels before it is enlarged, and added rather than
    put beside it: half the work at the finest strides, where most of the time goes.
    """

    def __init__(self, coarse: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.bring = nn.ModuleList()
        self.join = nn.ModuleList()
        for level in reversed(channels):
            self.bring.append(nn.Conv2d(coarse, level, 1))
            self.join.append(nn.Sequential(_ConvNormAct(level, level), _ConvNormAct(level, level)))
            coarse = level

    def forward(self, coarse: Tensor, levels: list[Tensor]) -> list[Tensor]:
        joined = []
        for bring, join, level in zip(self.bring, self.join, reversed(levels), strict=True):
            larger = F.interpolate(
                bring(coarse), scale_factor=2, mode="bilinear", align_corners=False
            )
            coarse = join(level + larger)
            joined.append(coarse)
        return joined[::-1]


class _ConvNormAct(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class _ChannelsLast(nn.Module):
    """Stands in for the trunk's patch embedding where a stem has already made the tokens."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.permute(0, 2, 3, 1)


class HieraEncoder(nn.Module):
    """sam2's trunk and neck, adapters, and the projections of the high-resolution features.

    Parameters
    ----------
    config
        Shape of the trunk.
    width
        Channels of the embedding; 256 in SAM2.
    high_resolution_channels
        (C1, C0, ...) of f1 at stride 8, f0 at stride 4 and, with a stem, the maps at strides 2 and
        1; (64, 32) in SAM2.
    adapter_ratio, adapter_kernel_size
        See `Adapter`. A ratio of 0 puts in none.
    """

    def __init__(
        self,
        config: HieraConfig,
        width: int = 256,
        high_resolution_channels: tuple[int, ...] = (64, 32),
        adapter_ratio: float = 0.25,
        adapter_kernel_size: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = _build_trunk(config)
        self.stem: ConvolutionalStem | None = None
        channels_1, channels_0, *finer = high_resolution_channels
        f0_channels = width
        if config.stem_channels:
            self.stem = ConvolutionalStem(config.stem_channels, config.embed_dim)
            self.trunk.patch_embed = _ChannelsLast()
            f0_channels = config.stem_channels[-1]
        if adapter_ratio:
            put_in_adapters(self.trunk, adapter_ratio, adapter_kernel_size)
        last = len(config.stages) - 1
        self.neck = FpnNeck(
            # FpnNeck insists on a position encoding; the decoders bring their own.
            position_encoding=PositionEmbeddingSine(2 * (width // 2), warmup_cache=False),
            d_model=width,
            backbone_channel_list=self.trunk.channel_list,
            # SAM2 adds the coarsest to the one before; a path up to the pixels needs it in all.
            fpn_top_down_levels=[*range(0 if config.top_down else last - 1, last + 1)],
            fpn_interp_model="nearest",
        )
        self.embedding_norm = nn.BatchNorm2d(width) if config.embedding_norm else nn.Identity()
        self.project_f1 = nn.Conv2d(width, channels_1, 1)
        self.project_f0 = nn.Conv2d(f0_channels, channels_0, 1)
        self.top_down: TopDown | None = None
        if config.top_down and config.stem_channels:
            self.top_down = TopDown(width, config.stem_channels)
            self.project_finer = nn.ModuleList(
                nn.Conv2d(before, after, 1)
                for before, after in zip(config.stem_channels[:-1], reversed(finer), strict=True)
            )

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Images (B, 3, Y, X) -> embedding and high-resolution features from fine to coarse."""
        if self.stem is None:
            # (strides 4, 8, 16, 32); the last only serves to be added to the third
            (level_4, level_8, embedding, _), _ = self.neck(self.trunk(images))
            finest = (self.project_f0(level_4), self.project_f1(level_8))
            return self.embedding_norm(embedding), finest
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
        """Its parameters as ``trunk`` (with the stem), ``adapters`` and ``neck``."""
        adapters = [p for adapter in self.adapters() for p in adapter.parameters()]
        known = {id(p) for p in adapters}
        trunk = [p for p in self.trunk.parameters() if id(p) not in known]
        if self.stem is not None:
            trunk += self.stem.parameters()
        neck = [*self.neck.parameters(), *self.project_f0.parameters()]
        neck += [*self.project_f1.parameters(), *self.embedding_norm.parameters()]
        if self.top_down is not None:
            neck += [*self.top_down.parameters(), *self.project_finer.parameters()]
        return {"trunk": trunk, "adapters": adapters, "neck": neck}

    def adapters(self) -> Iterable[Adapter]:
        """Every adapter, in the order of the blocks."""
        return (module for module in self.trunk.modules() if isinstance(module, Adapter))


def put_in_adapters(trunk: Hiera, ratio: float, kernel_size: int = 0) -> None:
    """Replace the MLP of every block by the same MLP with an adapter beside it."""
    for block in trunk.blocks:
        block.mlp = AdaptedMLP(block.mlp, Adapter(block.dim_out, ratio, kernel_size))


def _build_trunk(config: HieraConfig) -> Hiera:
    trunk = Hiera(
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        stages=config.stages,
        q_pool=len(config.stages) - 1,
        global_att_blocks=config.global_attention_blocks,
        window_spec=config.window_sizes,
        window_pos_embed_bkg_spatial_size=config.background_position_size or (1, 1),
    )
    if config.background_position_size is None:
        del trunk.pos_embed
        trunk.register_buffer("pos_embed", torch.zeros(1, config.embed_dim, 1, 1), persistent=False)
    return trunk
