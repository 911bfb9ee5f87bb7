"""Choice of the image layer, with its axes, channels and pixel size as they were understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QToolButton, QWidget

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, geometry_of
from napari_coseg.images.intake import understand
from napari_coseg.images.slicing import slicing_of
from napari_coseg.widgets import layers
from napari_coseg.widgets.connections import Connections, layer_list_events
from napari_coseg.widgets.dock_widget import sentence
from napari_coseg.widgets.forms import ChoiceBox, form, number_box, text_label
from napari_coseg.widgets.geometry import (
    PixelSize,
    layer_pixel_size,
    of_layers_array,
    spatial_dims,
)

if TYPE_CHECKING:
    from napari.viewer import Viewer

AXES_LABELS = {
    "YX": "2D",
    "YXC": "2D, channels last",
    "CYX": "2D, channels first",
    "ZYX": "stack",
    "ZYXC": "stack, channels last",
    "ZCYX": "stack, channels first",
}
COLOR_NAMES = ("red", "green", "blue")
IMPLAUSIBLE_FACTOR = 8.0
"""Between the image's pixel size and the model's: above it the user is asked to check."""
DEFAULT_SIZE = "model's own"
SET_BY_USER = "set manually"
TYPED_SIZE = "napari_coseg_typed_size_um"
"""In a layer's metadata: the pixel size that a person gave it, in all docks."""


@dataclass(frozen=True)
class ChosenImage:
    """What the user chose; `channels` is None where there is no choice."""

    layer: ImageLayer
    axes: str
    channels: list[int] | None
    geometry: Geometry

    @property
    def pixel_size_um(self) -> tuple[float, ...] | None:
        return self.geometry.pixel_size_um

    def arguments(self) -> dict[str, Any]:
        """Arguments of a job of the worker process."""
        return {
            "name": self.layer.name,
            "axes": self.axes,
            "channels": self.channels,
            "geometry": self.geometry.as_json(),
        }


class ImageChoice(QWidget):
    """A list of the viewer's image layers, and a form with what is understood of the chosen one.

    Signals
    -------
    changed()
        Another layer, or something else understood of it.
    file_geometry_wanted(str)
        The chosen layer's pixel size is unknown, but it was read from this file; answer by
        `set_file_geometry`.
    """

    changed = Signal()
    file_geometry_wanted = Signal(str)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: ImageLayer | None = None
        self._size = PixelSize(None, "")
        self._file: Geometry | None = None
        self._model_um: float | None = None
        self._slicing = "square"
        self._build()
        self._list_connections, self._layer_connections = Connections(), Connections()
        self._list_connections.connect(self._list_layers, *layer_list_events(viewer))
        active = viewer.layers.selection.active
        active = getattr(active, "__wrapped__", active)  # napari hands proxies to plugins
        self._list_layers()
        self.layer_box.choose(active)

    def _build(self) -> None:
        self.layer_box = ChoiceBox("Image layer to segment")
        self.layer_box.setPlaceholderText("open an image")
        self.axes_box = ChoiceBox("Meaning of the array's dimensions, in order")
        self.channels_box = ChoiceBox("Channels that are passed to the model")
        self.facts, self.source = text_label(), text_label()
        self.size_box = _size_box("Pixel size; the image is resampled to the model's pixel size")
        self.spacing_box = _size_box("Distance between slices")
        self.reset_button = QToolButton()
        self.reset_button.setText("↺")
        self.reset_button.setToolTip("Back to the value of the image")
        size_row = QHBoxLayout()
        size_row.addWidget(self.size_box, 1)
        size_row.addWidget(self.reset_button)
        form(
            ("Layer", self.layer_box),
            ("", self.facts),
            ("Axes", self.axes_box),
            ("Channels", self.channels_box),
            ("Pixel size", size_row),
            ("Slice spacing", self.spacing_box),
            ("", self.source),
            parent=self,
        )
        self.layer_box.currentIndexChanged.connect(self._on_layer_chosen)
        self.axes_box.currentIndexChanged.connect(self._on_axes_chosen)
        self.channels_box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.size_box.valueChanged.connect(self._on_size_typed)
        self.spacing_box.valueChanged.connect(self._on_size_typed)
        self.reset_button.clicked.connect(self._on_size_reset)

    # -- for the docks -------------------------------------------------------------------------

    def chosen(self) -> ChosenImage:
        """What would be segmented now.

        Raises
        ------
        ImageError
            Where there is no image layer, or it cannot be understood.
        """
        if self._layer is None:
            raise ImageError(
                "there is no image to segment; open one, or File > Open Sample > Co-Seg"
            )
        axes = self.axes
        understand(layers.layer_to_image(self._layer, axes, self._size.um))
        return ChosenImage(self._layer, axes, self.channels_box.currentData(), self._geometry())

    @property
    def layer(self) -> ImageLayer | None:
        return self._layer

    @property
    def axes(self) -> str:
        """Axes of the chosen layer.

        Raises
        ------
        ImageError
            Where its dimensions are not understood.
        """
        if not self.axes_box.count() and self._layer is not None:
            layers.axes_choices(self._layer)
        return str(self.axes_box.currentData())

    @property
    def pixel_size(self) -> PixelSize:
        return self._size

    def set_model_pixel_size(self, um: float | None, slicing: str = "square") -> None:
        """Set the pixel size that is assumed where the image has none, and the rule of slicing."""
        self._model_um, self._slicing = um, slicing
        text = DEFAULT_SIZE if um is None else f"{DEFAULT_SIZE} ({um:g} µm)"
        self.size_box.setSpecialValueText(text)
        self.spacing_box.setSpecialValueText("same as the pixel size")
        self._fill_boxes()

    def set_file_geometry(self, path: str, geometry: Geometry, shape: Sequence[int]) -> None:
        """Use the metadata of the file at `path` for the chosen layer.

        Parameters
        ----------
        geometry, shape
            Of the file's image, in the orientation of our reader.
        """
        layer = self._layer
        if layer is None or layer.source.path != path or self._size.um is not None:
            return
        image = layers.layer_to_image(layer, self.axes)
        self._file = of_layers_array(geometry, shape, image.spatial_shape)
        um = self._file.pixel_size_um if self._file else None
        if um is not None:
            self._set_size(PixelSize(um, "from the file's metadata"))

    def ask_file(self) -> None:
        """Emit `file_geometry_wanted` where the chosen layer's file may know its pixel size."""
        path = None if self._layer is None else self._layer.source.path
        if self._size.um is None and path:
            self.file_geometry_wanted.emit(str(path))

    def disconnect_viewer(self) -> None:
        self._list_connections.close()
        self._watch(None)

    # -- the list of layers --------------------------------------------------------------------

    def _list_layers(self, _: Any = None) -> None:
        listed = [layer for layer in self._viewer.layers if isinstance(layer, ImageLayer)]
        entries = [(layer.name, layer) for layer in listed]
        self.layer_box.set_entries(entries, self._layer, *listed[-1:])
        self.layer_box.setEnabled(bool(listed))
        if self._layer is None or self.layer_box.currentData() is not self._layer:
            self._on_layer_chosen()

    def _on_layer_chosen(self, _: int = 0) -> None:
        self._watch(self.layer_box.currentData())
        self._read_layer()

    def _watch(self, layer: ImageLayer | None) -> None:
        """Follow changes of the layer by other widgets."""
        self._layer_connections.close()
        self._layer = layer
        if layer is not None:  # not set_data, which is emitted for each slice shown as well
            events = layer.events
            self._layer_connections.connect(
                self._read_layer, events.scale, events.units, events.axis_labels, events.data
            )

    # -- what is understood --------------------------------------------------------------------

    def _read_layer(self, event: Any = None) -> None:
        layer = self._layer
        if layer is not None and event is not None and event.type in ("scale", "units", "data"):
            layer.metadata.pop(TYPED_SIZE, None)  # what was said last counts
        before = self.axes_box.currentData() if event is not None else None
        try:
            choices = layers.axes_choices(layer) if layer is not None else ()
        except ImageError as error:
            choices = ()
            self.facts.setText(sentence(error))
        self.axes_box.set_entries(
            [(f"{axes}: {AXES_LABELS[axes]}", axes) for axes in choices], before
        )
        self.axes_box.setEnabled(bool(choices))
        self.size_box.setEnabled(bool(choices))
        if choices:
            self._on_axes_chosen()
            return
        if layer is None:
            self.facts.setText("Open an image, or File › Open Sample › Co-Seg.")
        self._show_rows(channels=False, stack=False)
        self._set_size(PixelSize(None, ""))

    def _on_axes_chosen(self, _: int = 0) -> None:
        image = layers.layer_to_image(self._layer, self.axes)
        y, x = image.spatial_shape[-2:]
        slices = f"{image.spatial_shape[0]} slices of " if image.is_stack else ""
        assumed = "".join(f"<br>⚠ {escape(text)}" for text in image.geometry.source.assumed)
        self.facts.setText(f"{slices}{y} × {x} pixels, {np.dtype(image.data.dtype)}{assumed}")
        self._offer_channels(image)
        self._show_rows(channels="C" in image.axes, stack=image.is_stack)
        self._read_size()

    def _offer_channels(self, image: Image) -> None:
        count = image.n_channels if "C" in image.axes else 0
        is_color = count == 3 or image.has_alpha
        entries: list[tuple[str, Any]] = []
        if is_color:
            entries = [("red, green, blue" + ", alpha" * (count == 4), None)]
        for n in range(count):
            name = f" ({COLOR_NAMES[n]})" if is_color and n < 3 else ""
            entries.append((f"channel {n}{name} only", [n]))
        self.channels_box.set_entries(entries)

    def _show_rows(self, *, channels: bool, stack: bool) -> None:
        self.layout().setRowVisible(self.channels_box, channels)
        self.layout().setRowVisible(self.spacing_box, stack)

    # -- pixel size ----------------------------------------------------------------------------

    def _read_size(self) -> None:
        if self._layer is None:
            return
        self._file = None
        typed = self._layer.metadata.get(TYPED_SIZE)
        if typed and len(typed) == len(spatial_dims(self.axes)):
            self._set_size(PixelSize(tuple(typed), SET_BY_USER))
            return
        self._set_size(layer_pixel_size(self._layer, self.axes))
        self.ask_file()

    def _on_size_reset(self) -> None:
        if self._layer is not None:
            self._layer.metadata.pop(TYPED_SIZE, None)
        self._read_size()

    def _on_size_typed(self, _: float) -> None:
        side, spacing = self.size_box.value(), self.spacing_box.value()
        count = len(spatial_dims(self.axes))
        if side == 0:
            self._size = PixelSize(None, f"{SET_BY_USER}: the model's own")
        else:
            sizes, across = [side] * count, self._across()
            if count == 3:
                sizes[across] = spacing or side
            self._size = PixelSize(tuple(sizes), SET_BY_USER)
        if self._layer is not None:
            self._layer.metadata[TYPED_SIZE] = self._size.um
        self._show_size()
        self.changed.emit()

    def _set_size(self, size: PixelSize) -> None:
        self._size = size
        self._fill_boxes()
        self.changed.emit()

    def _fill_boxes(self) -> None:
        """In the plane of the slices, and from slice to slice."""
        um, across = self._size.um or (0.0,), self._across()
        in_plane = um[1 if across == 2 else -1]
        for box, value in ((self.size_box, in_plane), (self.spacing_box, um[across])):
            with QSignalBlocker(box):
                box.setValue(value)
        self._show_size()

    def _geometry(self) -> Geometry:
        """As it is understood of the chosen layer, of which there is one."""
        image = layers.layer_to_image(self._layer, self.axes, self._size.um)
        geometry = geometry_of(self._size.um, self._file or image.geometry, image.spatial_axes)
        if self._size.um is None:
            return Geometry.unknown(geometry.ndim, geometry.source)
        return geometry

    def _across(self) -> int:
        """The spatial axis that slices of the chosen layer are cut across."""
        if self._size.um is None:
            return 0
        try:
            return slicing_of(self._geometry(), self._slicing, self.axes).axis
        except ImageError:  # no slice has square pixels; a run says so
            return 0

    def _show_size(self) -> None:
        is_set = self._size.source.startswith(SET_BY_USER)
        self.reset_button.setEnabled(is_set)
        lines = [sentence(self._size.source)]
        um = self._size.um
        if um is None and self._layer is not None and not is_set:
            lines = [
                "<b>⚠ Unknown: the model's own is assumed</b>. If that is wrong, so are the objects"
            ]
        across = self._across()
        if across:
            lines.append(f"Slices are cut across {'ZYX'[across]}")
        elif um is not None and len(um) > 1 and um[-1] != um[-2]:
            lines.append(f"{um[-2]:g} µm high, {um[-1]:g} µm wide")
        if um is not None and self._model_um:
            factor = um[1 if across == 2 else -1] / self._model_um
            if not 1 / IMPLAUSIBLE_FACTOR <= factor <= IMPLAUSIBLE_FACTOR:
                lines.append(f"⚠ The model's is {self._model_um:g} µm: is this right?")
            elif abs(factor - 1) > 0.02:
                lines.append(f"Resampled to the model's {self._model_um:g} µm")
        self.source.setText(". ".join(lines) + "." if lines[0] else "")


def _size_box(tooltip: str) -> QDoubleSpinBox:
    box = number_box(tooltip, suffix=" µm", maximum=10_000.0, decimals=4)
    box.setSpecialValueText(DEFAULT_SIZE)
    box.setKeyboardTracking(False)
    return box
