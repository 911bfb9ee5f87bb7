"""Redraw only the part of a labels layer that has changed; large parts in pieces.

napari's own refresh maps every pixel again: 0.3 to 1 s at 4,096 x 4,096 pixels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer

from napari_coseg.labels.editing.edit import Box
from napari_coseg.labels.editing.index import around, volume

if TYPE_CHECKING:
    from napari.layers import Labels

PIECE_PX = 512
AT_ONCE_S = 0.012
"""Time for drawing pieces before other events are processed."""
AT_ONCE_PX = 2 * PIECE_PX**2
"""A larger change is drawn after other events, since making it took long already."""
_FEW = 64


class Refresher:
    """Redraws parts of layers, small ones at once and large ones when the window is idle."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Labels, Box]] = deque()
        self._timer = QTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._draw_some)

    @property
    def is_done(self) -> bool:
        return not self._waiting

    def draw(self, layer: Labels, boxes: Iterable[Box]) -> None:
        """Redraw boxes, half-open along the axes of the layer's data."""
        gathered = _gathered(list(boxes))
        for box in gathered:
            self._waiting.extend((layer, piece) for piece in pieces(box))
        if sum(map(volume, gathered)) <= AT_ONCE_PX:
            self._draw_some()
        else:
            self._timer.start()

    def stop(self) -> None:
        """Forget what is not drawn yet."""
        self._waiting.clear()
        self._timer.stop()

    def _draw_some(self) -> None:
        until = time.perf_counter() + AT_ONCE_S
        while self._waiting and time.perf_counter() < until:
            draw_part(*self._waiting.popleft())
        if self._waiting:
            self._timer.start()
        else:
            self._timer.stop()


def draw_part(layer: Labels, box: Box) -> None:
    """Map the pixels in the box to colours and send them to the canvas.

    Where the layer does not show a plane of its own array, all of it is redrawn.
    """
    if not layer.visible or not layer.loaded or layer._slice.empty:
        return  # drawn as a whole when it becomes visible
    shown = layer._slice_input.displayed
    raw = layer._slice.image.raw
    if len(shown) != 2 or not np.may_share_memory(raw, layer.data):
        layer.refresh()
        return
    at = layer._get_pt_not_disp()
    if not all(box[dim].start <= at[dim] < box[dim].stop for dim in at):
        return  # in another slice
    reach = max(1, layer.contour)
    part = tuple(
        slice(max(box[dim].start - reach, 0), min(box[dim].stop + reach, layer.data.shape[dim]))
        for dim in shown
    )
    colors = layer._raw_to_displayed(raw, data_slice=part)
    view = layer._slice.image.view
    if not np.may_share_memory(view, layer.data):  # for 8 and 16 bits it is the labels themselves
        view[part] = colors
    layer.events.labels_update(data=colors, offset=[axis.start for axis in part])


def pieces(box: Box) -> list[Box]:
    """The box in pieces of at most `PIECE_PX` along the last two axes."""
    *rest, rows, columns = box
    return [
        (*rest, slice(y, min(y + PIECE_PX, rows.stop)), slice(x, min(x + PIECE_PX, columns.stop)))
        for y in range(rows.start, rows.stop, PIECE_PX)
        for x in range(columns.start, columns.stop, PIECE_PX)
    ]


def _gathered(boxes: Sequence[Box]) -> list[Box]:
    """A few boxes far apart as they are; otherwise the one box around all."""
    if not boxes:
        return []
    whole = around(boxes)
    if len(boxes) <= _FEW and 2 * sum(map(volume, boxes)) < volume(whole):
        return list(boxes)
    return [whole]
