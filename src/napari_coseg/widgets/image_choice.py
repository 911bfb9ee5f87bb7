"""Which image layer, and what is understood of it: shown before the run, each part changeable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import geometry_of
from napari_coseg.images.intake import understand
from napari_coseg.widgets import layers
from napari_coseg.widgets.geometry import (
    PixelSize,
    layer_pixel_size,
    of_layers_array,
    spatial_dims,
)

if TYPE_CHECKING:
    from napari.layers import Image as ImageLayer
    from napari.viewer import Viewer

AXES_WORDS = {
    "YX": "one plane",
    "YXC": "colours last",
    "CYX": "channels first",
    "ZYX": "a stack",
    "ZYXC": "a stack, colours last",
    "ZCYX": "a stack, channels first",
}
COLOR_WORDS = ("red", "green", "blue")
IMPLAUSIBLE_FACTOR = 8.0
"""Of the image's pixel size and the model's: more than this deserves a second look."""


@dataclass(frozen=True)
class ChosenImage:
    """What the person chose; `channels` is None where there is no choice."""

    layer: ImageLayer
    axes: str
    channels: list[int] | None
    geometry: Geometry

    @property
    def pixel_size_um(self) -> tuple[float, ...] | None:
        return self.geometry.pixel_size_um

    def arguments(self) -> dict[str, Any]:
        """What the worker process needs to know of it."""
        return {
            "name": self.layer.name,
            "axes": self.axes,
            "channels": self.channels,
            "geometry": self.geometry.as_json(),
        }


class ImageChoice(QWidget):
    """A list of the viewer's image layers and a form of what the chosen one is understood to be.

    Signals
    -------
    changed()
        Another layer, or something else understood of it.
    file_asked(str)
        A layer's pixel size is not known, but it came from this file; answer with
        `set_file_geometry`.
    """

    changed = Signal()
    file_asked = Signal(str)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._listed: list[ImageLayer] = []
        self._layer: ImageLayer | None = None
        self._size = PixelSize(None, "")
        self._file: Geometry | None = None
        self._model_um: float | None = None
        self._build()
        events = viewer.layers.events
        self._list_events = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._list_events:
            event.connect(self._follow_layers)
        active = viewer.layers.selection.active
        active = getattr(active, "__wrapped__", active)  # napari hands proxies to plugins
        self._follow_layers()
        if active in self._listed:
            self.choose(active)

    def _build(self) -> None:
        self.layer_box = narrow_box("The image layer to segment")
        self.axes_box = narrow_box("What the dimensions of the array are, in order")
        self.channels_box = narrow_box("Which channels are shown to the model")
        self.facts = QLabel()
        self.facts.setWordWrap(True)
        self.size_box = _size_box(
            "How large a pixel is; the image is resampled to the model's size"
        )
        self.spacing_box = _size_box("Distance of two slices")
        self.reset_button = QToolButton()
        self.reset_button.setText("↺")
        self.reset_button.setToolTip("Back to what the image says")
        self.source = QLabel()
        self.source.setWordWrap(True)
        size_row = QHBoxLayout()
        size_row.addWidget(self.size_box, 1)
        size_row.addWidget(self.reset_button)
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._form.addRow("Layer", self.layer_box)
        self._form.addRow("", self.facts)
        self._form.addRow("Axes", self.axes_box)
        self._form.addRow("Channels", self.channels_box)
        self._form.addRow("Pixel size", size_row)
        self._form.addRow("Slice spacing", self.spacing_box)
        self._form.addRow("", self.source)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(self._form)
        self.layer_box.currentIndexChanged.connect(self._on_layer_chosen)
        self.axes_box.currentIndexChanged.connect(self._on_axes_chosen)
        self.channels_box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.size_box.valueChanged.connect(self._on_size_typed)
        self.spacing_box.valueChanged.connect(self._on_size_typed)
        self.reset_button.clicked.connect(self._read_size)

    # -- what others ask ---------------------------------------------------------------------

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
        image = layers.layer_to_image(self._layer, axes, self._size.um)
        understand(image)
        geometry = geometry_of(self._size.um, self._file or image.geometry, image.spatial_axes)
        if self._size.um is None:
            geometry = Geometry.unknown(geometry.ndim, geometry.source)
        return ChosenImage(self._layer, axes, self.channels_box.currentData(), geometry)

    @property
    def layer(self) -> ImageLayer | None:
        return self._layer

    @property
    def axes(self) -> str:
        """Of the chosen layer.

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

    def choose(self, layer: ImageLayer) -> None:
        self.layer_box.setCurrentIndex(self._listed.index(layer))

    def set_model_pixel_size(self, um: float | None) -> None:
        """What is assumed where the image says nothing."""
        self._model_um = um
        own = "model's own" if um is None else f"model's own ({um:g} µm)"
        self.size_box.setSpecialValueText(own)
        self.spacing_box.setSpecialValueText("same as the pixel size")
        self._tell_size()

    def set_file_geometry(self, path: str, geometry: Geometry, shape: Sequence[int]) -> None:
        """What the metadata of the file at `path` say of the chosen layer.

        Parameters
        ----------
        geometry, shape
            Of the file's image as our reader turns it.
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
        """Emit `file_asked` where the chosen layer's file may say what the layer does not."""
        path = None if self._layer is None else self._layer.source.path
        if self._size.um is None and path:
            self.file_asked.emit(str(path))

    def disconnect_viewer(self) -> None:
        """Stop following the viewer's layers."""
        for event in self._list_events:
            event.disconnect(self._follow_layers)
        self._watch(None)

    # -- the list of layers ------------------------------------------------------------------

    def _follow_layers(self, event: Any = None) -> None:
        from napari.layers import Image as ImageLayer

        self._listed = [layer for layer in self._viewer.layers if isinstance(layer, ImageLayer)]
        keep = self._layer if self._layer in self._listed else None
        if keep is None and self._listed:
            keep = self._listed[-1]
        self.layer_box.blockSignals(True)
        self.layer_box.clear()
        self.layer_box.addItems([layer.name for layer in self._listed])
        self.layer_box.setCurrentIndex(self._listed.index(keep) if keep else -1)
        self.layer_box.setPlaceholderText("open an image")
        self.layer_box.setEnabled(bool(self._listed))
        self.layer_box.blockSignals(False)
        if keep is not self._layer or keep is None:
            self._take(keep)

    def _on_layer_chosen(self, index: int) -> None:
        self._take(self._listed[index] if 0 <= index < len(self._listed) else None)

    def _take(self, layer: ImageLayer | None) -> None:
        self._watch(layer)
        self._read_layer()

    def _watch(self, layer: ImageLayer | None) -> None:
        """Follow what is changed of the layer in other widgets."""
        for event in self._layer_events():
            event.disconnect(self._read_layer)
        self._layer = layer
        for event in self._layer_events():
            event.connect(self._read_layer)

    def _layer_events(self) -> list[Any]:
        if self._layer is None:
            return []
        events = self._layer.events  # not set_data, which tells of every other slice shown as well
        return [events.scale, events.units, events.axis_labels, events.data]

    # -- what is understood ------------------------------------------------------------------

    def _read_layer(self, event: Any = None) -> None:
        layer = self._layer
        self.axes_box.blockSignals(True)
        before = self.axes_box.currentData() if event is not None else None
        self.axes_box.clear()
        try:
            choices = layers.axes_choices(layer) if layer is not None else ()
        except ImageError as error:
            choices = ()
            self.facts.setText(str(error))
        for axes in choices:
            self.axes_box.addItem(f"{axes}: {AXES_WORDS[axes]}", axes)
        if before in choices:
            self.axes_box.setCurrentIndex(choices.index(before))
        self.axes_box.setEnabled(bool(choices))
        self.axes_box.blockSignals(False)
        self.size_box.setEnabled(bool(choices))
        if choices:
            self._on_axes_chosen()
            return
        if layer is None:
            self.facts.setText("Open an image, or File › Open Sample › Co-Seg.")
        self._show_rows(channels=False, stack=False)
        self._set_size(PixelSize(None, ""))

    def _on_axes_chosen(self, index: int = 0) -> None:
        image = layers.layer_to_image(self._layer, self.axes)
        y, x = image.spatial_shape[-2:]
        slices = f"{image.spatial_shape[0]} slices of " if image.is_stack else ""
        dtype = np.dtype(image.data.dtype)
        self.facts.setText(f"{slices}{y} × {x} pixels, {dtype}")
        self._offer_channels(image.axes, tuple(image.data.shape))
        self._show_rows(channels="C" in image.axes, stack=image.is_stack)
        self._read_size()

    def _offer_channels(self, axes: str, shape: tuple[int, ...]) -> None:
        self.channels_box.blockSignals(True)
        self.channels_box.clear()
        count = int(shape[axes.index("C")]) if "C" in axes else 0
        if count in (3, 4):
            with_alpha = ", alpha" if count == 4 else ""
            self.channels_box.addItem("red, green, blue" + with_alpha, None)
        for n in range(count):
            named = f" ({COLOR_WORDS[n]})" if count in (3, 4) and n < 3 else ""
            self.channels_box.addItem(f"only {n}{named}, as grey", [n])
        self.channels_box.blockSignals(False)

    def _show_rows(self, *, channels: bool, stack: bool) -> None:
        self._form.setRowVisible(self.channels_box, channels)
        self._form.setRowVisible(self.spacing_box, stack)

    # -- pixel size --------------------------------------------------------------------------

    def _read_size(self) -> None:
        if self._layer is None:
            return
        self._file = None
        self._set_size(layer_pixel_size(self._layer, self.axes))
        self.ask_file()

    def _on_size_typed(self, _: float) -> None:
        side, spacing = self.size_box.value(), self.spacing_box.value()
        count = len(spatial_dims(self.axes))
        if side == 0:
            self._size = PixelSize(None, "set here: the model's own")
        else:
            um = (spacing or side, side, side)[-count:]
            self._size = PixelSize(um, "set here")
        self._tell_size()
        self.changed.emit()

    def _set_size(self, size: PixelSize) -> None:
        self._size = size
        um = size.um or (0.0,)
        for box, value in ((self.size_box, um[-1]), (self.spacing_box, um[0])):
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self._tell_size()
        self.changed.emit()

    def _tell_size(self) -> None:
        self.reset_button.setEnabled(self._size.source.startswith("set here"))
        lines = [self._size.source[:1].upper() + self._size.source[1:]]
        um = self._size.um
        if um is None and self._layer is not None and not lines[0].startswith("Set"):
            lines = ["Not known: the model's own is assumed"]
        if um is not None and len(um) > 1 and um[-1] != um[-2]:
            lines.append(f"{um[-2]:g} µm high, {um[-1]:g} µm wide")
        if um is not None and self._model_um:
            factor = um[-1] / self._model_um
            if not 1 / IMPLAUSIBLE_FACTOR <= factor <= IMPLAUSIBLE_FACTOR:
                lines.append(f"⚠ The model's is {self._model_um:g} µm: is this right?")
            elif abs(factor - 1) > 0.02:
                lines.append(f"Resampled to the model's {self._model_um:g} µm")
        self.source.setText(". ".join(lines) + "." if lines[0] else "")


def narrow_box(tooltip: str) -> QComboBox:
    """A list that does not grow with its longest entry, which may be a long file name."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(10)
    box.setToolTip(tooltip)
    return box


def _size_box(tooltip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setDecimals(4)
    box.setRange(0.0, 10_000.0)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setSuffix(" µm")
    box.setSpecialValueText("model's own")
    box.setKeyboardTracking(False)
    box.setToolTip(tooltip)
    return box
