"""Hand and keys on the canvas: drags become gestures of a tool, keys become calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.widgets.correct.gesture import Gesture
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import notify_errors
from napari_coseg.widgets.geometry import placed_like

if TYPE_CHECKING:
    from napari.layers import Labels, Vectors
    from napari.viewer import Viewer

CLICK_PX = 4
"""Of the screen: a mouse that moves less has clicked."""
LINE_PX = 2.0
LINE_COLOR = "#ffd000"
PAN_KEY = "Space"


class Drawing:
    """The line that a hand draws, shown while it does: a layer that is there as long as a tool."""

    def __init__(self, viewer: Viewer, like: Labels) -> None:
        self._viewer, self._like = viewer, like
        self._layer: Vectors | None = None

    def show(self, points: np.ndarray, *, closed: bool) -> None:
        """Show a line through the points (n, ndim), in pixels of the labels; few show nothing."""
        layer = self._shown()
        steps = np.zeros((0, 2, self._like.ndim))
        if len(points) > 1:
            ends = np.vstack([points, points[:1]]) if closed else points
            steps = np.stack([ends[:-1], np.diff(ends, axis=0)], axis=1)
            layer.edge_width = max(LINE_PX / self._zoom(), 1e-6)
        layer.data = steps

    def close(self) -> None:
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None

    def prepare(self) -> None:
        """Add the layer, so that a stroke need not wait for it."""
        self._shown()

    def _shown(self) -> Vectors:
        from napari.layers import Vectors

        if self._layer is None or self._layer not in self._viewer.layers:
            like, active = self._like, self._viewer.layers.selection.active
            self._layer = Vectors(
                np.zeros((0, 2, like.ndim)),
                ndim=like.ndim,
                name="drawing",
                edge_color=LINE_COLOR,
                vector_style="line",
                metadata={METADATA_KEY: {"kind": "drawing"}},
                **placed_like(like),
            )
            self._viewer.add_layer(self._layer)
            self._viewer.layers.selection.active = active
        return self._layer

    def _zoom(self) -> float:
        """Pixels of the screen a pixel of the labels."""
        return float(self._viewer.scene.camera.zoom * abs(self._like.scale[-1]))


class Hand:
    """Turns drags with the left button into gestures, while it has a receiver.

    Parameters
    ----------
    labels
        In whose pixels gestures are told.
    """

    def __init__(self, viewer: Viewer, labels: Labels) -> None:
        self._viewer, self._labels = viewer, labels
        self._receive: Callable[[Gesture], None] | None = None
        self._closed = False
        self._is_box: Callable[[], bool] = _never
        self._pans = False
        self.drawing = Drawing(viewer, labels)
        viewer.mouse_drag_callbacks.append(self._on_drag)

    def take(
        self,
        receive: Callable[[Gesture], None] | None,
        *,
        closed: bool = False,
        is_box: Callable[[], bool] | None = None,
    ) -> None:
        """Send gestures there; a `closed` line is drawn back to its beginning. None: rest.

        While `is_box` says so, drags without Shift are drawn as the box from where they began.
        """
        self._receive, self._closed = receive, closed
        self._is_box = is_box or _never
        if receive is not None:
            self.drawing.prepare()
        else:
            self.drawing.close()

    def close(self) -> None:
        self.drawing.close()
        if self._on_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_drag)

    def hold_to_pan(self, layer: Any) -> Iterator[None]:
        """For a key that is held: drags move the picture meanwhile."""
        mode, before, self._pans = layer.mode, layer.mouse_pan, True
        if mode != "pan_zoom":  # napari's own brush is in the hand
            layer.mode = "pan_zoom"
        layer.mouse_pan = True
        yield
        if mode != "pan_zoom":
            layer.mode = mode
        layer.mouse_pan, self._pans = before, False

    def _on_drag(self, viewer: Any, event: Any) -> Iterator[None]:
        receive = self._receive
        if receive is None or event.button != 1 or self._pans:
            return
        points, start, moved = [self._position(event)], np.array(event.pos), False
        shift, control = "Shift" in event.modifiers, "Control" in event.modifiers
        shape = _box if self._is_box() and not shift else np.array
        yield
        while event.type == "mouse_move":
            moved = moved or bool(np.abs(np.array(event.pos) - start).max() >= CLICK_PX)
            points.append(self._position(event))
            if moved:
                self.drawing.show(shape(points), closed=self._closed)
            yield
        if moved:
            self.drawing.show(np.zeros((0, self._labels.ndim)), closed=False)
        with notify_errors():
            receive(self._gesture(np.array(points), not moved, shift, control))

    def _position(self, event: Any) -> np.ndarray:
        return np.asarray(self._labels.world_to_data(event.position), dtype=float)

    def _gesture(self, points: np.ndarray, is_click: bool, shift: bool, control: bool) -> Gesture:
        shown = list(self._labels._slice_input.displayed)
        if shown != list(range(self._labels.ndim))[-2:]:
            raise EditError(
                "corrections are drawn in the plane y, x; switch to the 2D display and set the "
                "order of dimensions back"
            )
        z = int(np.rint(points[0, 0])) if points.shape[1] == 3 else None
        return Gesture(points[:, -2:], z, is_click, shift, control)


def _never() -> bool:
    return False


def _box(points: list[np.ndarray]) -> np.ndarray:
    """The corners (4, ndim) of the box from the first to the last point."""
    first, last = points[0], points[-1]
    corners = np.array([first, first, last, last])
    corners[1, -1], corners[3, -1] = last[-1], first[-1]
    return corners


class Keys:
    """Keys of the viewer and of some layers, set for a while and then what they were.

    Layers have them too, since napari's own keys of labels come before the viewer's.
    """

    def __init__(self, viewer: Viewer, layers: list[Labels]) -> None:
        self._owners: list[Any] = [viewer, *layers]
        self._before: list[tuple[Any, str, Any]] = []

    def bind(self, calls: Mapping[str, Callable[[Any], Any]]) -> None:
        """Keys by name, as "M" or "Shift-R", to what is called with the viewer or layer."""
        for owner in self._owners:
            for key, call in calls.items():
                before = owner.bind_key(key, call, overwrite=True)
                self._before.append((owner, key, before))

    def release(self) -> None:
        for owner, key, before in reversed(self._before):
            owner.bind_key(key, before, overwrite=True)
        self._before.clear()
