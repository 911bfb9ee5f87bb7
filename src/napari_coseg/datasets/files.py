"""Read image and label files as arrays, and find files in dataset folders."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError, ImageError
from napari_coseg.core.types import LABEL_DTYPE
from napari_coseg.images.intake import RgbSource, understand

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

DEEP_MODES = ("I", "F")
"""Prefixes of Pillow's modes of grey images with more than 8 bits: I;16, I, F."""

MAX_PIXELS = 2**27
"""Largest image or label image, 11,585 x 11,585; checked before memory is allocated, since a small
file can claim any size."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Natural sort key: image_2 before image_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def images_in(folder: Path) -> dict[str, Path]:
    """Stem -> file of every image directly in `folder`; `DatasetError` if there is none."""
    found = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    if not found:
        raise DatasetError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {folder}")
    return found


def find_folder(root: Path, *names: str, depth: int = 2) -> Path | None:
    """The first folder with one of `names` (ignoring case), at most `depth` levels below `root`.

    Archives may unpack to ``a/a/files``: of nested folders of the same name, the inner one counts.
    """
    wanted = [name.lower() for name in names]
    level = [root]
    for _ in range(depth):
        level = [path for folder in level for path in _subfolders(folder)]
        for name in wanted:
            for path in level:
                if path.name.lower() == name:
                    inner = (below for below in _subfolders(path) if below.name.lower() == name)
                    return next(inner, path)
    return None


def folders_below(root: Path, depth: int) -> list[Path]:
    """`root` and every folder at most `depth` below it, level by level, in order of their names."""
    level = found = [root]
    for _ in range(depth):
        level = [path for folder in level for path in _subfolders(folder)]
        found = found + level
    return found


def _subfolders(folder: Path) -> list[Path]:
    """Subfolders by name; none if the folder cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def read_rgb(path: Path) -> np.ndarray:
    """Read an image as uint8 (Y, X, 3); grey becomes three equal channels, alpha is dropped.

    Grey of more than 8 bits is mapped to 0..255 as in prediction (`images.intake`).
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            _check_size(path, picture.size)
            if picture.mode.startswith(DEEP_MODES):
                return _eight_bits(np.asarray(picture), path)
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"cannot read the image {path}: {error}") from error


def _eight_bits(values: np.ndarray, path: Path) -> np.ndarray:
    try:
        source = RgbSource(understand(values, "YX"))
    except ImageError as error:
        raise DatasetError(f"cannot read the image {path}: {error}") from error
    everything = slice(None)
    return np.rint(source.read(0, everything, everything)).astype(np.uint8)


def read_labels(path: Path) -> np.ndarray:
    """Read a label file as an integer array (Y, X); TIFF may hold 32 bits."""
    from PIL import Image

    # On damaged files tifffile and its codecs raise many kinds of errors.
    broken = (
        *(OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError),
        *(RuntimeError, ArithmeticError, struct.error, Image.DecompressionBombError),
    )
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                _check_size(path, file.series[0].shape)
                labels = file.asarray()
        else:
            with Image.open(path) as picture:
                _check_size(path, picture.size)
                labels = np.asarray(picture)
    except broken as error:
        raise DatasetError(f"cannot read the labels {path}: {error}") from error
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise DatasetError(
            f"labels {path} have shape {labels.shape} and dtype {labels.dtype}; expected one "
            "channel of integers, (Y, X)"
        )
    return labels


def as_labels(array: np.ndarray, what: str) -> np.ndarray:
    """Convert a numeric array (Y, X) of whole numbers from 0 to int32; else `DatasetError`."""
    if array.ndim != 2:
        raise DatasetError(f"{what} has shape {array.shape}; expected (Y, X)")
    if array.size and not (np.isfinite(array).all() and array.min() >= 0 and array.max() < 2**31):
        raise DatasetError(f"{what} holds values outside 0 to {2**31 - 1}")
    labels = array.astype(LABEL_DTYPE)
    if array.dtype.kind == "f" and (labels != array).any():
        raise DatasetError(f"{what} holds fractions; expected whole numbers")
    return labels


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > MAX_PIXELS:
        raise DatasetError(
            f"{path} has {' x '.join(map(str, shape))} pixels; at most {MAX_PIXELS} are read: "
            "cut it into parts"
        )
