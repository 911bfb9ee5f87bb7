"""Windows of tiles that a correction changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.labels.tiling.blocks import Block, Span

if TYPE_CHECKING:
    from napari_coseg.inference.plane import TilePlan

SMALLEST_WINDOW_PX = 256
"""Smallest side of a window on the network's grid: the size of a training crop."""
WHOLE_TILE_FROM = 0.6
"""A window of more than this fraction of its tile becomes the whole tile."""
STRIDE_PX = 16
"""Windows start and stop at multiples of the embedding's stride, the coarsest of the features."""
Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class TileWindow:
    """A window of a tile, in pixels of the tile as the network gets it."""

    tile: Block
    window: Window

    def on_image(self, plan: TilePlan) -> Window:
        """Range of the image's grid under the part of the window that is inside its tile."""
        rows, columns = (
            slice(
                (span.start + part.start) * n // m,
                min(n, -(-min(span.start + part.stop, span.stop) * n // m)),
            )
            for span, part, n, m in zip(
                (self.tile.y, self.tile.x),
                self.window,
                plan.image_shape,
                plan.model_shape,
                strict=True,
            )
        )
        return rows, columns


def changed_windows(plan: TilePlan, changed: np.ndarray) -> list[TileWindow]:
    """Cover changed pixels, bool (Y, X) on the image's grid, with one window in each tile."""
    tiles = (tile for row in plan.tiles for tile in row)
    return [found for tile in tiles if (found := _window(plan, tile, changed)) is not None]


def ramp(part: slice, side: int, halo: int) -> np.ndarray:
    """Weights of new maps along an axis: they fall to 0 at ends that are not the tile's."""
    at = np.arange(part.start, part.stop) + 0.5
    before = at - part.start if part.start > 0 else np.full(len(at), np.inf)
    after = part.stop - at if part.stop < side else np.full(len(at), np.inf)
    return np.clip(np.minimum(before, after) / max(halo, 1), 0, 1).astype(np.float32)


def _window(plan: TilePlan, tile: Block, changed: np.ndarray) -> TileWindow | None:
    spans = (tile.y, tile.x)
    on_image = [
        slice(span.start * n // m, -(-span.stop * n // m))
        for span, n, m in zip(spans, plan.image_shape, plan.model_shape, strict=True)
    ]
    here = changed[tuple(on_image)]
    if not here.any():
        return None
    rows, columns = (
        _around(np.flatnonzero(here.any(axis=1 - axis)), part.start, span, plan, axis)
        for axis, (part, span) in enumerate(zip(on_image, spans, strict=True))
    )
    height, width = plan.network_shape
    if (rows.stop - rows.start) * (columns.stop - columns.start) > WHOLE_TILE_FROM * height * width:
        rows, columns = slice(0, height), slice(0, width)
    return TileWindow(tile, (rows, columns))


def _around(pixels: np.ndarray, origin: int, span: Span, plan: TilePlan, axis: int) -> slice:
    """Range of the tile, along an axis, with a halo around changed pixels of the image."""
    n, m = plan.image_shape[axis], plan.model_shape[axis]
    low = (origin + int(pixels[0])) * m // n - span.start - plan.halo_px
    high = -(-(origin + int(pixels[-1]) + 1) * m // n) - span.start + plan.halo_px
    return _aligned(low, high, plan.network_shape[axis])


def _aligned(low: int, high: int, side: int) -> slice:
    """At least `SMALLEST_WINDOW_PX` long, within 0..side, from stride to stride."""
    missing = max(0, SMALLEST_WINDOW_PX - (high - low))
    low, high = low - missing // 2, high + missing - missing // 2
    low, high = max(0, low - max(0, high - side)), min(side, high + max(0, -low))
    return slice(low // STRIDE_PX * STRIDE_PX, min(side, -(-high // STRIDE_PX) * STRIDE_PX))
