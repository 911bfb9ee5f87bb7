"""Mutual Prompt mask Decoder (Co-Seg section 2.3): one head per task.

    embedding + prompt (B, C, h, w), one query embedding per channel
      two-way transformer (equations 6 and 7) -> queries, image tokens
      upscaling by transposed convolutions, high-resolution features added
      channel k = (3-layer MLP of query k) . (upscaled pixels)

Both forwards compute all channels with the same weights.
"""

from __future__ import annotations

import torch
from sam2.modeling.sam.transformer import TwoWayTransformer
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

from napari_coseg.models.coseg.config import CosegConfig
from napari_coseg.models.nn.doubling import Doubling


class MPDecoder(nn.Module):
    """Decodes one task, with or without the other's prompt.

    Parameters
    ----------
    config
        Shape of the network.
    channels
        K, the number of maps.

    Attributes
    ----------
    answering
        Indices of the tokens that become channels.
    """

    def __init__(self, config: CosegConfig, channels: int) -> None:
        super().__init__()
        width = config.width
        # The spare token, if any, is last.
        self.answering = slice(None, -1 if config.spare_token else None)
        self.mask_tokens = nn.Parameter(torch.randn(channels + config.spare_token, width))
        self.transformer = TwoWayTransformer(
            depth=config.decoder_depth,
            embedding_dim=width,
            num_heads=config.decoder_heads,
            mlp_dim=config.decoder_mlp_dim,
        )
        self.upscaling = nn.ModuleList()
        before = width
        for index, after in enumerate(config.upscaling_channels):
            # SAM normalises only after the first upscaling step.
            self.upscaling.append(
                Doubling(before, after, norm=index == 0, refine=config.upscaling_refinement)
            )
            before = after
        self.token_mlps = nn.ModuleList(MLP(width, width, before, 3) for _ in range(channels))

    def forward(
        self,
        embedding: Tensor,
        prompt: Tensor,
        position: Tensor,
        high_resolution: tuple[Tensor, ...],
    ) -> Tensor:
        """All channels, (B, K, 4h, 4w), or finer with more upscaling steps.

        Parameters
        ----------
        embedding, prompt, position
            (B, C, h, w); prompt and position may be broadcast over B, h, w.
        high_resolution
            From fine to coarse, as in `Features`.
        """
        pixels = embedding + prompt  # (B, C, h, w)
        size = pixels.shape[-2:]
        queries = self.mask_tokens.unsqueeze(0).expand(len(pixels), -1, -1)  # (B, K, C)
        queries, pixels = self.transformer(pixels, position.expand_as(pixels), queries)
        pixels = pixels.transpose(1, 2).unflatten(2, size)
        for step, feature in zip(self.upscaling, reversed(high_resolution), strict=True):
            pixels = step(pixels, feature)  # (B, C_i, 2h, 2w)
        weights = torch.stack([mlp(queries[:, k]) for k, mlp in enumerate(self.token_mlps)], dim=1)
        return torch.einsum("bkc,bcyx->bkyx", weights, pixels)
