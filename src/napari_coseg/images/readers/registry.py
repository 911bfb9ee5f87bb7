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
_DICOM = "napari_coseg.images.readers.dicom:read"

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
    ".mhd": _VOLUME,
    ".nrrd": _VOLUME,
    ".nhdr": _VOLUME,
    ".dcm": _DICOM,
    ".zip": _DICOM,
}
LONGER_ENDINGS = (".ome.tif", ".ome.tiff", ".nii.gz")
"""Double suffixes, which are removed from names as a whole."""


_AS_STORED = (_TIFF, _PICTURE)
"""Readers that convert colours, and can leave the stored values as they are."""


def read_image(
    path: str | Path,
    series: str | int | None = None,
    fill_gaps: bool = False,
    stored: bool = False,
) -> Image:
    """Open an image file, with the axes and pixel size that it gives.

    Large files are read lazily, window by window.

    Parameters
    ----------
    path
        A TIFF, OME-TIFF or SVS file, a PNG, JPEG or BMP picture, an ``.npy`` array, or a volume:
        NIfTI (``.nii``, ``.nii.gz``), MetaImage (``.mha``, ``.mhd``), NRRD (``.nrrd``, ``.nhdr``),
        or DICOM (a folder, one file of a series, or a zip archive).
    series
        DICOM alone: number (from 1, as the error lists them) or UID of the series, where there are
        several.
    fill_gaps
        DICOM alone: read a series with missing or doubled slices, which is otherwise refused.
        Missing slices have the smallest value of the volume, of doubled ones the first is kept, and
        both are noted.
    stored
        The values are labels: those of files where white is zero (as of a boolean mask that
        tifffile wrote) and those of palettes stay as stored, instead of becoming grey and colours.

    Returns
    -------
    Image
        Lazy pixels with axes, geometry and name.

    Raises
    ------
    SeriesChoiceError
        An `ImageError`: there are several series, and none is chosen.
    ImageError
        If the file is missing or broken, or its suffix is not known.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ImageError(f"there is no image file {path}")
    ending = next((e for e in READERS if path.name.lower().endswith(e)), None)
    place = _DICOM if path.is_dir() else READERS.get(ending or "")
    if place is None and is_dicom(path):  # often without a suffix
        place = _DICOM
    if place is None:
        raise ImageError(
            f"files ending in {path.suffix or 'nothing'!r} cannot be read ({path}); known are "
            f"{', '.join(READERS)}"
        )
    module, function = place.split(":")
    reader = getattr(importlib.import_module(module), function)
    if place == _DICOM:
        image: Image = reader(path, series, fill_gaps)
    else:
        image = reader(path, stored) if place in _AS_STORED else reader(path)
    return replace(image, path=path)


def is_dicom(path: Path) -> bool:
    """Whether the file is marked as DICOM; its name may have any suffix, or none."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


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
    """Name without its suffix; ``.ome.tif`` and ``.nii.gz`` count as one, folders have none."""
    if path.is_dir():
        return path.name
    longer = next((e for e in LONGER_ENDINGS if path.name.lower().endswith(e)), path.suffix)
    return path.name[: -len(longer)] if longer else path.name
