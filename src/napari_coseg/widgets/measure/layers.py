"""Which layers are measured, and whether they have changed since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.measure.tables import UNTYPED
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.connections import Connections
from napari_coseg.widgets.forms import ChoiceBox, text_label
from napari_coseg.widgets.labelled_image import file_stem, place_in
from napari_coseg.widgets.layer_choice import LayerChoice

if TYPE_CHECKING:
    from napari.viewer import Viewer

UNTYPED_COLOR = (0, 200, 200)
INTENSITIES = (
    ("automatic: stains or channels", "auto"),
    ("hematoxylin and eosin", "he"),
    ("hematoxylin and DAB", "hdab"),
    ("channels as stored", "channels"),
    ("none", "none"),
)
COMPARE_AFTER_MS = 300
"""After the last event of a layer, before it is compared with what was measured."""


@dataclass(frozen=True, eq=False)
class ChosenLayers:
    """What is to be measured, with the arguments and arrays of the worker process's job.

    Parameters
    ----------
    kinds
        Classes of the objects and, last, objects without a class.
    name
        Beginning of file names.
    """

    objects: Labels
    regions: Labels | None
    arguments: dict[str, Any]
    arrays: dict[str, Any]
    kinds: tuple[LabelClass, ...]
    name: str

    @property
    def geometry(self) -> Geometry:
        return Geometry.from_json(self.arguments["geometry"])

    @property
    def labels(self) -> tuple[Labels, ...]:
        return (self.objects,) if self.regions is None else (self.objects, self.regions)


class MeasureChoice(LayerChoice):
    """A form of the three layers, the intensities to measure, and the pixel size."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer, "Image whose stains or channels are measured")
        self.size = text_label()
        self.intensity_box = ChoiceBox("Colour deconvolution, or values as stored", INTENSITIES)
        self.layout().addRow("Intensity", self.intensity_box)
        self.layout().addRow("Pixel size", self.size)
        self.changed.connect(self._show_size)
        self._show_size()

    def chosen(self) -> ChosenLayers:
        """What would be measured now.

        Raises
        ------
        ImageError
            Where there are no objects, layers do not fit, or the pixel size is not known.
        """
        objects, regions = self.objects, self.regions
        if objects is None:
            raise ImageError("there are no objects to measure; run Segment, or add a labels layer")
        arguments, arrays = outputs.label_request(objects, regions, self.image)
        intensity = self.intensity_box.currentData()
        image = None if intensity == "none" else self.image
        axes, offset = (None, []) if image is None else place_in(objects, image)
        if image is not None:
            arrays["image"] = layers.level_0(image)
        arguments |= {
            "name": "" if image is None else image.name,
            "axes": axes,
            "offset": offset,
            "intensity": intensity,
        }
        kinds = *outputs.classes_of(objects), LabelClass(0, UNTYPED, UNTYPED_COLOR)
        name = file_stem(self._viewer, objects)
        return ChosenLayers(objects, regions, arguments, arrays, kinds, name)

    def _show_size(self) -> None:
        if self.objects is None:
            self.size.setText("")
            return
        try:
            size = outputs.geometry_of(self.objects).known_size_um
        except ImageError:
            self.size.setText("unknown")
        else:
            self.size.setText(" × ".join(f"{one:g}" for one in dict.fromkeys(size)) + " µm")


class LayerWatch(QObject):
    """Detects whether labels differ from what they were when they were remembered.

    napari emits the same event for an undo and for a redraw, so sums of the labels by row and
    column are compared, a little after the last event: 15 ms for 4,096 x 4,096 pixels.

    Signals
    -------
    changed(bool)
        Whether the labels differ from those that were remembered.
    """

    changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._remembered: dict[Labels, tuple[bytes, ...]] = {}
        self._connections = Connections()
        self.differs = False
        """Whether the labels differed at the last comparison."""
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(COMPARE_AFTER_MS)
        self._timer.timeout.connect(self._compare)

    @property
    def is_pending(self) -> bool:
        """Whether a comparison is due after an event."""
        return bool(self._timer.isActive())

    def remember(self, *labels: Labels) -> None:
        """Compare with these layers as they are now."""
        self.stop()
        self._remembered = {layer: _fingerprint(layer) for layer in labels}
        for layer in labels:
            for name in ("set_data", "data", "paint", "labels_update", "features"):
                if hasattr(layer.events, name):
                    self._connections.connect(self._on_event, getattr(layer.events, name))

    def stop(self) -> None:
        """Forget the layers."""
        self._timer.stop()
        self._connections.close()
        self._remembered, self.differs = {}, False

    def _on_event(self, _: Any = None) -> None:
        self._timer.start()

    def _compare(self) -> None:
        pairs = self._remembered.items()
        differs = any(_fingerprint(layer) != before for layer, before in pairs)
        if differs != self.differs:
            self.differs = differs
            self.changed.emit(differs)


def _fingerprint(layer: Labels) -> tuple[bytes, ...]:
    """Bytes that differ, almost surely, where pixels or classes differ."""
    data, features = layers.level_0(layer), layer.features
    prints = []
    if isinstance(data, np.ndarray):
        rows = data.reshape(-1, data.shape[-1])
        # Sums that overflow compare as well, and need no wider copy.
        prints = [np.add.reduce(rows, axis=axis, dtype=data.dtype).tobytes() for axis in (0, 1)]
    if {"index", "class"} <= set(features.columns):
        texts = (features[name].astype(str) for name in ("index", "class"))
        prints += ["\n".join(column).encode() for column in texts]
    return tuple(prints)
