"""Adapters beside a frozen MLP (Co-Seg++ section 3.4, Co-Seg section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """A bottleneck: down, (depthwise convolution,) GELU, up. Tokens (B, Y, X, C) in and out.

    The second matrix starts at zero, so that a new adapter does not change pretrained features.

    Parameters
    ----------
    dim
        Channels of the tokens.
    ratio
        Hidden channels as a fraction of `dim`; 1/4 in the paper.
    kernel_size
        Side of the depthwise convolution on the hidden channels; 0 (the paper) omits it. Networks
        trained from scratch gain from its local view.
    """

    def __init__(self, dim: int, ratio: float = 0.25, kernel_size: int = 0) -> None:
        super().__init__()
        hidden = max(1, int(dim * ratio))
        self.down = nn.Linear(dim, hidden)
        self.local: nn.Conv2d | None = None
        if kernel_size:
            self.local = nn.Conv2d(
                hidden, hidden, kernel_size, padding=kernel_size // 2, groups=hidden
            )
        self.activation = nn.GELU()
        self.up = nn.Linear(hidden, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.down(tokens)  # (B, Y, X, C / 4)
        if self.local is not None:
            hidden = hidden + self.local(hidden.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.up(self.activation(hidden))


class AdaptedMLP(nn.Module):
    """Replaces a block's MLP by ``mlp(n) + scale * adapter(n)``."""

    def __init__(self, mlp: nn.Module, adapter: Adapter, scale: float = 0.5) -> None:
        super().__init__()
        self.mlp = mlp
        self.adapter = adapter
        self.scale = scale

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.add(self.mlp(tokens), self.adapter(tokens), alpha=self.scale)
