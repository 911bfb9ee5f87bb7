"""Read numpy files, memory-mapped and never unpickled."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import guess_axes
from napari_coseg.images.readers.photometric import stains_first
from napari_coseg.images.readers.registry import stem_of

BROKEN = (
    *(OSError, ValueError, TypeError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, tokenize.TokenError),
)
"""Errors of numpy on invalid headers, which it parses as Python literals."""


def read(path: Path) -> Image:
    """Open the array as a read-only memory map; axes are guessed from its shape.

    Nothing in such a file says that a fourth channel is alpha.
    """
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN as error:
        raise ImageError(f"{path} cannot be read as a numpy array: {error}") from error
    if not isinstance(data, np.ndarray):  # numpy opens archives whatever their name
        data.close()
        raise ImageError(
            f"{path} holds several numpy arrays (.npz); save the one to segment with numpy.save"
        )
    return stains_first(Image(data, guess_axes(data.shape), None, stem_of(path), alpha=False))
