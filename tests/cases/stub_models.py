"""A deterministic "network" that finds coloured discs, and pictures of such discs.

Every pixel's answer depends on its neighbourhood of `REACH` pixels and on nothing else, so tiles
with a halo of twice that must give exactly what the whole image gives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_coseg.core.card import ModelCard
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
from napari_coseg.models.base import (
    CosegModel,
    Features,
    FirstForward,
    MaskPrompts,
    TaskMaps,
)

REACH = 8
WHITE, PINK = (250, 250, 250), (240, 190, 215)
BLUE, RED = (50, 40, 170), (170, 40, 50)
"""Of discs: `BLUE` ones are class 1, `RED` ones class 2."""


def stub_card(**changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "name": "discs",
        "family": "stub",
        "config": {},
        "semantic_classes": [{"id": 1, "name": "tissue", "color": (0, 200, 0)}],
        "instance_classes": [
            {"id": 1, "name": "blue", "color": (0, 0, 255)},
            {"id": 2, "name": "red", "color": (255, 0, 0)},
        ],
        "pixel_size_um": 0.5,
        "tile_size_px": 128,
        "halo_px": 24,
    }
    return ModelCard.from_mapping(values | changes)


class StubModel(CosegModel):
    """Green below 225 is tissue, below 128 an object; its redder half is class 2.

    Parameters
    ----------
    fits
        Largest number of pixels in one call; more raises the error of a full device.
    """

    size_multiple = 8

    def __init__(self, card: ModelCard | None = None, fits: int | None = None) -> None:
        super().__init__(card or stub_card())
        self.fits = fits
        self.seen: list[tuple[int, ...]] = []
        steps = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
        self.register_buffer("steps", steps)

    def encode(self, images: Tensor) -> Features:
        self.seen.append(tuple(images.shape))
        pixels = images.shape[0] * images.shape[2] * images.shape[3]
        if self.fits is not None and pixels > self.fits:
            raise torch.OutOfMemoryError(f"{pixels} pixels do not fit")
        return Features(images * self.pixel_std + self.pixel_mean, (), tuple(images.shape[-2:]))

    def first_forward(self, features: Features) -> FirstForward:
        green = features.embedding[:, 1:2]
        return FirstForward((225 - green) / 8, (128 - green) / 8, None, None)

    def second_forward(
        self, features: Features, prompts: MaskPrompts, tasks: Any = None
    ) -> TaskMaps:
        redness = (features.embedding[:, 0:1] - features.embedding[:, 2:3]) / 16
        inside = prompts.instance.sigmoid()
        mask = (inside > 0.5).float()
        ones = torch.ones_like(self.steps)
        area = _filtered(mask, ones, ones).clamp(min=1)
        x = _filtered(mask, ones, self.steps) / area
        y = _filtered(mask, self.steps, ones) / area
        classes = torch.cat([-4 * prompts.instance, -redness, redness], 1)
        regions = torch.cat([torch.zeros_like(prompts.semantic), prompts.semantic], 1)
        types = 1 + len(self.card.instance_classes)
        return TaskMaps(
            regions[:, : 1 + len(self.card.semantic_classes)],
            prompts.instance,
            classes[:, : types if types > 1 else 0],
            (-torch.cat([x, y], 1) / 4).clamp(-1, 1) * mask,
        )

    def parts(self) -> dict[str, list[torch.nn.Parameter]]:
        return {}


class CrossedModel(StubModel):
    """Objects are seen where the region mask is, regions where they were or an object is."""

    def second_forward(
        self, features: Features, prompts: MaskPrompts, tasks: Any = None
    ) -> TaskMaps:
        green = features.embedding[:, 1:2]
        dark: Tensor = (128 - green) / 8
        seen = torch.minimum(dark, prompts.semantic)
        maps = super().second_forward(features, MaskPrompts(prompts.semantic, seen))
        pale = torch.maximum((225 - green) / 8, prompts.instance)
        return maps._replace(semantic=torch.cat([torch.zeros_like(pale), pale], 1))


class OracleModel(StubModel):
    """Reads its answer off the picture that `truth_picture` draws: perfect maps, pixel by pixel."""

    def first_forward(self, features: Features) -> FirstForward:
        inside = features.embedding[:, :1] / 255 - 0.5
        return FirstForward(-torch.ones_like(inside), inside * 20, None, None)

    def second_forward(
        self, features: Features, prompts: MaskPrompts, tasks: Any = None
    ) -> TaskMaps:
        empty = torch.zeros_like(prompts.instance)
        return TaskMaps(
            torch.cat([empty, prompts.semantic], 1),
            prompts.instance,
            torch.cat([empty, empty + 1, empty], 1),
            (features.embedding[:, 1:] - 127.5) / 127.5,
        )


def truth_picture(labels: np.ndarray) -> np.ndarray:
    """float32 (Y, X, 3) of 0..255: object or not, horizontal map, vertical map."""
    maps = horizontal_vertical_maps(labels)
    return np.stack([(labels > 0) * 255, *(127.5 + 127.5 * maps)], -1).astype(np.float32)


def _filtered(mask: Tensor, down: Tensor, across: Tensor) -> Tensor:
    rows = F.conv2d(mask, down.view(1, 1, -1, 1), padding=(REACH, 0))
    return F.conv2d(rows, across.view(1, 1, 1, -1), padding=(0, REACH))


def disc_picture(
    shape: tuple[int, int],
    centres: Any,
    radius: float = 6,
    tissue: tuple[slice, slice] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """White with a pink rectangle; discs on it, in turn blue and red.

    Returns
    -------
    image, labels
        uint8 (Y, X, 3), and int32 ids in the order of `centres`.
    """
    image = np.full((*shape, 3), WHITE, np.uint8)
    if tissue is not None:
        image[tissue] = PINK
    labels = np.zeros(shape, np.int32)
    y, x = np.indices(shape)
    for i, (cy, cx) in enumerate(centres):
        inside = (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        image[inside] = (BLUE, RED)[i % 2]
        labels[inside] = i + 1
    return image, labels


def spread_discs(shape: tuple[int, int], step: int = 25, seed: int = 0) -> np.ndarray:
    """Centres on a jittered grid: discs of radius 6 come close and never touch."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[8 : shape[0] - 8 : step, 8 : shape[1] - 8 : step], -1).reshape(-1, 2)
    return grid + rng.uniform(-2, 2, grid.shape)
