"""Stain amounts or channel intensities of objects: mean and standard deviation.

Stains are separated by colour deconvolution (Ruifrok and Johnston 2001) with scikit-image, of the
image's red, green and blue by the rule of `images.intensity`. Amounts are optical densities, to
base 10. Only two stains are fitted; the residual is not a third stain. Channels are measured as
stored.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.labels.measure.windows import Window, add_by_owner

STAINS = {"he": ("hematoxylin", "eosin"), "hdab": ("hematoxylin", "dab")}
"""The stains of each choice."""
CHANNELS = "channels"
DARKEST = 1 / 255
"""Lower limit of light: black, without an optical density, counts as one grey level of 255."""
_UNIT = 6.0
"""scikit-image gives amounts in units of the logarithm of 1e-6."""


class Intensities:
    """Mean and standard deviation of stains or channels, by object.

    Parameters
    ----------
    image
        On the grid of the labels; read window by window.
    measured
        A key of `STAINS`, or `CHANNELS`.
    count
        Number of objects.

    Raises
    ------
    ImageError
        Where stains are to be measured of an image without colours.
    """

    def __init__(self, image: Image, measured: str, count: int) -> None:
        self._image, self._stains = image, STAINS.get(measured)
        if self._stains and not has_colours(image):
            raise ImageError(
                f"stains are separated by colour, and {image.name!r} has axes {image.axes} of "
                f"shape {tuple(image.data.shape)}; expected red, green, blue: measure its channels"
            )
        self.names = [f"{n}_od" for n in self._stains] if self._stains else _channel_names(image)
        self._pixels = np.zeros(count)
        self._means = np.zeros((len(self.names), count))
        self._squares = np.zeros((len(self.names), count))

    def add(self, window: Window) -> None:
        """Add the window's means and squared deviations to those so far (Chan et al. 1979)."""
        owners = window.owners
        if not owners.size:
            return
        values = self._read(window)
        low, high = int(owners.min()), int(owners.max()) + 1
        number = owners - low
        pixels = np.bincount(number, minlength=high - low).astype(float)
        before = self._pixels[low:high].copy()
        total = np.maximum(before + pixels, 1)
        for channel, value in enumerate(values):
            sums, squares = np.zeros((1, len(pixels))), np.zeros((1, len(pixels)))
            add_by_owner(sums, number, value)
            mean = sums[0] / np.maximum(pixels, 1)
            add_by_owner(squares, number, (value - mean[number]) ** 2)
            apart = np.where(pixels > 0, mean - self._means[channel, low:high], 0)
            self._means[channel, low:high] += apart * pixels / total
            self._squares[channel, low:high] += squares[0] + apart**2 * before * pixels / total
        self._pixels[low:high] += pixels

    def columns(self) -> dict[str, np.ndarray]:
        """``<name>_mean`` and ``<name>_std`` of each stain or channel."""
        found = {}
        for name, mean, squares in zip(self.names, self._means, self._squares, strict=True):
            found[f"{name}_mean"] = mean
            found[f"{name}_std"] = np.sqrt(squares / np.maximum(self._pixels, 1))
        return found

    def _read(self, window: Window) -> list[np.ndarray]:
        """(n,) float64 of each stain or channel at the pixels of objects."""
        if self._stains:
            rgb = self._rgb.read(window.z, window.rows, window.columns)[window.inside]
            return list(optical_densities(rgb, self._stains).T)
        where: dict[str, Any] = {
            "Z": window.z,
            "Y": window.rows,
            "X": window.columns,
            "C": slice(None),
        }
        axes = self._image.axes
        block = np.asarray(self._image.data[tuple(where[axis] for axis in axes)])
        if "C" not in axes:
            return [block[window.inside].astype(float)]
        planes = np.moveaxis(block, -1, 0) if axes.endswith("C") else block
        return [plane[window.inside].astype(float) for plane in planes]

    @cached_property
    def _rgb(self) -> RgbSource:
        return RgbSource(understand(self._image))


def has_colours(image: Image) -> bool:
    """Whether the image may have red, green and blue (and alpha) channels."""
    return image.n_channels == 3 or image.has_alpha


def is_of_colours(image: Image) -> bool:
    """Whether its channels, in the last axis, are red, green and blue (and alpha).

    Three or four channels in the first axis are as often fluorescence stains.
    """
    return image.axes.endswith("C") and has_colours(image)


def optical_densities(rgb: np.ndarray, stains: tuple[str, str]) -> np.ndarray:
    """Amounts of two stains.

    Parameters
    ----------
    rgb
        (n, 3) of 0..255.
    stains
        A value of `STAINS`.

    Returns
    -------
    np.ndarray
        float64 (n, 2), 0 or more.
    """
    from skimage.color import separate_stains

    light = np.clip(np.asarray(rgb, float) / 255, DARKEST, 1)
    amounts: np.ndarray = separate_stains(light, _separation(stains))
    return amounts[..., :2] * _UNIT


def _separation(stains: tuple[str, str]) -> np.ndarray:
    """From optical densities of red, green, blue to the two stains and the residual."""
    from skimage.color import rgb_from_hdx, rgb_from_hed

    vectors = np.array((rgb_from_hed if "eosin" in stains else rgb_from_hdx)[:2], float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rest = np.cross(*vectors)
    separation: np.ndarray = np.linalg.inv(np.stack([*vectors, rest / np.linalg.norm(rest)]))
    return separation


def _channel_names(image: Image) -> list[str]:
    if "C" not in image.axes:
        return ["intensity"]
    count = int(image.data.shape[image.axes.index("C")])
    if is_of_colours(image):
        return ["red", "green", "blue", "alpha"][:count]
    return [f"channel_{n}" for n in range(count)]
