"""What the values of a TIFF page mean as colours (TIFF 6.0, PhotometricInterpretation)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError

if TYPE_CHECKING:
    import tifffile

_REFUSED = {"SEPARATED", "CIELAB", "ICCLAB", "ITULAB", "CFA", "LOGLUV"}
_KEEP_YCBCR = {"NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD"}
"""Compressions whose codecs leave YCbCr as it is; those of JPEG's kind give red, green, blue."""


@dataclass(frozen=True)
class Conversion:
    """How stored values become grey, or red, green, blue along a new last axis."""

    of_block: Callable[[np.ndarray], np.ndarray]
    adds_axis: bool = False

    def __call__(self, data: Any) -> Any:
        """A numpy array at once; a dask array window by window, when it is read."""
        if isinstance(data, np.ndarray):
            return self.of_block(data)
        if not self.adds_axis:
            return data.map_blocks(self.of_block, dtype=data.dtype)
        chunks = (*data.chunks, (3,))
        return data.map_blocks(self.of_block, dtype=np.uint8, chunks=chunks, new_axis=data.ndim)


def conversion_of(file: tifffile.TiffFile, page: tifffile.TiffPage, axes: str) -> Conversion | None:
    """What makes stored values grey or red, green, blue; None where they are that already.

    ImageJ and OME keep values to be measured, and tables of colours only to show them by: their
    values stay, as do those of a file with an axis of channels.

    Parameters
    ----------
    page
        One that stands for all pages of the series.
    axes
        Our letters of the array.

    Raises
    ------
    ImageError
        Where colours are stored in a way that is not understood.
    """
    kind = _name(page.photometric)
    plain_ycbcr = kind == "YCBCR" and _name(page.compression) in _KEEP_YCBCR
    if kind in _REFUSED or plain_ycbcr:
        raise _not_understood(file, f"colours as {kind}")
    if kind not in ("PALETTE", "MINISWHITE") or file.is_imagej or file.is_ome or "C" in axes:
        return None
    dtype = np.dtype(page.dtype)
    if dtype.kind not in "ub":
        raise _not_understood(file, f"{dtype} as {kind}")
    if kind == "MINISWHITE":
        largest = dtype.type(2**page.bitspersample - 1)
        return Conversion(lambda values: np.bitwise_xor(values, largest))
    colors = np.asarray(page.colormap)
    if colors.shape != (3, 2**page.bitspersample):
        raise _not_understood(file, f"a palette of shape {colors.shape}")
    table = (colors if colors.max() < 256 else colors >> 8).astype(np.uint8).T
    index = np.uint8 if dtype.kind == "b" else dtype  # bool would choose rows instead
    return Conversion(lambda values: table[values.astype(index, copy=False)], adds_axis=True)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def _not_understood(file: tifffile.TiffFile, what: str) -> ImageError:
    return ImageError(
        f"{file.filehandle.path} holds {what}, which is not read; open it in another program and "
        "save it as RGB"
    )
