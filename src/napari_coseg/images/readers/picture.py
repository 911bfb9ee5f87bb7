"""Read PNG, JPEG and BMP files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.readers.registry import stem_of
from napari_coseg.images.readers.resolution import from_dots

if TYPE_CHECKING:
    import PIL.ImageFile

MICROMETRES_AN_INCH = 25_400.0
_GREY = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L"}


def read(path: Path, stored: bool = False) -> Image:
    """Read an image as (Y, X) or (Y, X, C); palettes and CMYK become RGB.

    `stored` keeps the numbers of a palette's colours, as labels need.
    The pixel size is that of the file's resolution, if finer than those of screens and printers.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on; only its error at twice as many matters.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as picture:
                dots = picture.info.get("dpi")
                data = _deep_colours(path, picture)
                if data is None:
                    keep = stored and picture.mode == "P"
                    data = np.asarray(picture if keep else picture.convert(_mode(picture)))
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} claims too many pixels for this format ({error}); convert it to a tiled TIFF, "
            "which is read window by window"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageError(f"{path} cannot be read as a picture: {error}") from error
    size = from_dots(dots[1], dots[0], MICROMETRES_AN_INCH) if dots else None
    axes = "YX" if data.ndim == 2 else "YXC"
    return Image(data, axes, size, stem_of(path), alpha=data.ndim == 3 and data.shape[-1] == 4)


def _deep_colours(path: Path, picture: PIL.ImageFile.ImageFile) -> np.ndarray | None:
    """Colours of a PNG of 16 bits, whose low bytes Pillow drops; None for other pictures.

    Pillow decodes a channel's two bytes by taking the first of them; named as little-endian, it
    takes the second.
    """
    import PIL.Image

    tiles = getattr(picture, "tile", None)
    high = tiles[0][3] if tiles else None
    if picture.format != "PNG" or high not in ("RGB;16B", "RGBA;16B"):
        return None
    colours = np.asarray(picture).astype(np.uint16) << 8
    with PIL.Image.open(path) as again:
        again.tile = [(*again.tile[0][:3], str(high).replace("16B", "16L"))]  # type: ignore[list-item]
        colours |= np.asarray(again)
    clear = picture.info.get("transparency")
    if colours.shape[-1] == 4 or not isinstance(clear, tuple):
        return colours
    opaque = np.where((colours == clear).all(axis=-1), 0, 65535).astype(np.uint16)
    return np.dstack([colours, opaque])


def _mode(picture: object) -> str:
    mode: str = getattr(picture, "mode", "RGB")
    if mode in _GREY:
        return mode
    has_alpha = mode in ("RGBA", "LA", "PA", "La", "RGBa")
    return "RGBA" if has_alpha or "transparency" in getattr(picture, "info", {}) else "RGB"
