"""numpy's own format; mapped into memory, never unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_coseg.errors import ImageError
from napari_coseg.intake import guess_axes
from napari_coseg.readers.registry import stem_of
from napari_coseg.types import Image


def read(path: Path) -> Image:
    """The array with axes guessed from its shape, as a read-only map of the file."""
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ImageError(f"{path} cannot be read as a numpy array: {error}") from error
    return Image(data, guess_axes(data.shape), None, stem_of(path))
