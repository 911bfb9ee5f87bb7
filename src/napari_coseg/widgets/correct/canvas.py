"""Mouse and keys on the canvas: drags become gestures of a tool, keys become calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_coseg.widgets.correct.gesture import Gesture, plane_shown
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import notify_errors
from napari_coseg.widgets.geometry import placed_like

if TYPE_CHECKING:
    from napari.layers import Labels, Vectors
    from napari.viewer import Viewer

CLICK_PX = 4
"""Screen pixels: a drag over less is a click."""
LINE_PX = 2.0
LINE_COLOR = "#ffd000"
PAN_KEY = "Space"


class DrawnLine:
    """The line that a drag draws, in a layer that exists while a tool is in use."""

    def __init__(self, viewer: Viewer, like: Labels) -> None:
        self._viewer, self._like = viewer, like
        self._layer: Vectors | None = None

    def show(self, points: np.ndarray, *, closed: bool) -> None:
        """Show a line through points (N, ndim) in pixels of the labels; fewer than two clear it."""
        layer = self._shown_layer()
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
        """Add the layer now, so that a stroke need not wait for it."""
        self._shown_layer()

    def _shown_layer(self) -> Vectors:
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
        """Screen pixels per pixel of the labels."""
        return float(self._viewer.scene.camera.zoom * abs(self._like.scale[-1]))


class MouseInput:
    """Turns drags with the left button into gestures for the current receiver.

    Parameters
    ----------
    labels
        Layer in whose pixels gestures are expressed.
    """

    def __init__(self, viewer: Viewer, labels: Labels) -> None:
        self._viewer, self._labels = viewer, labels
        self._receive: Callable[[Gesture], None] | None = None
        self._closed = False
        self._is_box: Callable[[], bool] = _never
        self._pans = False
        self.line = DrawnLine(viewer, labels)
        viewer.mouse_drag_callbacks.append(self._on_drag)

    def send_to(
        self,
        receive: Callable[[Gesture], None] | None,
        *,
        closed: bool = False,
        is_box: Callable[[], bool] | None = None,
    ) -> None:
        """Send gestures to a function; None: to nobody.

        Parameters
        ----------
        closed
            Whether the line is drawn back to its start, as an outline.
        is_box
            While it returns True, drags without Shift are drawn as boxes.
        """
        self._receive, self._closed = receive, closed
        self._is_box = is_box or _never
        if receive is not None:
            self.line.prepare()
        else:
            self.line.close()

    def close(self) -> None:
        self.line.close()
        if self._on_drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_drag)

    def hold_to_pan(self, layer: Any) -> Iterator[None]:
        """Let drags pan the canvas until the generator is resumed: while a key is held."""
        mode, before, self._pans = layer.mode, layer.mouse_pan, True
        if mode != "pan_zoom":  # one of napari's own tools is in use
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
                self.line.show(shape(points), closed=self._closed)
            yield
        if moved:
            self.line.show(np.zeros((0, self._labels.ndim)), closed=False)
        with notify_errors():
            receive(self._gesture(np.array(points), not moved, shift, control))

    def _position(self, event: Any) -> np.ndarray:
        return np.asarray(self._labels.world_to_data(event.position), dtype=float)

    def _gesture(self, points: np.ndarray, is_click: bool, shift: bool, control: bool) -> Gesture:
        plane = plane_shown(self._labels)
        if plane is not None:
            plane = plane._replace(at=int(np.rint(points[0, plane.axis])))
            points = np.delete(points, plane.axis, axis=1)
        return Gesture(points, plane, is_click, shift, control)


def _never() -> bool:
    return False


def _box(points: list[np.ndarray]) -> np.ndarray:
    """The corners (4, ndim) of the box, along the last two axes, from the first to the last."""
    first, last = points[0], points[-1]
    corners = np.array([first, first, last, last])
    corners[1, -1], corners[3, -1] = last[-1], first[-1]
    return corners


class KeyBindings:
    """Key bindings of the viewer and of some layers, restored by `release`.

    Layers get them too, since napari's own keys of labels layers precede the viewer's.
    """

    def __init__(self, viewer: Viewer, layers: list[Labels]) -> None:
        self._owners: list[Any] = [viewer, *layers]
        self._before: list[tuple[Any, str, Any]] = []

    def bind(self, calls: Mapping[str, Callable[[Any], Any]]) -> None:
        """Bind keys, as "M" or "Shift-R", to functions of the viewer or layer."""
        for owner in self._owners:
            for key, call in calls.items():
                before = owner.bind_key(key, call, overwrite=True)
                self._before.append((owner, key, before))

    def release(self) -> None:
        for owner, key, before in reversed(self._before):
            owner.bind_key(key, before, overwrite=True)
        self._before.clear()
