"""Cut a plane into overlapping windows, and blend maps of windows.

A block is a window to compute on and a core to keep. Cores partition the plane; a window is its
core with at least `halo` pixels around, except at the plane's own border::

    window 0   |-------------------|
    core 0     |--------------|          the cores meet in the middle of the overlap
    window 1             |-------------------|
    core 1                    |--------------|
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import SettingsError


@dataclass(frozen=True)
class Span:
    """One axis of a block, half-open in pixels of the plane."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def window(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def core(self) -> slice:
        return slice(self.core_start, self.core_stop)

    @property
    def core_in_window(self) -> slice:
        return slice(self.core_start - self.start, self.core_stop - self.start)


@dataclass(frozen=True)
class Block:
    """A window and its core; `row` and `column` count blocks."""

    y: Span
    x: Span
    row: int
    column: int

    @property
    def window(self) -> tuple[slice, slice]:
        return self.y.window, self.x.window

    @property
    def core(self) -> tuple[slice, slice]:
        return self.y.core, self.x.core

    @property
    def core_in_window(self) -> tuple[slice, slice]:
        return self.y.core_in_window, self.x.core_in_window


Grid = list[list[Block]]
"""Rows of blocks, from the top left."""


def cut_axis(length: int, size: int, halo: int) -> list[Span]:
    """Windows of `size` pixels, evenly spaced, overlapping by at least twice `halo`.

    An axis no longer than `size` is one window of its own length.
    """
    if length <= size:
        return [Span(0, length, 0, length)]
    step = size - 2 * halo
    if step < 1:
        raise SettingsError(
            f"a tile of {size} pixels leaves nothing between two halos of {halo}; make the tile "
            f"larger than {2 * halo} or the halo smaller"
        )
    count = math.ceil((length - size) / step) + 1
    starts = [(length - size) * i // (count - 1) for i in range(count)]
    meets = [(a + size + b) // 2 for a, b in itertools.pairwise(starts)]
    edges = [0, *meets, length]
    return [Span(s, s + size, edges[i], edges[i + 1]) for i, s in enumerate(starts)]


def cut_plane(shape: tuple[int, int], size: tuple[int, int], halo: int) -> Grid:
    """All blocks of a plane of (Y, X) pixels."""
    ys, xs = (cut_axis(length, side, halo) for length, side in zip(shape, size, strict=True))
    return [[Block(y, x, row, col) for col, x in enumerate(xs)] for row, y in enumerate(ys)]


def pad_to(block: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pad (Y, X, ...) by reflection at its lower and right border up to `shape`."""
    missing = [(0, n - have) for n, have in zip(shape, block.shape, strict=False)]
    if not any(after for _, after in missing):
        return block
    return np.pad(block, missing + [(0, 0)] * (block.ndim - 2), mode="symmetric")


class RollingMaps:
    """Maps of a plane, added a band of rows at a time; rows that are not needed are freed.

    So memory grows with the width of the image and not with its height.
    """

    def __init__(self) -> None:
        self._bands: list[tuple[int, np.ndarray]] = []
        self.stop = 0
        """Rows below this have been added."""

    def append(self, band: np.ndarray) -> None:
        """Add the next rows, (C, rows, X)."""
        self._bands.append((self.stop, band))
        self.stop += band.shape[1]

    def drop_before(self, row: int) -> None:
        self._bands = [(top, band) for top, band in self._bands if top + band.shape[1] > row]

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """(C, rows, columns), from bands that are still kept."""
        parts = [
            band[:, max(0, rows.start - top) : max(0, rows.stop - top), columns]
            for top, band in self._bands
        ]
        return np.concatenate([part for part in parts if part.shape[1]], axis=1)


def blend_weights(spans: Sequence[Span], halo: int) -> list[np.ndarray]:
    """Weights of the windows along an axis; where windows overlap, the weights sum to 1.

    A weight is 0 in the outer half of the halo and increases towards the middle of the window, but
    not at the plane's own border. So maps have no seams.

    Returns
    -------
    list of np.ndarray
        float32, the length of each window.
    """
    length = spans[-1].stop
    total = np.zeros(length)
    raw = []
    for span in spans:
        place = np.arange(span.start, span.stop) + 0.5
        before = place - span.start if span.start > 0 else np.inf
        after = span.stop - place if span.stop < length else np.inf
        inside = np.minimum(before, after) - halo / 2
        weights = np.clip(inside, 0, span.stop - span.start) * np.ones_like(place)
        total[span.window] += weights
        raw.append(weights)
    return [
        (weights / total[span.window]).astype(np.float32)
        for span, weights in zip(spans, raw, strict=True)
    ]


def blend_row(
    blocks: Sequence[Block], windows: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> np.ndarray:
    """The blended maps of one row of blocks.

    Parameters
    ----------
    windows
        (C, y, x) each, at least as large as their blocks.
    weights
        From `blend_weights`, along x.

    Returns
    -------
    np.ndarray
        float32 (C, y, X), to be weighted along y.
    """
    height = blocks[0].y.stop - blocks[0].y.start
    row = np.zeros((windows[0].shape[0], height, blocks[-1].x.stop), np.float32)
    for block, window, weight in zip(blocks, windows, weights, strict=True):
        row[:, :, block.x.window] += window[:, :height, : weight.size] * weight
    return row
