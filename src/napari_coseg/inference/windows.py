"""Windows that slide over a plane or a volume, averaged with Gaussian weights (nnU-Net's rule)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

SIGMA = 1 / 8
"""Of the Gaussian, as a part of the window's side."""

Predict = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def window_starts(length: int, side: int, step: float) -> list[int]:
    """Starts of windows along an axis, evenly spaced, at most ``step * side`` apart."""
    if length <= side:
        return [0]
    count = math.ceil((length - side) / (step * side)) + 1
    return [round((length - side) * i / (count - 1)) for i in range(count)]


def gaussian_weights(sides: Sequence[int]) -> np.ndarray:
    """Weights of a window, float32, 1 at its centre."""
    weights = np.ones((1,) * len(sides))
    for axis, side in enumerate(sides):
        shape = [1] * len(sides)
        shape[axis] = side
        along = np.exp(-0.5 * ((np.arange(side) - side // 2) / (SIGMA * side)) ** 2)
        weights = weights * along.reshape(shape)
    return weights.astype(np.float32)


def sliding_windows(
    image: np.ndarray,
    sides: Sequence[int],
    channels: int,
    predict: Predict,
    batch: int = 1,
    step: float = 0.5,
    done: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """Average the probabilities of windows.

    Parameters
    ----------
    image
        float32 (C, [Z,] Y, X), normalised: where it is smaller than a window, zeros surround it.
    sides
        Of a window, ([Z,] Y, X).
    channels
        Of what `predict` gives for a window: (channels, *sides).
    predict
        Windows of the image, at most `batch` of them, to their probabilities.
    step
        Windows are at most this part of their side apart.
    done
        Called with the part of the windows that are predicted; may raise to stop.

    Returns
    -------
    np.ndarray
        float32 (channels, [Z,] Y, X).
    """
    image, inside = _padded(image, sides)
    total = np.zeros((channels, *image.shape[1:]), np.float32)
    weight_sum = np.zeros(image.shape[1:], np.float32)
    weights = gaussian_weights(sides)
    windows = list(_windows(image.shape[1:], sides, step))
    for first in range(0, len(windows), batch):
        done(first / len(windows))
        now = windows[first : first + batch]
        for window, found in zip(
            now, predict([image[(slice(None), *w)] for w in now]), strict=True
        ):
            total[(slice(None), *window)] += found * weights
            weight_sum[window] += weights
    total /= weight_sum
    return total[(slice(None), *inside)]


def _windows(
    shape: Sequence[int], sides: Sequence[int], step: float
) -> Iterator[tuple[slice, ...]]:
    starts = [window_starts(n, side, step) for n, side in zip(shape, sides, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(slice(a, a + side) for a, side in zip(corner, sides, strict=True))


def _padded(image: np.ndarray, sides: Sequence[int]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """At least as large as a window, with the image in the middle, and where it lies."""
    missing = [max(0, side - n) for n, side in zip(image.shape[1:], sides, strict=True)]
    before = [n // 2 for n in missing]
    inside = tuple(slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True))
    if not any(missing):
        return image, inside
    around = [(b, n - b) for b, n in zip(before, missing, strict=True)]
    return np.pad(image, [(0, 0), *around]), inside
