"""Determine the axes of an image, and read its pixels as RGB of 0..255.

Axes that are not named are guessed: two are ``YX``; three are ``YXC`` if the last has 3 or 4
entries, else ``ZYX``; four are ``ZYXC`` if the last has 3 or 4 entries. Channel-first axes
(``CYX``, ``ZCYX``) are never guessed.

Intensities are mapped by the rules of `images.intensity`. Grey becomes three equal channels;
alpha is composited on white. The fourth channel is alpha where the file calls it so, and in an
array of unnamed axes or with channels last; other images of four channels have channels to choose
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image
from napari_coseg.images.intensity import Intensity, measure_intensity
from napari_coseg.images.white_point import measure_white, whitened


def understand(
    image: Any,
    axes: str | None = None,
    pixel_size_um: float | Sequence[float] | None = None,
    name: str | None = None,
) -> Image:
    """Name the axes of an array and check that it can be segmented.

    Axes that are not named are guessed by the rules of this module.

    Parameters
    ----------
    image
        numpy, dask or zarr array, nested list, or `Image`.
    axes
        One of the axes of `Image`; overrides the guess.
    pixel_size_um
        Micrometres: one number for all spatial axes, or one per axis in the order (z,) y, x.
    name
        Shown to the user and used for the names of outputs.

    Returns
    -------
    Image
        The same data, neither copied nor read.

    Raises
    ------
    ImageError
        For empty arrays, values that are not real numbers, and shapes that no rule covers.
    """
    known = image if isinstance(image, Image) else None
    data = known.data if known else image
    if not hasattr(data, "shape") or not hasattr(data, "dtype"):
        data = _as_array(data)
    _check_values(data)
    axes = axes.upper() if axes else (known.axes if known else guess_axes(data.shape))
    spatial, geometry = axes.replace("C", ""), None
    if known is not None:
        same_axes = known.spatial_axes == spatial
        source = replace(known.geometry.source, axes=(), flipped=())
        geometry = known.geometry if same_axes else Geometry.unknown(len(spatial), source)
    size = None if pixel_size_um is None else _per_axis(pixel_size_um, len(spatial))
    name = name or (known.name if known else "image")
    path = known.path if known else None
    alpha = known.alpha if known else None
    return Image(data, axes, size, name, geometry=geometry, path=path, alpha=alpha)


def guess_axes(shape: Sequence[int]) -> str:
    """Guess the axes of an array by the rules of this module."""
    coloured = len(shape) > 2 and shape[-1] in (3, 4)
    guesses = {2: "YX", 3: "YXC" if coloured else "ZYX"} | ({4: "ZYXC"} if coloured else {})
    if len(shape) not in guesses:
        raise ImageError(
            f"an image of shape {tuple(shape)} is ambiguous or not supported; expected "
            "(Y, X), (Y, X, 3 or 4), (Z, Y, X) or (Z, Y, X, 3 or 4); choose one plane, or name the "
            "axes, for example axes='ZCYX'"
        )
    return guesses[len(shape)]


def crop(image: Image, region: Sequence[tuple[int, int] | slice]) -> tuple[Image, tuple[int, ...]]:
    """Crop `image` to half-open bounds; also returns the start along the spatial axes.

    `region` bounds y and x, or all spatial axes. Nothing is read or copied.
    """
    shape = image.spatial_shape
    bounds = [(part.start, part.stop) if isinstance(part, slice) else part for part in region]
    if len(bounds) not in (2, len(shape)):
        raise ImageError(
            f"a region has bounds for y and x or for all of {image.spatial_axes}; got {len(bounds)}"
        )
    bounds = [(0, n) for n in shape[: len(shape) - len(bounds)]] + bounds
    cuts: dict[str, slice] = {}
    for axis, length, (start, stop) in zip(image.spatial_axes, shape, bounds, strict=True):
        first, last = int(start or 0), int(length if stop is None else stop)
        if not 0 <= first < last <= length:
            raise ImageError(
                f"region {first}..{last} along {axis} is empty or extends beyond the image "
                f"of {length} pixels"
            )
        cuts[axis] = slice(first, last)
    offset = tuple(cuts[axis].start for axis in image.spatial_axes)
    index = tuple(cuts.get(axis, slice(None)) for axis in image.axes)
    geometry = image.geometry.crop(offset)
    return replace(image, data=_Cut(image.data, index), geometry=geometry), offset


class RgbSource:
    """Reads windows of an image as float32 (Y, X, 3) of 0..255, without a cache.

    Parameters
    ----------
    image
        As `understand` returns it.
    channels
        The channels to use as red, green and blue, or the one to use as grey. None takes all of an
        image of one or three channels, or of colours with alpha.
    intensity
        None measures the image by `measure_intensity`.
    stretch, window
        As for `measure_intensity`; ignored if `intensity` is given.
    white_point
        Normalise the white point of a colour image; ignored if `intensity` is given.
    """

    def __init__(
        self,
        image: Image,
        channels: int | Sequence[int] | None = None,
        intensity: Intensity | None = None,
        stretch: bool = False,
        window: Sequence[float] | None = None,
        white_point: bool = False,
    ) -> None:
        self.image, self.window = image, window
        self.channels, self.has_alpha = _choose_channels(image, channels)
        self.intensity = intensity or measure_intensity(self, stretch, window)
        if white_point and intensity is None and len(self.channels) == 3:
            self.intensity = self._with_white()

    def _with_white(self) -> Intensity:
        white = measure_white(self)
        words = "none found" if white is None else ", ".join(f"{value:.0f}" for value in white)
        rule = f"{self.intensity.rule}; white point {words}"
        return replace(self.intensity, white=white, rule=rule)

    @property
    def n_slices(self) -> int:
        return self.image.spatial_shape[0] if self.image.is_stack else 1

    @property
    def plane_shape(self) -> tuple[int, int]:
        y, x = self.image.spatial_shape[-2:]
        return y, x

    def raw(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Stored values (Y, X, C) of the chosen channels, with alpha last, if any."""
        where: dict[str, Any] = {"Z": z, "Y": rows, "X": columns, "C": slice(None)}
        block = np.asarray(self.image.data[tuple(where[axis] for axis in self.image.axes)])
        if "C" not in self.image.axes:
            return block[..., None]
        if self.image.axes in ("CYX", "ZCYX"):
            block = np.moveaxis(block, 0, -1)
        wanted = [*self.channels, 3] if self.has_alpha else self.channels
        return block if wanted == list(range(block.shape[-1])) else block[..., wanted]

    def read(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        block = self.raw(z, rows, columns)
        rgb = self.intensity.apply(block[..., :3])
        if rgb.shape[-1] == 1:
            return np.repeat(rgb, 3, axis=-1)
        if self.has_alpha:
            alpha = np.clip(block[..., 3:].astype(np.float32) / self.intensity.alpha, 0, 1)
            alpha = np.nan_to_num(alpha, copy=False)
            rgb = rgb * alpha + 255 * (1 - alpha)
        white = self.intensity.white
        return rgb if white is None else whitened(rgb, white)


def _choose_channels(image: Image, channels: int | Sequence[int] | None) -> tuple[list[int], bool]:
    if "C" not in image.axes:
        if channels not in (None, 0, [0], (0,)):
            raise ImageError(f"channels {channels!r} were asked for, but {image.axes} has none")
        return [0], False
    count = image.n_channels
    if channels is None:
        if count not in (1, 3) and not image.has_alpha:
            raise ImageError(
                f"the image has {count} channels; choose those to use as red, green and blue, or "
                "the one to use as grey, for example channels=(0, 1, 2) or channels=0"
            )
        return list(range(min(count, 3))), image.has_alpha
    chosen = [int(channels)] if isinstance(channels, int) else [int(c) for c in channels]
    if len(chosen) not in (1, 3) or not all(0 <= c < count for c in chosen):
        raise ImageError(
            f"channels {chosen} do not fit: expected one or three numbers of 0 to {count - 1}"
        )
    return chosen, False


def _as_array(data: Any) -> np.ndarray:
    try:
        return np.asarray(data)
    except (ValueError, TypeError) as error:
        raise ImageError(f"this is not an image: {error}") from error


def _check_values(data: Any) -> None:
    dtype = np.dtype(data.dtype)
    if dtype.kind not in "buif":
        raise ImageError(
            f"values of type {dtype} are not supported; expected whole or real numbers"
        )
    if 0 in data.shape or not data.shape:
        raise ImageError(f"the image is empty: its shape is {tuple(data.shape)}")


def _per_axis(size: float | Sequence[float], count: int) -> tuple[float, ...]:
    numbers = np.atleast_1d(np.asarray(size, dtype=float))
    if numbers.size == 1:
        numbers = np.repeat(numbers, count)
    return tuple(float(n) for n in numbers)


class _Cut:
    """A lazy window of an array, indexed in coordinates of the whole array."""

    def __init__(self, data: Any, window: tuple[slice, ...]) -> None:
        self._data, self._window = data, window
        self.dtype = data.dtype
        self.shape = tuple(
            part.indices(int(n))[1] - part.indices(int(n))[0]
            for part, n in zip(window, data.shape, strict=True)
        )

    def __getitem__(self, index: tuple[Any, ...]) -> np.ndarray:
        moved = []
        for part, window, length in zip(index, self._window, self.shape, strict=True):
            first = window.start or 0
            if isinstance(part, slice):
                start, stop, _ = part.indices(length)
                moved.append(slice(first + start, first + stop))
            else:
                moved.append(first + part)
        return np.asarray(self._data[tuple(moved)])
