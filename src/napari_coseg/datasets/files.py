"""Image and label files as arrays, and the order of their names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from napari_coseg.errors import DatasetError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts image_2 before image_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def read_rgb(path: Path) -> np.ndarray:
    """An image file as uint8 (Y, X, 3); grey becomes three equal channels, alpha is dropped."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DatasetError(f"cannot read the image {path}: {error}") from error


def read_labels(path: Path) -> np.ndarray:
    """A label file as an integer array (Y, X); TIFF may hold 32 bits."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            labels = tifffile.imread(path)
        else:
            from PIL import Image

            with Image.open(path) as picture:
                labels = np.asarray(picture)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read the labels {path}: {error}") from error
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise DatasetError(
            f"labels {path} have shape {labels.shape} and dtype {labels.dtype}; expected one "
            "channel of integers, (Y, X)"
        )
    return labels
