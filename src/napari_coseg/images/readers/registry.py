"""Image readers by suffix. To add a format, write ``readers/<name>.py`` and add its suffixes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import understand

_TIFF = "napari_coseg.images.readers.tiff:read"
_PICTURE = "napari_coseg.images.readers.picture:read"
_VOLUME = "napari_coseg.images.readers.volume:read"

READERS: dict[str, str] = {
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".svs": _TIFF,
    ".png": _PICTURE,
    ".jpg": _PICTURE,
    ".jpeg": _PICTURE,
    ".bmp": _PICTURE,
    ".npy": "napari_coseg.images.readers.npy:read",
    ".mha": _VOLUME,
    ".nii": _VOLUME,
    ".nii.gz": _VOLUME,
}
LONGER_ENDINGS = (".ome.tif", ".ome.tiff", ".nii.gz")
"""Double suffixes, which are removed from names as a whole."""


def read_image(path: str | Path) -> Image:
    """Open an image file, with the axes and pixel size that it gives.

    Large files are read lazily, window by window.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF or SVS file, a PNG, JPEG or BMP picture, an ``.npy`` array, or a volume
        (``.mha``; ``.nii`` and ``.nii.gz`` with the extra ``volumes``).

    Returns
    -------
    Image
        Lazy pixels with axes, geometry and name.

    Raises
    ------
    ImageError
        If the file is missing or broken, or its suffix is not known.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ImageError(f"there is no image file {path}")
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give the path of an image file")
    ending = next((e for e in READERS if path.name.lower().endswith(e)), None)
    place = READERS.get(ending or "")
    if place is None:
        raise ImageError(
            f"files ending in {path.suffix or 'nothing'!r} cannot be read ({path}); known are "
            f"{', '.join(READERS)}"
        )
    module, function = place.split(":")
    image: Image = getattr(importlib.import_module(module), function)(path)
    return replace(image, path=path)


def as_image(
    image: Any,
    axes: str | None = None,
    pixel_size_um: float | Sequence[float] | None = None,
) -> Image:
    """Turn an array, an `Image` or the path of an image file into an `Image` of known axes.

    Parameters
    ----------
    image
        numpy, dask or zarr array, nested list, `Image`, or path.
    axes, pixel_size_um
        Override the guess or the file (`napari_coseg.images.intake.understand`).

    Raises
    ------
    ImageError
        If the file cannot be read, or the array is not an image.
    """
    if isinstance(image, (str, Path)):
        image = read_image(image)
    return understand(image, axes, pixel_size_um)


def stem_of(path: Path) -> str:
    """File name without its suffix; ``.ome.tif`` and ``.nii.gz`` count as one."""
    longer = next((e for e in LONGER_ENDINGS if path.name.lower().endswith(e)), path.suffix)
    return path.name[: -len(longer)] if longer else path.name
