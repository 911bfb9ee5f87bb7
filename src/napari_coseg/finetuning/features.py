"""Encoder features kept on disk: at speed "heads" each crop is encoded once, with its labels.

One safetensors file for each of a fixed set of augmented crops. Values are float16, or bfloat16
where float16 would overflow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_coseg.core.errors import OutputError, SettingsError
from napari_coseg.core.files import atomic_write
from napari_coseg.datasets.batches import Batch
from napari_coseg.models.base import CosegModel
from napari_coseg.training.memory import catching_out_of_memory
from napari_coseg.training.stepping import AUTOCAST

FEATURES = "features"


class FeatureCache:
    """Crops by number, with their features.

    Parameters
    ----------
    folder
        Created where it is missing; holds nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(
        self,
        network: CosegModel,
        draw: Callable[[int], Batch],
        count: int,
        precision: str,
        on_crop: Callable[[int], object],
    ) -> None:
        """Encode what is missing of `count` crops.

        Parameters
        ----------
        draw
            Gives the crop of a number, as a batch of one.
        on_crop
            Called with each crop's number before it is encoded; may raise to stop.

        Raises
        ------
        OutOfMemory
            Where one crop does not fit.
        OutputError
            Where the disk refuses.
        """
        network.eval()
        for number in range(count):
            on_crop(number)
            if not self._path(number).is_file():
                self._add(number, with_features(network, draw(number), precision))

    def draw(self, step: int, crops: int, count: int, seed: int) -> Batch:
        """The crops of a step, drawn among the first `count`; the batch has no images.

        Raises
        ------
        OutputError
            Where a file is gone or broken.
        """
        if count < crops:
            raise SettingsError(f"{count} crops are cached, but a step takes {crops}; take fewer")
        chosen = np.random.default_rng([seed, step]).choice(count, crops, replace=False)
        try:
            files = [load_file(self._path(number)) for number in chosen.tolist()]
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"features in {self.folder} cannot be read: {error}; start the fine-tuning over"
            ) from error
        stacked = {key: torch.stack([file[key] for file in files]) for key in files[0]}
        maps = sorted(key for key in stacked if key.startswith(FEATURES))
        labels = {key: value.numpy() for key, value in stacked.items() if key not in maps}
        images = np.zeros((crops, 0, *labels["semantic"].shape[-2:]), np.float32)
        return Batch(images=images, features=tuple(stacked[key] for key in maps), **labels)

    def clear(self) -> None:
        """Delete all crops, whole or not, and the folder if nothing else is in it."""
        for pattern in ("crop-*.safetensors", ".crop-*.tmp"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _add(self, number: int, batch: Batch) -> None:
        entries = {f"{FEATURES}{i}": _half(maps[0]) for i, maps in enumerate(batch.features or ())}
        for name, labels in vars(batch).items():
            if name not in ("images", FEATURES) and labels is not None:
                value = np.ascontiguousarray(labels[0])
                entries[name] = torch.from_numpy(
                    value.astype(np.float16) if name == "hv" else value
                )
        path = self._path(number)
        with atomic_write(path, overwrite=True, failures=(SafetensorError,)) as partial:
            save_file(entries, partial)

    def _path(self, number: int) -> Path:
        return self.folder / f"crop-{number:05d}.safetensors"


@torch.no_grad()
def with_features(network: CosegModel, batch: Batch, precision: str) -> Batch:
    """The batch with its images encoded, by a network in evaluation mode.

    Raises
    ------
    OutOfMemory
        Where the batch does not fit.
    """
    device, dtype = next(network.buffers()).device, AUTOCAST.get(precision)
    with catching_out_of_memory(device):
        images = network.normalise(torch.as_tensor(batch.images).to(device))
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            features = network.encode(images)
    maps = (features.embedding, *features.high_resolution)
    values: dict[str, Any] = {**vars(batch), FEATURES: maps}
    return Batch(**values)


def _half(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    half = value.to(torch.float16)
    return (half if bool(half.isfinite().all()) else value.to(torch.bfloat16)).contiguous()
