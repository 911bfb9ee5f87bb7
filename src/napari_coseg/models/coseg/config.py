"""Settings of Co-Seg. The paper is the default; `AS_RELEASED` says where its code differs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from napari_coseg.core.settings import Settings
from napari_coseg.models.nn.encoders.registry import EncoderShape, shape_of


class CosegConfig(Settings):
    """Shape of a Co-Seg network (paper sections 2.2 to 2.4)."""

    encoder: EncoderShape = Field(
        default_factory=lambda: shape_of("large"),
        description="a name in `named_shapes()`, or the encoder's config",
    )
    width: int = Field(256, ge=32, multiple_of=16, description="channels of the embedding")
    upscaling_channels: tuple[int, ...] = Field(
        (64, 32),
        min_length=2,
        max_length=4,
        description="channels after each upscaling step of the decoders; a third and fourth reach "
        "strides 2 and 1 and need an encoder whose stem has as many channels there",
    )
    upscaling_refinement: bool = Field(
        False, description="a residual 3x3 convolution after each upscaling step (not in the paper)"
    )
    adapter_ratio: float = Field(0.25, ge=0, le=4)
    adapter_kernel_size: int = Field(0, ge=0, le=7, description="0 is the paper's plain adapter")
    lora_rank: int = Field(
        4, ge=0, le=256, description="rank of LoRA on queries and values; 0 for none"
    )
    lora_uneven: bool = Field(
        False,
        description="where a stage begins, LoRA changes half of the queries and values, as in the "
        "released code, which counts input channels although twice as many go out",
    )
    mask_reduction: Literal["once", "twice"] = Field(
        "once",
        description="how the RP-Encoder reduces a mask 16 times: by one 16x16 convolution "
        "(section 2.2) or by two 4x4 ones (released code)",
    )
    fusion_mlp_dim: int = Field(2048, ge=16, description="FFN of the RP-Encoder's fusion")
    fusion_dropout: float = Field(0.1, ge=0, lt=1)
    decoder_depth: int = Field(2, ge=1, le=8)
    decoder_heads: int = Field(8, ge=1)
    decoder_mlp_dim: int = Field(2048, ge=16)
    spare_token: bool = Field(
        False,
        description="another query embedding per head, which attends but has no map: no in "
        "the paper, yes in the released code, which keeps SAM's tokens for one and for several "
        "masks and reads only one kind",
    )


AS_RELEASED: dict[str, Any] = {
    "lora_uneven": True,
    "mask_reduction": "twice",
    "spare_token": True,
}
"""Settings of imported checkpoints of the authors, besides sizes."""
