"""Spatio-Sequential Prompt Encoder (Co-Seg++ section 3.2): a mask becomes a dense prompt.

mask logits (B, 1, Y/4, X/4) --three convolutions--> mask tokens (B, N, C), N = Y/16 * X/16
embedding (B, C, Y/16, X/16) --flattened by rows, state-space model--> sequence (B, N, C)
self-attention on the mask tokens, cross-attention to the sequence, FFN -> (B, C, Y/16, X/16)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import PositionEmbeddingRandom
from torch import Tensor, nn

from napari_coseg.models.coseg_plus.config import CosegPlusConfig
from napari_coseg.models.nn.norm import ChannelNorm
from napari_coseg.models.nn.rotary_fusion import RotaryFusion
from napari_coseg.models.nn.selective_scan import selective_scan

MASK_CHANNELS = (4, 16)


class SSPEncoder(nn.Module):
    """Dense prompts from a task's mask, for the *other* task's decoder.

    Like SAM's prompt encoder it owns the "no mask" vector and the random Fourier features of
    positions.
    """

    def __init__(self, config: CosegPlusConfig) -> None:
        super().__init__()
        width = config.width
        self.position = PositionEmbeddingRandom(width // 2)
        self.no_mask = nn.Parameter(torch.randn(width))
        few, more = MASK_CHANNELS
        self.mask_branch = nn.Sequential(
            nn.Conv2d(1, few, kernel_size=2, stride=2),
            ChannelNorm(few),
            nn.GELU(),
            nn.Conv2d(few, more, kernel_size=2, stride=2),
            ChannelNorm(more),
            nn.GELU(),
            nn.Conv2d(more, width, kernel_size=1),
            nn.BatchNorm2d(width) if config.prompt_norm else nn.Identity(),
        )
        self.fuses = config.prompt_encoder == "ssp"
        if not self.fuses:
            return
        self.sequence_branch = SequenceBranch(config)
        self.fusion = RotaryFusion(width, config.fusion_mlp_dim, config.fusion_dropout)

    def forward(self, mask_logits: Tensor, embedding: Tensor) -> Tensor:
        """Mask (B, 1, y, x) and embedding (B, C, h, w) -> prompt (B, C, h, w), equations 4 to 6."""
        size = (int(embedding.shape[-2]), int(embedding.shape[-1]))
        wanted = (4 * size[0], 4 * size[1])
        if tuple(mask_logits.shape[-2:]) != wanted:
            mask_logits = F.interpolate(mask_logits, wanted, mode="bilinear", align_corners=False)
        mask = self.mask_branch(mask_logits)
        if not self.fuses:
            return mask
        mask_tokens = mask.flatten(2).transpose(1, 2)  # (B, N, C)
        sequence = self.sequence_branch(embedding.flatten(2).transpose(1, 2))  # (B, N, C)
        fused: Tensor = self.fusion(mask_tokens, sequence, size)
        return fused.transpose(1, 2).unflatten(2, size)

    def no_mask_prompt(self, embedding: Tensor) -> Tensor:
        """The learned "no mask" vector, (1, C, 1, 1)."""
        return self.no_mask.view(1, -1, 1, 1).to(embedding.dtype)

    def image_position(self, embedding: Tensor) -> Tensor:
        """(1, C, h, w) random Fourier features of the grid of the embedding."""
        size = (int(embedding.shape[-2]), int(embedding.shape[-1]))
        return self.position(size).unsqueeze(0)


class SequenceBranch(nn.Module):
    """The state-space branch (equation 4): tokens (B, N, C) -> (B, N, C), no residual."""

    def __init__(self, config: CosegPlusConfig) -> None:
        super().__init__()
        width, state, rank = config.width, config.scan_state, config.scan_rank
        self.state, self.rank = state, rank
        self.bias_twice = config.scan_bias_twice
        self.project_in = nn.Linear(width, width, bias=False)
        self.convolution = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width)
        self.activation = nn.SiLU() if config.scan_activation else nn.Identity()
        self.project_gate = nn.Linear(width, width, bias=False) if config.scan_gate else None
        self.project_scan = nn.Linear(width, rank + 2 * state, bias=False)  # step, B, C
        self.project_step = nn.Linear(rank, width)
        self.log_decay = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(width, 1))
        self.skip = nn.Parameter(torch.ones(width))
        self.norm = nn.LayerNorm(width) if config.scan_norm else nn.Identity()
        self.project_out = nn.Linear(width, width, bias=False)
        _start_steps_log_uniform(self.project_step, rank)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.project_in(tokens).transpose(1, 2)  # (B, C, N)
        x = self.activation(self.convolution(x))
        step, b, c = self.project_scan(x.transpose(1, 2)).split(
            (self.rank, self.state, self.state), dim=-1
        )
        # The scan adds the bias inside the softplus.
        step = F.linear(step, self.project_step.weight, self._bias_before_scan())
        y = selective_scan(
            x,
            step.transpose(1, 2),
            -torch.exp(self.log_decay.float()),
            b.transpose(1, 2),
            c.transpose(1, 2),
            self.skip,
            delta_bias=self.project_step.bias,
            delta_softplus=True,
        ).transpose(1, 2)  # (B, N, C)
        y = self.norm(y)
        if self.project_gate is not None:
            y = y * F.silu(self.project_gate(tokens))
        return self.project_out(y)

    def _bias_before_scan(self) -> Tensor | None:
        return self.project_step.bias if self.bias_twice else None


def _start_steps_log_uniform(
    project_step: nn.Linear, rank: int, least: float = 0.001, most: float = 0.1
) -> None:
    """Mamba's initialisation: softplus(bias) is log-uniform between `least` and `most`."""
    nn.init.uniform_(project_step.weight, -(rank**-0.5), rank**-0.5)
    step = torch.exp(
        torch.rand(project_step.out_features) * (math.log(most) - math.log(least)) + math.log(least)
    )
    with torch.no_grad():
        project_step.bias.copy_(step + torch.log(-torch.expm1(-step)))
