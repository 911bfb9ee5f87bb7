"""Settings of Co-Seg++. The paper is the default; `AS_RELEASED` says where its code differs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from napari_coseg.core.settings import Settings
from napari_coseg.models.nn.encoders.registry import EncoderShape, shape_of


class CosegPlusConfig(Settings):
    """Shape of a Co-Seg++ network (paper sections 3.2 to 3.4)."""

    encoder: EncoderShape = Field(
        default_factory=lambda: shape_of("large"),
        description="a name in `named_shapes()`, or the encoder's config",
    )
    width: int = Field(256, ge=32, multiple_of=16, description="channels of the embedding")
    upscaling_channels: tuple[int, ...] = Field(
        (64, 32),
        description="channels after each upscaling step of the decoders; a third and fourth reach "
        "strides 2 and 1 and need an encoder whose stem has as many channels there",
    )
    upscaling_refinement: bool = Field(
        False, description="a residual 3x3 convolution after each upscaling step (not in the paper)"
    )
    adapter_ratio: float = Field(0.25, ge=0, le=4)
    adapter_kernel_size: int = Field(0, ge=0, le=7, description="0 is the paper's plain adapter")
    decoder_depth: int = Field(2, ge=1, le=8)
    decoder_heads: int = Field(8, ge=1)
    decoder_mlp_dim: int = Field(2048, ge=16)
    fusion_mlp_dim: int = Field(2048, ge=16, description="FFN of the SSP-Encoder's fusion")
    fusion_dropout: float = Field(0.1, ge=0, lt=1)
    scan_state: int = Field(8, ge=1, le=64)
    scan_rank: int = Field(16, ge=1, description="rank of the step-size projection")
    scan_activation: bool = Field(
        False,
        description="SiLU after the convolution of the sequence branch: no in the paper (section "
        "3.2, table 8), yes in the released code",
    )
    scan_gate: bool = Field(
        False, description="multiply by a SiLU gate, as Mamba does: no in paper and code (table 8)"
    )
    scan_norm: bool = Field(
        True,
        description="LayerNorm after the scan: yes in the paper (equation 4), no in the code",
    )
    scan_bias_twice: bool = Field(
        False,
        description="add the bias of the step sizes twice, as the released code does: once in its "
        "projection and once more in the scan",
    )
    prompt_encoder: Literal["ssp", "mask"] = Field(
        "ssp",
        description="mask: only the mask's convolutions become the prompt, as in SAM, without the "
        "sequence branch and the fusion (an ablation, table 7)",
    )
    prompt_norm: bool = Field(
        False,
        description="batch normalisation of the mask's tokens: emphasises spatial differences "
        "(not in the paper; for networks trained from scratch, which otherwise learn to ignore the "
        "mask prompt)",
    )
    mask_skip: bool = Field(
        False,
        description="the mask prompt is also added to the decoder's pixels at stride 4, by two "
        "convolutions, the last initialised to zero (not in the paper; for networks trained from "
        "scratch, whose convolutions learn before their transformers)",
    )
    decoder: Literal["mtc", "plain"] = Field(
        "mtc",
        description="plain: the prompted embedding is upscaled directly, with a learned vector per "
        "mask, without two-way transformer and consistency map (an ablation, table 7)",
    )
    crossed: bool = Field(
        True,
        description="a task is prompted by the other's mask; otherwise by its own (an ablation, "
        "table 7)",
    )
    forwards: int = Field(
        2,
        ge=1,
        le=5,
        description="1: no prompts at all; above 2: the prompted masks of one forward prompt the "
        "next (figure 8)",
    )
    semantic_channels: int | None = Field(
        None, description="None: one for background and one per class; imports may have unused ones"
    )
    instance_channels: int | None = Field(None, description="None: as many as the classes need")


AS_RELEASED: dict[str, Any] = {
    "scan_activation": True,
    "scan_norm": False,
    "scan_bias_twice": True,
}
"""Settings of imported checkpoints of the authors, besides sizes."""

COMPACT: dict[str, Any] = {
    "encoder": "compact",
    "width": 128,
    "upscaling_channels": (64, 48, 32, 24),
    "adapter_ratio": 0.5,
    "adapter_kernel_size": 3,
    "decoder_mlp_dim": 512,
    "fusion_mlp_dim": 512,
    "fusion_dropout": 0.0,
    "scan_rank": 8,
    "mask_skip": True,
}
"""Config of a small Co-Seg++ that can be trained from scratch on a CPU."""
