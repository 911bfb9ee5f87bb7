"""A network that caches its features and decodes them again with other mask prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from napari_coseg.inference.network import TileNetwork, probabilities
from napari_coseg.models.base import (
    Features,
    FirstForward,
    GivenMasks,
    Task,
    TaskMaps,
    prompts_from,
)


class CachedForward(NamedTuple):
    """Features and first masks of one tile under one flip: float16, in CPU memory.

    embedding, high_resolution   as in `Features`, with B = 1
    semantic_mask, instance_mask   the first forward's logits (1, 1, y, x)
    image_size   (Y, X) of the tile as the network got it
    """

    embedding: Tensor
    high_resolution: tuple[Tensor, ...]
    semantic_mask: Tensor
    instance_mask: Tensor
    image_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        tensors = self.embedding, *self.high_resolution, self.semantic_mask, self.instance_mask
        return sum(tensor.nbytes for tensor in tensors)


class CorrectedMasks(NamedTuple):
    """Masks of a tile that replace the predicted ones as prompts.

    semantic, instance   float32 (Y, X), coverage of each pixel, 0..1, at the size of the tile as
                         the network gets it; None for the predicted mask
    """

    semantic: np.ndarray | None
    instance: np.ndarray | None


class CachingNetwork(TileNetwork):
    """`maps` also sets `cached`: an entry for each tile, with a `CachedForward` for each flip."""

    cached: tuple[tuple[CachedForward, ...], ...] = ()
    _flipped: list[tuple[Features, FirstForward]]

    def maps(self, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.cached = ()
        return super().maps(tiles)

    def _forward(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self._flipped = []
        found = super()._forward(batch)
        for i in range(len(batch)):
            self.cached += (tuple(_cache(*pair, i) for pair in self._flipped),)
        self._flipped = []
        return found

    def _both_forwards(self, images: Tensor) -> TaskMaps:
        features = self.model.encode(images)
        first = self.model.first_forward(features)
        self._flipped.append((features, first))
        return self.model.second_forward(features, prompts_from(first))

    @torch.inference_mode()
    def decode_again(
        self,
        forwards: Sequence[CachedForward],
        window: tuple[slice, slice],
        corrected: CorrectedMasks,
        tasks: Sequence[Task],
    ) -> np.ndarray:
        """Run the second forward on a window of a tile with corrected masks as prompts.

        Parameters
        ----------
        forwards
            Cached forwards of the tile, one for each flip.
        window
            Rows and columns of the tile as the network gets it, in multiples of
            `tile_windows.STRIDE_PX`.
        tasks
            Tasks to decode; maps of the other are undefined.

        Returns
        -------
        np.ndarray
            float16 (C, Y, X) of the window, as `maps` gives them.
        """
        total: Tensor | None = None
        for one, dims in zip(forwards, self._flips, strict=True):
            size = one.image_size
            at = tuple(
                slice(n - part.stop, n - part.start) if dim in dims else part
                for n, part, dim in zip(size, window, (-2, -1), strict=True)
            )
            features = Features(
                self._cut(one.embedding, size, at),
                tuple(self._cut(fine, size, at) for fine in one.high_resolution),
                (at[0].stop - at[0].start, at[1].stop - at[1].start),
            )
            semantic = self._cut(one.semantic_mask, size, at)
            instance = self._cut(one.instance_mask, size, at)
            first = FirstForward(semantic, instance, None, None)
            masks = GivenMasks(*(self._mask(part, window, dims, features) for part in corrected))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
                maps = self.model.second_forward(features, prompts_from(first, masks), tasks)
            found = probabilities(maps, self.model.card, dims)
            total = found if total is None else total + found
        if total is None:
            raise ValueError("no cached forward of this tile")
        return (total / len(forwards)).to(torch.float16)[0].cpu().numpy()

    def _cut(self, values: Tensor, size: tuple[int, int], window: tuple[slice, ...]) -> Tensor:
        """Window of features or masks of any stride, on the device, as float32."""
        rows, columns = (
            slice(part.start * have // n, part.stop * have // n)
            for part, have, n in zip(window, values.shape[-2:], size, strict=True)
        )
        return values[..., rows, columns].to(self.device, torch.float32).contiguous()

    def _mask(
        self,
        coverage: np.ndarray | None,
        window: tuple[slice, slice],
        dims: tuple[int, ...],
        features: Features,
    ) -> Tensor:
        if coverage is None:
            return features.embedding.new_full((1, 1, *features.image_size), float("nan"))
        mask = torch.from_numpy(np.ascontiguousarray(coverage[window]))[None, None]
        return mask.flip(dims).to(self.device) if dims else mask.to(self.device)


def _cache(features: Features, first: FirstForward, i: int) -> CachedForward:
    def one(values: Tensor) -> Tensor:
        return values[i : i + 1].to("cpu", torch.float16, copy=True)

    return CachedForward(
        one(features.embedding),
        tuple(one(fine) for fine in features.high_resolution),
        one(first.semantic_mask),
        one(first.instance_mask),
        features.image_size,
    )
