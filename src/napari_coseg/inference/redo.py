"""Which windows of which tiles a correction concerns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.labels.tiling.blocks import Block, Span

if TYPE_CHECKING:
    from napari_coseg.inference.plane import Plan

LEAST_WINDOW_PX = 256
"""Side of the smallest window that is decoded again, on the network's grid: a training crop."""
WHOLE_FROM = 0.6
"""A window of more than this part of its tile is not worth cutting out."""
STRIDE_PX = 16
"""Windows begin and end at whole pixels of the embedding, which is the coarsest feature."""
Window = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Redo:
    """A window of a tile to decode again, in pixels of the tile as the network gets it."""

    tile: Block
    window: Window

    def on_image(self, plan: Plan) -> Window:
        """The part of the window that lies in its tile, on the image's grid."""
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


def windows_to_redo(plan: Plan, changed: np.ndarray) -> list[Redo]:
    """The windows around all that has changed, one a tile that shows any of it.

    Parameters
    ----------
    changed
        Bool (Y, X), on the image's grid.
    """
    tiles = (tile for row in plan.tiles for tile in row)
    return [found for tile in tiles if (found := _window(plan, tile, changed)) is not None]


def ramp(part: slice, side: int, halo: int) -> np.ndarray:
    """How much new maps count along an axis: nothing at the window's ends, but at the tile's."""
    place = np.arange(part.start, part.stop) + 0.5
    before = place - part.start if part.start > 0 else np.full(len(place), np.inf)
    after = part.stop - place if part.stop < side else np.full(len(place), np.inf)
    return np.clip(np.minimum(before, after) / max(halo, 1), 0, 1).astype(np.float32)


def _window(plan: Plan, tile: Block, changed: np.ndarray) -> Redo | None:
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
    if (rows.stop - rows.start) * (columns.stop - columns.start) > WHOLE_FROM * height * width:
        return Redo(tile, (slice(0, height), slice(0, width)))
    return Redo(tile, (rows, columns))


def _around(places: np.ndarray, origin: int, span: Span, plan: Plan, axis: int) -> slice:
    """Changed places of the image along an axis, with a halo, in pixels of the tile."""
    n, m = plan.image_shape[axis], plan.model_shape[axis]
    low = (origin + int(places[0])) * m // n - span.start - plan.halo_px
    high = -(-(origin + int(places[-1]) + 1) * m // n) - span.start + plan.halo_px
    return _aligned(low, high, plan.network_shape[axis])


def _aligned(low: int, high: int, side: int) -> slice:
    """At least `LEAST_WINDOW_PX` long, within 0..side, beginning and ending at whole strides."""
    missing = max(0, LEAST_WINDOW_PX - (high - low))
    low, high = low - missing // 2, high + missing - missing // 2
    low, high = max(0, low - max(0, high - side)), min(side, high + max(0, -low))
    return slice(low // STRIDE_PX * STRIDE_PX, min(side, -(-high // STRIDE_PX) * STRIDE_PX))
