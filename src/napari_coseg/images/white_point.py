"""Normalise the white point of H&E images: glass becomes the same white in every image.

Scanners and microscopes differ in exposure and in the colour of their light. Each channel is
scaled by a factor that brings its 99.5th percentile to 245.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from napari_coseg.images.sampling import sample_blocks

WHITE = 245.0
"""Target intensity of glass, of 0..255."""
PERCENTILE = 99.5
LEAST_WHITE = 61.0
"""Images with a darker white in any channel show no glass (fluorescence) and are unchanged."""
WHOLE_UP_TO_PX = 2**22
"""Larger images are sampled in blocks."""

White = tuple[float, float, float]


class RgbReader(Protocol):
    """The part of `napari_coseg.images.intake.RgbSource` that measuring needs."""

    @property
    def n_slices(self) -> int: ...

    @property
    def plane_shape(self) -> tuple[int, int]: ...

    def read(self, z: int, rows: slice, columns: slice) -> np.ndarray: ...


def white_of(rgb: np.ndarray) -> White | None:
    """White point of (..., 3) values of 0..255; None if a channel is below `LEAST_WHITE`."""
    red, green, blue = np.percentile(rgb.reshape(-1, 3), PERCENTILE, axis=0).tolist()
    return (red, green, blue) if min(red, green, blue) >= LEAST_WHITE else None


def measure_white(source: RgbReader) -> White | None:
    """White point of a whole image or stack, as by `white_of`."""
    blocks = [source.read(*place).reshape(-1, 3) for place in _places(source)]
    return white_of(np.concatenate(blocks))


def whitened(rgb: np.ndarray, white: White) -> np.ndarray:
    """float32 (..., 3) of 0..255 with `white` brought to `WHITE`."""
    gains = (WHITE / np.asarray(white)).astype(np.float32)
    return np.minimum(rgb * gains, np.float32(255))


def whitened_image(image: np.ndarray) -> np.ndarray:
    """Normalise uint8 (Y, X, 3) by its own white point; unchanged if it has none."""
    white = white_of(image)
    return image if white is None else np.rint(whitened(image, white)).astype(np.uint8)


def _places(source: RgbReader) -> Iterator[tuple[int, slice, slice]]:
    height, width = source.plane_shape
    if source.n_slices * height * width <= WHOLE_UP_TO_PX:
        for z in range(source.n_slices):
            yield z, slice(0, height), slice(0, width)
        return
    yield from sample_blocks(source.n_slices, source.plane_shape)
