"""Features of the frozen encoder, kept on disk: one safetensors file a crop.

At speed "heads" the encoder does not change, so each of a fixed set of crops, augmented in its own
way, is encoded once. Its labels lie in the same file. Values are float16, or bfloat16 where
float16's range does not do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from napari_coseg.core.errors import OutputError
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.stepping import OutOfMemory, is_out_of_memory
from napari_coseg.models.base import CosegModel, Features

EMBEDDING, FINE, LABEL = "embedding", "fine.", "label."
_HALF = ("hv",)


class FeatureCache:
    """Crops by number, with their features.

    Parameters
    ----------
    folder
        Made where it is missing; holds nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, number: int) -> bool:
        return self._path(number).is_file()

    def add(self, number: int, features: Features, batch: Batch) -> None:
        """Keep one crop; the file appears whole or not at all.

        Raises
        ------
        OutputError
            Where the disk refuses.
        """
        entries = {EMBEDDING: _half(features.embedding[0])}
        entries |= {f"{FINE}{i}": _half(f[0]) for i, f in enumerate(features.high_resolution)}
        for name, labels in vars(batch).items():
            if name != "images" and labels is not None:
                array = np.ascontiguousarray(labels[0])
                value = torch.from_numpy(array.astype(np.float16) if name in _HALF else array)
                entries[f"{LABEL}{name}"] = value
        partial = self._path(number).with_suffix(f".{os.getpid()}.part")
        try:
            save_file(entries, partial)
            os.replace(partial, self._path(number))
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            raise OutputError(
                f"features cannot be kept in {self.folder}: {error}; free some space, or choose "
                "another run folder"
            ) from error

    def read(self, numbers: Sequence[int], device: torch.device) -> tuple[Features, Batch]:
        """Features and labels of some crops, float32; the batch has no images.

        Raises
        ------
        OutputError
            Where a file is gone or broken.
        """
        try:
            files = [load_file(self._path(number)) for number in numbers]
        except (OSError, SafetensorError) as error:
            raise OutputError(
                f"features in {self.folder} cannot be read: {error}; start the fine-tuning anew"
            ) from error
        together = {key: torch.stack([file[key] for file in files]) for key in files[0]}
        labels = {
            key.removeprefix(LABEL): value.numpy()
            for key, value in together.items()
            if key.startswith(LABEL)
        }
        labels["hv"] = labels["hv"].astype(np.float32)
        fine = sorted(key for key in together if key.startswith(FINE))
        size = tuple(labels["semantic"].shape[-2:])
        images = np.zeros((len(files), 0, *size), np.float32)
        features = Features(
            together[EMBEDDING].to(device).float(),
            tuple(together[key].to(device).float() for key in fine),
            (int(size[0]), int(size[1])),
        )
        return features, Batch(images=images, **labels)

    def crop_mb(self, number: int = 0) -> float:
        """Size of one crop on disk, in megabytes."""
        return self._path(number).stat().st_size / 1e6

    def clear(self) -> None:
        """Delete all crops, whole or not, and the folder if nothing else is in it."""
        for pattern in ("crop-*.safetensors", "crop-*.part"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, number: int) -> Path:
        return self.folder / f"crop-{number:05d}.safetensors"


@torch.no_grad()
def encode(
    network: CosegModel, batch: Batch, device: torch.device, dtype: torch.dtype | None
) -> Features:
    """Features of a batch, of a network in evaluation mode.

    Raises
    ------
    OutOfMemory
        Where the batch does not fit.
    """
    try:
        images = network.normalise(torch.as_tensor(batch.images).to(device))
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return network.encode(images)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler: the error's traceback keeps the tensors of the failed call alive.
    raise OutOfMemory


def _half(value: Tensor) -> Tensor:
    value = value.detach().cpu()
    half = value.to(torch.float16)
    return (half if bool(half.isfinite().all()) else value.to(torch.bfloat16)).contiguous()
