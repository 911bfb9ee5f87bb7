"""Run a network on batches of tiles, halving them when memory runs out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_coseg.core.card import ModelCard
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.models.base import Conditions, CosegModel, SegmentationModel, TaskMaps
from napari_coseg.models.nn.memory import is_out_of_memory

FLIPS = ((), (-1,), (-2,), (-2, -1))
GPU_BATCH = 8


class TileTooLargeError(Exception):
    """One tile does not fit the device's memory; the run catches it and makes tiles smaller."""


@dataclass(frozen=True)
class MapChannels:
    """Channels of the maps in what `TileNetwork.maps` returns."""

    semantic: slice
    object: int
    classes: slice
    hv: slice

    @classmethod
    def of(cls, card: ModelCard) -> MapChannels:
        regions = 1 + len(card.semantic_classes)
        types = 1 + len(card.instance_classes) if card.instance_classes else 0
        classes = slice(regions + 1, regions + 1 + types)
        return cls(slice(0, regions), regions, classes, slice(classes.stop, classes.stop + 2))


class TileNetwork:
    """A network on its device.

    Parameters
    ----------
    batch_size
        Tiles in one batch, None for the device's default; halved when memory runs out.
    flips
        Average over the four flips of each tile.
    half_precision
        Use bfloat16 on CUDA.
    report
        Called with one line of text when the batch size changes.
    """

    model: Any

    def __init__(
        self,
        model: CosegModel | SegmentationModel,
        batch_size: int | None,
        flips: bool,
        half_precision: bool,
        report: Callable[[str], None],
    ) -> None:
        self.model = model
        self._flips = FLIPS if flips else FLIPS[:1]
        self._report = report
        self.device = next(model.buffers()).device
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else GPU_BATCH)
        self._half = half_precision and self.device.type == "cuda"

    def maps(self, tiles: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Predict the maps of tiles.

        Parameters
        ----------
        tiles
            float32 (Y, X, 3) of 0..255, all of one shape.

        Returns
        -------
        list of np.ndarray
            float16 (C, Y, X): probabilities and distance maps, in the order of `MapChannels`.

        Raises
        ------
        TileTooLargeError
            If one tile alone runs out of memory.
        """
        found: list[np.ndarray] = []
        while len(found) < len(tiles):
            batch = tiles[len(found) : len(found) + self.batch_size]
            result = self._try(batch)
            if result is not None:
                found += list(result)
            elif self.batch_size == 1:
                raise TileTooLargeError
            else:
                fewer = min(self.batch_size, len(batch)) // 2 or 1
                self._report(f"out of memory: batch {self.batch_size} -> {fewer}")
                self.batch_size = fewer
        return found

    def free(self) -> None:
        """Return cached memory to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _try(self, batch: Sequence[np.ndarray]) -> np.ndarray | None:
        try:
            return self._forward(batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler: the error's traceback keeps the tensors of the failed call alive.
        self.free()
        return None

    @torch.inference_mode()
    def _forward(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        rgb = torch.from_numpy(np.stack(batch)).to(self.device).permute(0, 3, 1, 2)
        images = self.model.normalise(rgb.contiguous())
        total: Tensor | None = None
        for dims in self._flips:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
                maps = self._both_forwards(images.flip(dims) if dims else images)
            found = probabilities(maps, self.model.card, dims)
            total = found if total is None else total + found
        if total is None:
            raise ValueError("no flips")
        return (total / len(self._flips)).to(torch.float16).cpu().numpy()

    def _both_forwards(self, images: Tensor) -> TaskMaps:
        """Run both forwards on normalised images (B, 3, Y, X)."""
        maps: TaskMaps = self.model(images).second
        return maps


class TaskNetwork(TileNetwork):
    """A network that takes a task and a modality, the same for all windows.

    Parameters
    ----------
    conditions
        Of one image.
    channels
        The task's channels of the semantic map, background first.
    """

    def __init__(
        self,
        model: SegmentationModel,
        conditions: Conditions,
        channels: np.ndarray,
        settings: InferenceSettings,
    ) -> None:
        super().__init__(
            model,
            settings.batch_size,
            flips=settings.test_time_augmentation,
            half_precision=settings.half_precision,
            report=lambda change: None,
        )
        self.conditions = conditions
        self.channels = torch.as_tensor(channels.astype(np.int64), device=self.device)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[np.ndarray]) -> np.ndarray:
        """Windows (C, [Z,] Y, X), normalised -> probabilities (B, K, [Z,] Y, X)."""
        images = torch.from_numpy(np.stack(batch)).to(self.device)
        conditions = Conditions(*(names * len(batch) for names in self.conditions))
        axes = range(2 - images.ndim, 0)
        count = len(axes) if len(self._flips) > 1 else 0
        flips = [c for n in range(count + 1) for c in itertools.combinations(axes, n)]
        temperature = self.model.card.temperatures.get("semantic", 1.0)
        total: Tensor | float = 0.0
        for dims in flips:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
                maps = self.model.maps(images.flip(dims), conditions)["semantic"]
            # The task's channels before the softmax, and the softmax before any average.
            total = total + (maps[:, self.channels].float() / temperature).softmax(1).flip(dims)
        answer: np.ndarray = torch.as_tensor(total / len(flips)).cpu().numpy()
        return answer


def probabilities(maps: TaskMaps, card: ModelCard, flipped: tuple[int, ...]) -> Tensor:
    """Convert logits of flipped images to (B, C, Y, X) in the order of `MapChannels`, unflipped.

    Logits are divided by the temperatures of `card` first.
    """
    of = card.temperatures
    hv = maps.hv.float()  # horizontal, vertical: a flip changes the sign along its axis
    if flipped:
        signs = [-1.0 if axis in flipped else 1.0 for axis in (-1, -2)]
        hv = hv * torch.tensor(signs, device=hv.device).view(1, 2, 1, 1)
    parts = [
        (maps.semantic.float() / of.get("semantic", 1.0)).softmax(1),
        (maps.object.float() / of.get("object", 1.0)).sigmoid(),
    ]
    if maps.classes.shape[1]:
        parts.append((maps.classes.float() / of.get("classes", 1.0)).softmax(1))
    joined = torch.cat([*parts, hv], dim=1)
    return joined.flip(flipped) if flipped else joined
