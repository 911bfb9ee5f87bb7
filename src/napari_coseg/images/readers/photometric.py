"""Convert stored TIFF values to grey or RGB (TIFF 6.0, PhotometricInterpretation)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image

if TYPE_CHECKING:
    import tifffile

_REFUSED = {"SEPARATED", "CIELAB", "ICCLAB", "ITULAB", "CFA", "LOGLUV"}
_KEEP_YCBCR = {"NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD"}
"""Compressions whose codecs keep YCbCr; JPEG codecs return RGB."""


@dataclass(frozen=True)
class Conversion:
    """Converts stored values to grey, or to RGB along a new last axis."""

    of_block: Callable[[np.ndarray], np.ndarray]
    adds_axis: bool = False

    def __call__(self, data: Any) -> Any:
        """Convert a numpy array at once, a dask array lazily."""
        if isinstance(data, np.ndarray):
            return self.of_block(data)
        if not self.adds_axis:
            return data.map_blocks(self.of_block, dtype=data.dtype)
        chunks = (*data.chunks, (3,))
        return data.map_blocks(self.of_block, dtype=np.uint8, chunks=chunks, new_axis=data.ndim)


def conversion_of(file: tifffile.TiffFile, page: tifffile.TiffPage, axes: str) -> Conversion | None:
    """The conversion of stored values to grey or RGB; None if none is needed.

    ImageJ and OME store measured values, with colour tables for display only: their values stay, as
    do those of a file with a channel axis.

    Parameters
    ----------
    page
        Any page of the series; all are alike.
    axes
        Axes of the array.

    Raises
    ------
    ImageError
        If the colour storage is not supported.
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


def has_alpha(page: tifffile.TiffPage) -> bool:
    """Whether the file calls the fourth sample of its colours alpha (ExtraSamples 1 or 2)."""
    extra = [int(one) for one in page.extrasamples]
    return _name(page.photometric) in ("RGB", "YCBCR") and len(extra) == 1 and extra[0] in (1, 2)


def stains_first(image: Image) -> Image:
    """An image of four channels in the last axis, none of them alpha, with its channels first.

    Channels that lie last are taken for colours by viewers.
    """
    if not image.axes.endswith("C") or image.n_channels != 4 or image.has_alpha:
        return image
    axes = "CYX" if image.axes == "YXC" else "ZCYX"
    data = image.data
    if not isinstance(data, np.ndarray):
        import dask.array

        data = dask.array.asarray(data)
    return replace(image, data=np.moveaxis(data, -1, -3), axes=axes)


def _name(value: Any) -> str:
    return str(getattr(value, "name", value))


def _not_understood(file: tifffile.TiffFile, what: str) -> ImageError:
    return ImageError(
        f"{file.filehandle.path} holds {what}, which is not read; open it in another program and "
        "save it as RGB"
    )
