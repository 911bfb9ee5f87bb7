"""One layer of SAM2's memory attention on any grid: mask tokens attend to image tokens."""

from __future__ import annotations

import torch
from sam2.modeling.memory_attention import MemoryAttentionLayer
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor


class RotaryFusion(MemoryAttentionLayer):
    """Self-attention, cross-attention, FFN with ReLU: pre-norm, residual, one head each.

    Positions are axial and rotary (theta 10,000), computed for each grid.
    """

    def __init__(self, width: int, mlp_dim: int, dropout: float) -> None:
        super().__init__(
            activation="relu",
            self_attention=_rotary_attention(width, dropout),
            cross_attention=_rotary_attention(width, dropout),
            d_model=width,
            dim_feedforward=mlp_dim,
            dropout=dropout,
            pos_enc_at_attn=False,
            pos_enc_at_cross_attn_keys=False,
            pos_enc_at_cross_attn_queries=False,
        )
        self.grid: tuple[int, int] | None = None

    def forward(self, mask_tokens: Tensor, image_tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Both (B, N, C), row by row on a grid of (h, w) with N = h * w -> (B, N, C)."""
        self._lay_out_positions(grid, mask_tokens.device)
        fused: Tensor = super().forward(mask_tokens, image_tokens)
        return fused

    def _lay_out_positions(self, grid: tuple[int, int], device: torch.device) -> None:
        # RoPEAttention assumes a square grid with the given number of tokens.
        for attention in (self.self_attn, self.cross_attn_image):
            if self.grid != grid:
                # A tensor made in inference mode could not be used for training later.
                with torch.inference_mode(False):
                    attention.freqs_cis = attention.compute_cis(end_x=grid[1], end_y=grid[0])
            if attention.freqs_cis.device != device:
                with torch.inference_mode(False):
                    attention.freqs_cis = attention.freqs_cis.to(device)
        self.grid = grid


def _rotary_attention(width: int, dropout: float) -> RoPEAttention:
    return RoPEAttention(
        rope_theta=10000.0,
        feat_sizes=(1, 1),  # recomputed for each grid
        embedding_dim=width,
        num_heads=1,
        downsample_rate=1,
        dropout=dropout,
    )
