"""Read volumes (NIfTI, MetaImage, NRRD) in upright orientation with their measured values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError, ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.readers.registry import stem_of
from napari_coseg.images.volumes import planes, read_header, upright


def read(path: Path) -> Image:
    """Read a stack (Z, Y, X) towards head, back and left, with its geometry in mm.

    Values are those of the file, float32 with its slope and intercept: Hounsfield units for CT, of
    which `napari-coseg segment --window` takes a range.

    Raises
    ------
    ImageError
        If the file is damaged or its format is not supported.
    """
    try:
        header = read_header(path)
        kind = np.dtype(np.float32) if header.is_scaled else header.dtype.newbyteorder("=")
        volume = np.empty(header.shape, kind)
        for index, plane in enumerate(planes(header)):
            volume[index] = plane
    except DatasetError as error:  # the reader is shared with datasets
        raise ImageError(str(error)) from error
    turned, geometry = upright(volume, header.geometry)
    return Image(turned, "ZYX", name=stem_of(path), geometry=geometry)
