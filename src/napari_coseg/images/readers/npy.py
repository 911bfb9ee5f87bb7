"""numpy's own format; mapped into memory, never unpickled."""

from __future__ import annotations

import tokenize
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import guess_axes
from napari_coseg.images.readers.registry import stem_of

BROKEN = (
    *(OSError, ValueError, TypeError, EOFError, OverflowError, MemoryError, RecursionError),
    *(SyntaxError, tokenize.TokenError),
)
"""What numpy raises for headers that are none: it parses them as Python's literals."""


def read(path: Path) -> Image:
    """The array with axes guessed from its shape, as a read-only map of the file."""
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN as error:
        raise ImageError(f"{path} cannot be read as a numpy array: {error}") from error
    if not isinstance(data, np.ndarray):  # an archive, which numpy opens whatever its name
        data.close()
        raise ImageError(
            f"{path} holds several numpy arrays (.npz); save the one to be segmented by numpy.save"
        )
    return Image(data, guess_axes(data.shape), None, stem_of(path))
