"""Read image and label files as arrays, and find files in dataset folders."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError, ImageError
from napari_coseg.core.types import LABEL_DTYPE, Image
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.readers.registry import read_image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_BROKEN = (
    *(ImageError, OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError),
    *(RuntimeError, ArithmeticError, struct.error),
)
"""Errors of Pillow, of tifffile and of its codecs on damaged files."""

MAX_PIXELS = 2**27
"""Largest image or label image, 11,585 x 11,585; checked before memory is allocated, since a small
file can claim any size."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Natural sort key: image_2 before image_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def images_in(folder: Path) -> dict[str, Path]:
    """Stem -> file of every image directly in `folder`.

    `DatasetError` if there is none, or two have the same stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in found:
            raise _two_of_a_name(found[path.stem], path)
        found[path.stem] = path
    if not found:
        raise DatasetError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in {folder}")
    return found


def image_named(folder: Path, stem: str) -> Path | None:
    """The image file in `folder` of this stem, whatever the case of its suffix; None without one.

    `DatasetError` if there are two.
    """
    names = (folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)
    found = [path for path in names if path.is_file()]
    if not found and folder.is_dir():
        found = [
            path
            for path in sorted(folder.iterdir())
            if path.stem == stem and path.suffix.lower() in IMAGE_SUFFIXES
        ]
    if len(found) > 1:
        raise _two_of_a_name(*found[:2])
    return found[0] if found else None


def _two_of_a_name(one: Path, other: Path) -> DatasetError:
    return DatasetError(f"{one} and {other} have the same name; remove or rename one of them")


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


def read_rgb(path: Path, *, without_alpha: bool = False) -> np.ndarray:
    """Read an image as uint8 (Y, X, 3), by the reader and the rules of prediction.

    Grey becomes three equal channels, deep values are mapped to 0..255, and what is transparent is
    white (`images.intake`); `without_alpha` takes the colours below, as masks need.
    """
    try:
        image = understand(_opened(path, "image", stored=False))
        if image.is_stack:
            raise ImageError(f"it has {image.spatial_shape[0]} slices; save one plane a file")
        if image.data.dtype == np.uint8 and not image.has_alpha and image.n_channels in (1, 3):
            return _three_channels(np.asarray(image.data), image.axes)
        source = RgbSource(image, (0, 1, 2) if without_alpha and image.has_alpha else None)
        everything = slice(None)
        return np.rint(source.read(0, everything, everything)).astype(np.uint8)
    except _BROKEN as error:
        raise DatasetError(f"cannot read the image {path}: {error}") from error


def _three_channels(values: np.ndarray, axes: str) -> np.ndarray:
    if "C" not in axes:
        values = values[..., None]
    elif axes.startswith("C"):
        values = np.moveaxis(values, 0, -1)
    return np.repeat(values, 3, axis=-1) if values.shape[-1] == 1 else values


def read_labels(path: Path) -> np.ndarray:
    """Read a label file as an integer array (Y, X), as stored; TIFF may hold 32 bits."""
    try:
        labels = np.asarray(_opened(path, "labels", stored=True).data)
    except _BROKEN as error:
        raise DatasetError(f"cannot read the labels {path}: {error}") from error
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise DatasetError(
            f"labels {path} have shape {labels.shape} and dtype {labels.dtype}; expected one "
            "channel of integers, (Y, X)"
        )
    return labels


def _opened(path: Path, what: str, stored: bool) -> Image:
    """Raises one of `_BROKEN`, and `DatasetError` for too many pixels."""
    if not path.is_file():
        raise DatasetError(f"cannot read the {what} {path}: there is no such file")
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        with tifffile.TiffFile(path) as file:
            _check_size(path, file.series[0].shape if file.series else ())
    else:
        import PIL.Image

        try:
            with PIL.Image.open(path) as picture:
                _check_size(path, picture.size)
        except PIL.Image.DecompressionBombError as error:
            raise DatasetError(f"cannot read the {what} {path}: {error}") from error
    return read_image(path, stored=stored)


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
