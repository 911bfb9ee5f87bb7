"""Objects that are selected in a table, shown in the viewer; clicks on objects in the viewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_coseg.widgets.connections import Connections
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.geometry import placed_like
from napari_coseg.widgets.layers import centre_on

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Points
    from napari.viewer import Viewer

RING_COLOR = "#ffd400"
RING_SIZE = 1.5
"""Diameter of a ring, relative to a disc of the object's area."""
SMALLEST_RING_PX = 8.0
CLICK_MODES = ("pan_zoom", "pick")


class ViewerLink(QObject):
    """Rings around the selected objects of a labels layer, and clicks on its objects.

    Signals
    -------
    clicked(int)
        Id of the object that was clicked, or set as the layer's selected label.
    """

    clicked = Signal(int)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._labels: Labels | None = None
        self._label_connections = Connections()
        self._rings: Points | None = None
        self._emits = True
        viewer.mouse_drag_callbacks.append(self._on_press)
        viewer.layers.events.removed.connect(self._on_removed)

    def follow(self, labels: Labels | None) -> None:
        """Show and click the objects of this layer; None: of no layer."""
        self._label_connections.close()
        self._labels = labels
        if labels is not None:
            self._label_connections.connect(self._on_selected_label, labels.events.selected_label)

    def close(self) -> None:
        """Remove the rings and disconnect from the viewer."""
        self.follow(None)
        self._remove_rings()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        if self._on_press in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._on_press)

    # -- to the viewer -------------------------------------------------------------------------

    def show_objects(self, objects: pd.DataFrame, pixel_size_um: Sequence[float]) -> None:
        """Ring the objects in these rows of the measured table; bring a single one into view."""
        labels = self._labels
        if labels is None or labels not in self._viewer.layers or not len(objects):
            self._remove_rings()
            return
        axes = "zyx"[-labels.ndim :]
        centres = objects[[f"centroid_{axis}" for axis in axes]].to_numpy(float)
        areas = objects["area_um2"].to_numpy(float) / (pixel_size_um[-1] * pixel_size_um[-2])
        sizes = np.maximum(RING_SIZE * 2 * np.sqrt(areas / np.pi), SMALLEST_RING_PX)
        self._ring(labels, centres, sizes)
        if len(objects) == 1:
            self._emits = False
            labels.selected_label = int(objects["id"].iloc[0])
            self._emits = True
            if self._viewer.dims.ndisplay == 2:
                centre_on(self._viewer, labels, centres[0], if_hidden=True)

    def _ring(self, labels: Labels, centres: np.ndarray, sizes: np.ndarray) -> None:
        """Replace the layer of rings, as its sizes and positions change together."""
        active = self._viewer.layers.selection.active
        self._remove_rings()
        rings = self._viewer.add_points(
            centres,
            size=sizes,
            name=f"{labels.name}: selected",
            face_color="transparent",
            border_color=RING_COLOR,
            border_width=0.05,
            metadata={METADATA_KEY: {"kind": "selection"}},
            **placed_like(labels),
        )
        self._rings = getattr(rings, "__wrapped__", rings)  # napari hands proxies to plugins
        rings.editable = False
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active

    def _remove_rings(self) -> None:
        rings, self._rings = self._rings, None
        if rings is not None and rings in self._viewer.layers:
            self._viewer.layers.remove(rings)

    # -- from the viewer -----------------------------------------------------------------------

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        labels = self._labels
        if labels is None or labels.mode not in CLICK_MODES or not labels.visible:
            return
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if moved:
            return
        value = labels.get_value(
            event.position,
            view_direction=event.view_direction,
            dims_displayed=event.dims_displayed,
            world=True,
        )
        if value:
            self.clicked.emit(int(value))

    def _on_selected_label(self, _: Any = None) -> None:
        if self._emits and self._labels is not None:
            self.clicked.emit(int(self._labels.selected_label))

    def _on_removed(self, event: Any) -> None:
        if event.value is self._rings:
            self._rings = None
