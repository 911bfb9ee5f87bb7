"""Multi-Task Collaborative Decoder (Co-Seg++ section 3.3): one per task.

    embedding + prompt (B, C, h, w), K + 1 mask tokens
      two-way transformer (equations 7 and 8) -> tokens, image tokens
      consistency: 1x1 convolution of the image tokens to 2 channels (equation 9)
      upscaling by transposed convolutions, high-resolution features added, and the mask itself
      with a `MaskSkip`
      mask k = (3-layer MLP of token k) . (upscaled pixels)

Token 0 is the first forward's binary mask; tokens 1..K are the second forward's channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sam2.modeling.sam.transformer import TwoWayTransformer
from sam2.modeling.sam2_utils import MLP
from torch import Tensor, nn

from napari_coseg.models.coseg_plus.config import CosegPlusConfig
from napari_coseg.models.nn.doubling import Doubling

FIRST_FORWARD_DOUBLINGS = 2
"""The first forward's mask is at stride 4, as the SSP-Encoder expects."""
MASK_SKIP_CHANNELS = 16


class MaskSkip(nn.Module):
    """Mask skip past the transformer: logits (B, 1, y, x) -> (B, C, *size); starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, MASK_SKIP_CHANNELS, kernel_size=5, padding=2)
        self.tell = nn.Conv2d(MASK_SKIP_CHANNELS, channels, kernel_size=1, bias=False)
        nn.init.zeros_(self.tell.weight)

    def forward(self, mask_logits: Tensor, size: torch.Size) -> Tensor:
        mask = torch.sigmoid(mask_logits) - 0.5  # saturate confident logits
        if mask.shape[-2:] != size:
            mask = F.interpolate(mask, size, mode="bilinear", align_corners=False)
        said: Tensor = self.tell(F.gelu(self.see(mask)))
        return said


class MTCDecoder(nn.Module):
    """Decodes one task, with or without the other's prompt.

    Parameters
    ----------
    config
        Shape of the network.
    channels
        K, the number of the second forward's channels.

    Attributes
    ----------
    answering
        Indices of the tokens that become the second forward's channels.
    """

    def __init__(self, config: CosegPlusConfig, channels: int) -> None:
        super().__init__()
        width = config.width
        self.mask_tokens = nn.Parameter(torch.randn(1 + channels, width))
        self.answering = slice(1, None)
        self.transformer: TwoWayTransformer | None = None
        if config.decoder == "mtc":
            self.transformer = TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=width,
                num_heads=config.decoder_heads,
                mlp_dim=config.decoder_mlp_dim,
            )
            self.consistency = nn.Conv2d(width, 2, kernel_size=1, bias=False)
        self.upscaling = nn.ModuleList()
        before = width
        for index, after in enumerate(config.upscaling_channels):
            # SAM normalises only after the first upscaling step.
            self.upscaling.append(
                Doubling(before, after, norm=index == 0, refine=config.upscaling_refinement)
            )
            before = after
        self.mask_skip: MaskSkip | None = None
        if config.mask_skip:
            self.mask_skip = MaskSkip(config.upscaling_channels[FIRST_FORWARD_DOUBLINGS - 1])
        finals = [config.upscaling_channels[FIRST_FORWARD_DOUBLINGS - 1]]
        finals += [config.upscaling_channels[-1]] * channels
        self.token_mlps = nn.ModuleList(MLP(width, width, final, 3) for final in finals)

    def forward(
        self,
        embedding: Tensor,
        prompt: Tensor,
        position: Tensor,
        high_resolution: tuple[Tensor, ...],
        binary: bool,
        mask_logits: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Masks, and the consistency map if the decoder has one.

        Parameters
        ----------
        embedding, prompt, position
            (B, C, h, w); prompt and position may be broadcast over B, h, w.
        high_resolution
            From fine to coarse, as in `Features`.
        binary
            True: the first forward, token 0 alone, (B, 1, 4h, 4w). False: (B, K, .., ..).
        mask_logits
            (B, 1, y, x), the mask of `prompt`; None without one.
        """
        pixels = embedding + prompt  # (B, C, h, w)
        tokens = self.mask_tokens.unsqueeze(0).expand(len(pixels), -1, -1)  # (B, 1 + K, C)
        consistency = None
        if self.transformer is not None:
            size = pixels.shape[-2:]
            tokens, pixels = self.transformer(pixels, position.expand_as(pixels), tokens)
            pixels = pixels.transpose(1, 2).unflatten(2, size)
            consistency = self.consistency(pixels)  # (B, 2, h, w)

        steps = list(self.upscaling)[:FIRST_FORWARD_DOUBLINGS] if binary else list(self.upscaling)
        features = list(reversed(high_resolution))
        if self.mask_skip is not None and mask_logits is not None:
            at = FIRST_FORWARD_DOUBLINGS - 1
            features[at] = features[at] + self.mask_skip(mask_logits, features[at].shape[-2:])
        for step, feature in zip(steps, features, strict=False):
            pixels = step(pixels, feature)  # (B, C_i, 2h, 2w)
        wanted = range(1) if binary else range(1, len(self.token_mlps))
        weights = torch.stack([self.token_mlps[i](tokens[:, i]) for i in wanted], dim=1)
        masks = torch.einsum("bkc,bcyx->bkyx", weights, pixels)
        return masks, consistency
