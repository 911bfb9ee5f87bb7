"""Map the values of an image linearly to 0..255.

The rule is chosen once, from the values of the whole image:

=====================================  ============================================================
values                                 rule
=====================================  ============================================================
bool                                   0 and 255
uint8, other integers within 0..255    as they are
other integers from 0 to 65,535        the full range of the fewest bits (10, 12, 14, 16) that hold
                                       the largest value: 4,095 becomes 255 in a 12-bit image
floats within 0..1                     times 255
floats within 0..255                   as they are
anything else (negative, larger)       stretched from the 0.1st to the 99.9th percentile
=====================================  ============================================================

A given window, such as -1000 to 3000 Hounsfield units, takes precedence: its ends become 0 and
255, and values beyond are clipped. Only a window gives a CT value the same grey in every volume;
the last rule depends on the rest of the image.

NaN and minus infinity count as the smallest finite value, infinity as the largest.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.windows import window_name
from napari_coseg.images.sampling import sample_blocks
from napari_coseg.images.white_point import White

if TYPE_CHECKING:
    from napari_coseg.core.types import Image

BIT_DEPTHS = (8, 10, 12, 14, 16)
STRETCH_PERCENTILES = (0.1, 99.9)
SCAN_LIMIT = 2**27
"""Largest number of values of a lazy array that is scanned whole; larger ones are sampled."""
CHUNK = 2**22
"""Approximate number of values that are processed at once."""


@dataclass(frozen=True)
class Intensity:
    """One linear map for the whole image: `low` becomes 0 and `high` becomes 255.

    `smallest` and `largest` stand in for values that are not finite; `alpha` is the value of an
    opaque fourth channel; `rule` describes the map. Where `white` is not None, colours
    are whitened afterwards (`napari_coseg.images.white_point`).
    """

    low: float
    high: float
    smallest: float
    largest: float
    rule: str
    alpha: float = 1.0
    white: White | None = None

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Any real dtype -> float32 of 0..255."""
        if self.low == 0 and self.high == 255 and values.dtype == np.uint8:
            return values.astype(np.float32)
        kind = np.float64 if values.dtype.itemsize > 2 else np.float32
        work: np.ndarray = values.astype(kind)
        if values.dtype.kind == "f":
            np.nan_to_num(
                work, copy=False, nan=self.smallest, neginf=self.smallest, posinf=self.largest
            )
        np.subtract(work, self.low, out=work)
        np.multiply(work, 255 / (self.high - self.low), out=work)
        return np.clip(work, 0, 255, out=work).astype(np.float32)


class PixelSource(Protocol):
    """The part of `napari_coseg.images.intake.RgbSource` that measuring needs."""

    image: Image
    has_alpha: bool

    @property
    def n_slices(self) -> int: ...

    @property
    def plane_shape(self) -> tuple[int, int]: ...

    def raw(self, z: int, rows: slice, columns: slice) -> np.ndarray: ...


def window_rule(window: Sequence[float], opaque: float = 1.0) -> Intensity:
    """The map of `window` to 0..255; `opaque` as `Intensity.alpha`.

    Raises
    ------
    ImageError
        If the window is not two finite numbers, the lower one first.
    """
    if len(window) != 2 or not np.isfinite(window).all() or not window[0] < window[1]:
        raise ImageError(
            f"the window {', '.join(f'{value:g}' for value in window)} is not a range of values; "
            "give two numbers, the lower end first"
        )
    low, high = (float(value) for value in window)
    name = window_name((low, high))
    rule = f"window from {low:g} to {high:g}" + (f" ({name})" if name else "")
    return Intensity(low, high, low, high, rule, opaque)


def measure_intensity(
    source: PixelSource, stretch: bool = False, window: Sequence[float] | None = None
) -> Intensity:
    """Choose a rule of this module's table from the values of the whole image.

    Parameters
    ----------
    stretch
        Always take the last rule, except for booleans.
    window
        Values that become 0 and 255; the image is not measured.
    """
    dtype = np.dtype(source.image.data.dtype)
    opaque = _opaque(dtype)
    if window is not None:
        return window_rule(window, opaque)
    if dtype == np.bool_:
        return Intensity(0, 1, 0, 1, "bool: 0 and 255", opaque)
    if dtype == np.uint8 and not stretch:
        return Intensity(0, 255, 0, 255, "8 bits, as they are", opaque)
    values = _Range(source)
    low, high, rule = _stretched(values) if stretch else _linear_rule(values, dtype.kind == "f")
    if values.sampled:
        rule += " (judged from a sample)"
    if values.not_finite:
        rule += f"; {values.not_finite} values that are not finite were replaced"
        warnings.warn(
            f"{source.image.name}: {values.not_finite} values are not finite; NaN counts "
            "as the smallest value of the image",
            stacklevel=2,
        )
    alpha = opaque if values.alpha is None else _alpha_range(values.alpha, dtype)
    return Intensity(low, high, values.smallest, values.largest, rule, alpha)


def _linear_rule(values: _Range, floating: bool) -> tuple[float, float, str]:
    small, large = values.smallest, values.largest
    if small >= 0 and floating and large <= 1.001:
        return 0.0, 1.0, "floats of 0..1, times 255"
    if small >= 0 and floating and large <= 255.5:
        return 0.0, 255.0, "floats of 0..255, as they are"
    if small >= 0 and not floating and large < 2 ** BIT_DEPTHS[-1]:
        bits = next(bits for bits in BIT_DEPTHS if large < 2**bits)
        return 0.0, float(2**bits - 1), f"{bits} bits of integers, full range"
    return _stretched(values)


def _stretched(values: _Range) -> tuple[float, float, str]:
    small, large = values.smallest, values.largest
    if not np.isfinite(large - small):
        raise ImageError(
            f"values from {small:g} to {large:g} span too large a range; rescale the image"
        )
    low, high = values.percentiles()
    if high <= low:
        high = low + max(1.0, abs(low))
    return low, high, f"stretched from {low:g} to {high:g} (percentiles {STRETCH_PERCENTILES})"


class _Range:
    """Smallest and largest finite value of the colours, how many are not finite, largest alpha."""

    def __init__(self, source: PixelSource) -> None:
        data = source.image.data
        whole = isinstance(data, np.ndarray) or _n_values(data.shape) <= SCAN_LIMIT
        self.sampled = not whole
        self.smallest, self.largest, self.not_finite = np.inf, -np.inf, 0
        self.alpha: float | None = None
        self._kept: list[np.ndarray] = []
        blocks = list(
            _scan_blocks(source) if whole else sample_blocks(source.n_slices, source.plane_shape)
        )
        every = max(1, -(-min(_n_values(data.shape), CHUNK * len(blocks)) // 2**20))
        for z, rows, columns in blocks:
            self._look_at(source.raw(z, rows, columns), source.has_alpha, every)
        if not np.isfinite(self.smallest):
            raise ImageError("the image has no finite value; check the file")

    def _look_at(self, block: np.ndarray, has_alpha: bool, every: int) -> None:
        if has_alpha:
            finite = np.nan_to_num(block[..., 3], posinf=0, neginf=0)
            self.alpha = max(self.alpha or 0.0, float(finite.max()))
            block = block[..., :3]
        for channel in np.moveaxis(block, -1, 0):  # a stride across all blocks would miss some
            self._look_at_channel(channel.ravel(), every)

    def _look_at_channel(self, values: np.ndarray, every: int) -> None:
        finite = values
        if values.dtype.kind == "f":
            finite = values[np.isfinite(values)]
            self.not_finite += values.size - finite.size
        if finite.size:
            self.smallest = min(self.smallest, float(finite.min()))
            self.largest = max(self.largest, float(finite.max()))
            self._kept.append(finite[::every].astype(np.float64))

    def percentiles(self) -> tuple[float, float]:
        low, high = np.percentile(np.concatenate(self._kept), STRETCH_PERCENTILES)
        return float(low), float(high)


def _scan_blocks(source: PixelSource) -> Iterator[tuple[int, slice, slice]]:
    height, width = source.plane_shape
    step = max(1, CHUNK // max(1, width))
    for z, y in itertools.product(range(source.n_slices), range(0, height, step)):
        yield z, slice(y, min(y + step, height)), slice(0, width)


def _opaque(dtype: np.dtype) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0


def _alpha_range(largest: float, dtype: np.dtype) -> float:
    """Alpha of an opaque pixel: 1 or 255 for floats, the full bit depth for integers."""
    steps = (1.0, 255.0) if dtype.kind == "f" else (255.0, 4095.0, 65535.0)
    return next((step for step in steps if largest <= step), max(1.0, largest))


def _n_values(shape: Sequence[int]) -> int:
    return int(np.prod([int(n) for n in shape], dtype=np.int64))
