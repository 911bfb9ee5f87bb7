"""SAM2's Hiera trunk and neck, with adapters.

    images (B, 3, Y, X)
      Hiera, stages at strides 4, 8, 16, 32, with adapters beside every MLP
      neck: 1x1 convolutions to one width, stage 4 added to stage 3; stage 4 is dropped
      -> embedding (B, C, Y/16, X/16), f1 (B, C1, Y/8, X/8), f0 (B, C0, Y/4, X/4)

The compact encoder (`compact`) has the same trunk behind a convolutional stem.

Co-Seg++ section 3.4; sizes as in sam2's own configuration files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Self, cast

import torch
from pydantic import Field, model_validator
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.position_encoding import PositionEmbeddingSine
from torch import Tensor, nn

from napari_coseg.models.nn.adapter import AdaptedMLP, Adapter
from napari_coseg.models.nn.encoders.base import Encoder, EncoderConfig

Blocks = Annotated[int, Field(ge=1, le=128)]


class HieraConfig(EncoderConfig):
    """Shape of a Hiera trunk, alone or behind the stem of the compact encoder."""

    embed_dim: int = Field(ge=8)
    num_heads: int = Field(ge=1)
    stages: tuple[Blocks, ...] = Field(min_length=3, max_length=4)
    global_attention_blocks: tuple[int, ...]
    window_sizes: tuple[int, ...] = (8, 4, 14, 7)
    background_position_size: tuple[int, int] | None = Field(
        (7, 7),
        description="grid of the learned absolute position; None omits it, since tissue has no "
        "preferred orientation",
    )
    stem_channels: tuple[int, int] | tuple[int, int, int] | None = Field(
        None,
        description="channels at strides 2 and 4, or 1, 2 and 4, of a convolutional stem that "
        "replaces SAM2's single 7x7 convolution; then there are three stages, the first "
        "at stride 8",
    )
    top_down: bool = Field(
        False,
        description="a top-down path joins the embedding with the stem's maps, by two convolutions "
        "per stride, as in a U-Net: shared by both tasks, so that the decoders stay light",
    )
    embedding_norm: bool = Field(
        False,
        description="batch normalisation of the embedding. Without it, the residual stream of a "
        "trunk trained from scratch grows constants so large that the decoders' transformers "
        "ignore everything else, including prompts",
    )

    @property
    def kind_name(self) -> str:
        return "compact" if self.stem_channels else "hiera"

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
}


class HieraEncoder(Encoder):
    """sam2's trunk and neck, adapters, and the projections of the finer maps at strides 4 and 8."""

    Config: ClassVar = HieraConfig
    sizes: ClassVar = HIERA_SIZES
    start: ClassVar = "sam2"
    config: HieraConfig

    def __init__(
        self,
        config: HieraConfig,
        width: int = 256,
        high_resolution_channels: tuple[int, ...] = (64, 32),
        adapter_ratio: float = 0.25,
        adapter_kernel_size: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.trunk = build_trunk(config)
        if adapter_ratio:
            put_in_adapters(self.trunk, adapter_ratio, adapter_kernel_size)
        last = len(config.stages) - 1
        # SAM2 adds only the coarsest level to the next one; a top-down path needs all levels.
        self.neck = build_neck(self.trunk, width, 0 if config.top_down else last - 1)
        self.embedding_norm = nn.BatchNorm2d(width) if config.embedding_norm else nn.Identity()
        channels_1, channels_0 = high_resolution_channels[:2]
        self.project_f1 = nn.Conv2d(width, channels_1, 1)
        self.project_f0 = nn.Conv2d(self.channels_at_stride_4(width), channels_0, 1)
        self.channels = {4: channels_0, 8: channels_1, 16: width}

    def channels_at_stride_4(self, width: int) -> int:
        """Of the map that `project_f0` takes."""
        return width

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        # (strides 4, 8, 16, 32); the last is only added to the third
        (level_4, level_8, embedding, _), _ = self.neck(self.trunk(images))
        finest = (self.project_f0(level_4), self.project_f1(level_8))
        return self.embedding_norm(embedding), finest

    def parts(self) -> dict[str, list[nn.Parameter]]:
        adapters = [p for adapter in self.adapters() for p in adapter.parameters()]
        known = {id(p) for p in adapters}
        trunk = [p for p in self.trunk.parameters() if id(p) not in known]
        neck = [*self.neck.parameters(), *self.project_f0.parameters()]
        neck += [*self.project_f1.parameters(), *self.embedding_norm.parameters()]
        return {"trunk": trunk, "adapters": adapters, "neck": neck}

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.trunk.blocks)

    def attention_layers(self) -> Sequence[nn.Linear]:
        return [cast(nn.Linear, block.attn.qkv) for block in self.trunk.blocks]

    def adapters(self) -> Iterable[Adapter]:
        """Every adapter, in the order of the blocks."""
        return (module for module in self.trunk.modules() if isinstance(module, Adapter))


def build_neck(trunk: Hiera, width: int, first_top_down: int) -> FpnNeck:
    """sam2's neck; from level `first_top_down` on, the coarser level is added to each."""
    return FpnNeck(
        # FpnNeck requires a position encoding, though the decoders have their own.
        position_encoding=PositionEmbeddingSine(2 * (width // 2), warmup_cache=False),
        d_model=width,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[*range(first_top_down, len(trunk.channel_list))],
        fpn_interp_model="nearest",
    )


def put_in_adapters(trunk: Hiera, ratio: float, kernel_size: int = 0) -> None:
    """Add an adapter beside the MLP of every block."""
    for block in trunk.blocks:
        block.mlp = AdaptedMLP(block.mlp, Adapter(block.dim_out, ratio, kernel_size))


def build_trunk(config: HieraConfig) -> Hiera:
    """Build sam2's Hiera of this config, with or without a learned position."""
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
