"""MMap, a map of the image's modality, and FUSE, a map of the task at hand."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_coseg.models.meduniseg.config import MedUniSegConfig
from napari_coseg.models.meduniseg.layers import ConvBlock, Sides


class ModalMap(nn.Module):
    """MMap: one learned vector for each modality, and one linear layer that makes it a map."""

    def __init__(self, config: MedUniSegConfig, modalities: int) -> None:
        super().__init__()
        self.grid_2d, self.grid_3d = config.modal_grid_2d, config.modal_grid_3d
        values = self.grid_2d[0] * self.grid_2d[1]
        self.prompts = nn.Parameter(torch.randn(modalities, config.modal_width))
        self.linear = nn.Linear(config.modal_width, values)

    def forward(self, modalities: Tensor, size: torch.Size) -> Tensor:
        """Numbers of modalities (B,), and (Z, Y, X) -> maps (B, 1, Z, Y, X)."""
        values = self.linear(self.prompts[modalities])
        if size[0] == 1:
            plane = values.view(-1, 1, *self.grid_2d)
            return F.interpolate(plane, size[1:], mode="bilinear", align_corners=False)[:, :, None]
        return resized(values.view(-1, 1, *self.grid_3d), size)


class TaskPrior(nn.Module):
    """FUSE: the universal task prompt and the image's features give one map for each task."""

    def __init__(self, config: MedUniSegConfig, tasks: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.randn(config.prompt_channels, *config.prompt_grid))
        between = config.fusion_width
        widths = (config.widths[-1] + config.prompt_channels, between, between, tasks)
        lora = (config.lora_rank, config.lora_alpha)
        self.blocks = nn.ModuleList(
            ConvBlock(a, b, (3, 3, 3), (1, 1, 1), lora) for a, b in itertools.pairwise(widths)
        )

    def priors(self, features: Tensor, adapted: Tensor | None = None) -> Tensor:
        """Features (B, C, z, y, x) -> maps of all tasks (B, N, ...) on the prompt's grid."""
        prompt = self.prompt.expand(len(features), *self.prompt.shape)
        # The features first, as in UniSeg's code; the paper's equation 1 writes the reverse.
        joined = torch.cat([resized(features, self.prompt.shape[1:]), prompt], dim=1)
        for block in self.blocks:
            joined = block(joined, adapted)
        return joined

    def forward(self, features: Tensor, tasks: Tensor, adapted: Tensor | None = None) -> Tensor:
        """The map (B, 1, z, y, x) of each image's own task (B,), on the features' grid."""
        rows = torch.arange(len(features), device=features.device)
        own = self.priors(features, adapted)[rows, tasks][:, None]
        return resized(own, features.shape[2:])


def resized(maps: Tensor, size: torch.Size | Sides) -> Tensor:
    """Resize trilinearly to (Z, Y, X); no change at that size."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="trilinear", align_corners=False)
