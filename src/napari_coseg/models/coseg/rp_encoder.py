"""Region-aware Prompt Encoder (Co-Seg section 2.2): a mask becomes a dense prompt.

    mask logits (B, 1, Y, X) --convolutions, 16 times smaller--> mask tokens (B, N, C)
    self-attention on the mask tokens, cross-attention to the embedding, FFN -> (B, C, Y/16, X/16)

N = Y/16 * X/16. Keys and values of the cross-attention are the embedding itself (equation 5).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.position_encoding import PositionEmbeddingRandom
from torch import Tensor, nn

from napari_coseg.models.coseg.config import CosegConfig
from napari_coseg.models.nn.norm import ChannelNorm
from napari_coseg.models.nn.rotary_fusion import RotaryFusion

STRIDE = 16
MASK_CHANNELS = (4, 16)


class RPEncoder(nn.Module):
    """Dense prompts from a task's mask, for the *other* task's decoder.

    Like SAM's prompt encoder it owns the "no mask" vector and the random Fourier features of
    positions.
    """

    def __init__(self, config: CosegConfig) -> None:
        super().__init__()
        width = config.width
        self.position = PositionEmbeddingRandom(width // 2)
        self.no_mask = nn.Parameter(torch.randn(width))
        self.mask_branch = _mask_branch(width, config.mask_reduction == "once")
        self.fusion = RotaryFusion(width, config.fusion_mlp_dim, config.fusion_dropout)

    def forward(self, mask_logits: Tensor, embedding: Tensor) -> Tensor:
        """Mask (B, 1, y, x) and embedding (B, C, h, w) -> prompt (B, C, h, w), equations 4, 5."""
        grid = (int(embedding.shape[-2]), int(embedding.shape[-1]))
        wanted = (STRIDE * grid[0], STRIDE * grid[1])
        if tuple(mask_logits.shape[-2:]) != wanted:
            mask_logits = F.interpolate(mask_logits, wanted, mode="bilinear", align_corners=False)
        mask_tokens = self.mask_branch(mask_logits).flatten(2).transpose(1, 2)  # (B, N, C)
        image_tokens = embedding.flatten(2).transpose(1, 2)  # (B, N, C)
        fused: Tensor = self.fusion(mask_tokens, image_tokens, grid)
        return fused.transpose(1, 2).unflatten(2, grid)

    def no_mask_prompt(self, embedding: Tensor) -> Tensor:
        """The learned "no mask" vector, (1, C, 1, 1)."""
        return self.no_mask.view(1, -1, 1, 1).to(embedding.dtype)

    def image_position(self, embedding: Tensor) -> Tensor:
        """(1, C, h, w) random Fourier features of the grid of the embedding."""
        position: Tensor = self.position((int(embedding.shape[-2]), int(embedding.shape[-1])))
        return position.unsqueeze(0)


def _mask_branch(width: int, at_once: bool) -> nn.Sequential:
    """(B, 1, Y, X) -> (B, width, Y/16, X/16): equation 4, or the released code's two steps."""
    few, more = MASK_CHANNELS
    if at_once:
        steps = [_reduction(1, more, STRIDE)]
    else:
        steps = [_reduction(1, few, 4), _reduction(few, more, 4)]
    layers = [layer for step in steps for layer in step]
    return nn.Sequential(*layers, nn.Conv2d(more, width, kernel_size=1))


def _reduction(before: int, after: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(before, after, kernel_size=stride, stride=stride),
        ChannelNorm(after),
        nn.GELU(),
    )
