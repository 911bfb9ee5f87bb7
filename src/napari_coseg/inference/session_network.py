"""A network that keeps what it encoded, and answers again to other prompts without encoding."""

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


class Kept(NamedTuple):
    """What is kept of one tile, flipped one way: float16, in CPU memory.

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
        tensors = (
            self.embedding,
            *self.high_resolution,
            self.semantic_mask,
            self.instance_mask,
        )
        return sum(tensor.nbytes for tensor in tensors)


class Given(NamedTuple):
    """Masks given for a window of a tile, in place of those predicted.

    semantic, instance   float32 (Y, X), the share of each pixel inside, 0..1, at the size of the
                         tile as the network gets it; None where the predicted mask stays
    """

    semantic: np.ndarray | None
    instance: np.ndarray | None


class KeepingNetwork(TileNetwork):
    """`maps` leaves in `kept` what was encoded: one entry a tile, one `Kept` a flip."""

    kept: tuple[tuple[Kept, ...], ...] = ()
    _flipped: list[tuple[Features, FirstForward]]

    def maps(self, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.kept = ()
        return super().maps(tiles)

    def _forward(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        self._flipped = []
        found = super()._forward(batch)
        for i in range(len(batch)):
            self.kept += (tuple(_keep(*answer, i) for answer in self._flipped),)
        self._flipped = []
        return found

    def _answer(self, images: Tensor) -> TaskMaps:
        features = self.model.encode(images)
        first = self.model.first_forward(features)
        self._flipped.append((features, first))
        return self.model.second_forward(features, prompts_from(first))

    @torch.inference_mode()
    def again(
        self,
        kept: Sequence[Kept],
        window: tuple[slice, slice],
        given: Given,
        tasks: Sequence[Task],
    ) -> np.ndarray:
        """The second forward of a window of a tile, prompted by masks that are given.

        Parameters
        ----------
        kept
            Of the tile, one a flip.
        window
            Rows and columns of the tile as the network gets it; multiples of `redo.STRIDE_PX`.
        tasks
            Which are decoded; the maps of others mean nothing.

        Returns
        -------
        np.ndarray
            float16 (C, Y, X) of the window, as `maps` gives them.
        """
        total: Tensor | None = None
        for one, dims in zip(kept, self._flips, strict=True):
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
            first = FirstForward(
                self._cut(one.semantic_mask, size, at),
                self._cut(one.instance_mask, size, at),
                None,
                None,
            )
            masks = GivenMasks(
                self._mask(given.semantic, window, dims, features),
                self._mask(given.instance, window, dims, features),
            )
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
                maps = self.model.second_forward(features, prompts_from(first, masks), tasks)
            found = probabilities(maps, dims)
            total = found if total is None else total + found
        if total is None:
            raise ValueError("nothing was kept of this tile")
        return (total / len(kept)).to(torch.float16)[0].cpu().numpy()

    def _cut(self, values: Tensor, size: tuple[int, int], window: tuple[slice, ...]) -> Tensor:
        """The window of features or masks, whatever their stride; on the device, as float32."""
        rows, columns = (
            slice(part.start * have // n, part.stop * have // n)
            for part, have, n in zip(window, values.shape[-2:], size, strict=True)
        )
        return values[..., rows, columns].to(self.device, torch.float32).contiguous()

    def _mask(
        self,
        share: np.ndarray | None,
        window: tuple[slice, slice],
        dims: tuple[int, ...],
        features: Features,
    ) -> Tensor:
        if share is None:
            return features.embedding.new_full((1, 1, *features.image_size), float("nan"))
        mask = torch.from_numpy(np.ascontiguousarray(share[window]))[None, None]
        return mask.flip(dims).to(self.device) if dims else mask.to(self.device)


def _keep(features: Features, first: FirstForward, i: int) -> Kept:
    def one(values: Tensor) -> Tensor:
        return values[i : i + 1].to("cpu", torch.float16, copy=True)

    return Kept(
        one(features.embedding),
        tuple(one(fine) for fine in features.high_resolution),
        one(first.semantic_mask),
        one(first.instance_mask),
        features.image_size,
    )
