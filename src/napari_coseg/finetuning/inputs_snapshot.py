"""A copy of a run's inputs in its folder, so that it can resume after more was reviewed.

One safetensors file: the arrays of each reviewed image, and as JSON what their class ids mean.
Nothing in such a file is executed, and it holds no more than its own size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from napari_coseg.core.card import ClassEntry
from napari_coseg.core.errors import CheckpointError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.settings import Settings
from napari_coseg.core.types import LabelClass
from napari_coseg.finetuning.reviewed import LABEL_DTYPES, FoundBy, ReviewedImage, ReviewedSet
from napari_coseg.models.checkpoints.safe import read_header

SNAPSHOT_FILE = "reviewed.safetensors"
KEY = "napari_coseg_reviewed"
KINDS = ("image", *LABEL_DTYPES)
MB = 1e6


class _Image(Settings):
    name: str
    pixel_size_um: float | None
    range: tuple[float, float] | None


class _Snapshot(Settings):
    source: str
    semantic_classes: tuple[ClassEntry, ...]
    instance_classes: tuple[ClassEntry, ...]
    images: tuple[_Image, ...]
    found_by: tuple[FoundBy, ...] = ()


def write_snapshot(folder: Path, reviewed: ReviewedSet) -> None:
    """Keep the reviewed images in a run folder; the file appears whole or not at all.

    Raises
    ------
    OutputError
        Where the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path, values = folder / SNAPSHOT_FILE, {KEY: _description(reviewed).model_dump_json()}
    with atomic_write(path, overwrite=True, failures=(SafetensorError,)) as partial:
        save_file(arrays_of(reviewed), partial, metadata=values)


def read_snapshot(folder: Path) -> ReviewedSet:
    """The inputs that the unfinished run in a folder was started with.

    Raises
    ------
    CheckpointError
        Where there is none, or it is damaged.
    DatasetError
        Where its arrays do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / SNAPSHOT_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} has no copy of the inputs of a fine-tuning; start it over")
    try:
        kept = _Snapshot.model_validate_json(read_header(path).metadata[KEY])
        arrays = load_file(path)
        images = tuple(_image(one, n, arrays) for n, one in enumerate(kept.images))
    except (OSError, SafetensorError, KeyError, ValidationError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start it over") from error
    return ReviewedSet(
        images,
        tuple(entry.as_label_class() for entry in kept.semantic_classes),
        tuple(entry.as_label_class() for entry in kept.instance_classes),
        kept.source,
        kept.found_by,
    )


def _image(kept: _Image, number: int, arrays: dict[str, np.ndarray]) -> ReviewedImage:
    values: dict[str, Any] = {kind: arrays.get(f"{number}/{kind}") for kind in KINDS}
    return ReviewedImage(**kept.model_dump(), **values)


def size_mb(reviewed: ReviewedSet) -> float:
    """Of the file; megabytes."""
    return sum(array.nbytes for array in arrays_of(reviewed).values()) / MB


def arrays_of(reviewed: ReviewedSet) -> dict[str, np.ndarray]:
    """Images and labels, by the number of the image and the kind."""
    return {
        f"{number}/{kind}": np.ascontiguousarray(array)
        for number, image in enumerate(reviewed.images)
        for kind in KINDS
        if (array := getattr(image, kind)) is not None
    }


def _description(reviewed: ReviewedSet) -> _Snapshot:
    return _Snapshot(
        source=reviewed.source,
        semantic_classes=_entries(reviewed.semantic_classes),
        instance_classes=_entries(reviewed.instance_classes),
        images=tuple(
            _Image(name=one.name, pixel_size_um=one.pixel_size_um, range=one.range)
            for one in reviewed.images
        ),
        found_by=reviewed.found_by,
    )


def _entries(classes: tuple[LabelClass, ...]) -> tuple[ClassEntry, ...]:
    return tuple(ClassEntry(id=c.id, name=c.name, color=c.color) for c in classes)
