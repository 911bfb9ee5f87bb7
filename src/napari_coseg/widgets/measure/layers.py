"""Which layers are measured: objects, regions and image; and whether they have changed since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QWidget

from napari_coseg.core.errors import CosegError, ImageError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.measure.tables import UNTYPED
from napari_coseg.widgets import layer_box, layers, outputs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.image_choice import narrow_box

if TYPE_CHECKING:
    from napari.viewer import Viewer

UNTYPED_COLOR = (0, 200, 200)
INTENSITIES = {
    "auto": "stains of colours, else channels",
    "he": "hematoxylin and eosin",
    "hdab": "hematoxylin and DAB",
    "channels": "channels as stored",
    "none": "nothing",
}
LOOK_AFTER_MS = 300
"""So long after the last change of a layer it is compared with what was measured."""


@dataclass(frozen=True, eq=False)
class ChosenLayers:
    """What is to be measured, and what a job of the worker process is told of it."""

    objects: Labels
    regions: Labels | None
    image: ImageLayer | None
    arguments: dict[str, Any]
    arrays: dict[str, Any]
    kinds: tuple[LabelClass, ...]
    name: str
    """Beginning of file names."""

    @property
    def geometry(self) -> Geometry:
        return Geometry.from_json(self.arguments["geometry"])

    @property
    def labels(self) -> tuple[Labels, ...]:
        return (self.objects,) if self.regions is None else (self.objects, self.regions)


class LayersChoice(QWidget):
    """A form of three layers and what is measured of the image."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._seen: tuple[Labels | None, list[ImageLayer | None]] = (None, [])
        self.objects_box = narrow_box("Labels whose values are objects")
        self.regions_box = narrow_box("Labels whose values are region classes")
        self.image_box = narrow_box("Whose stains or channels are measured")
        self.intensity_box = narrow_box("Colour deconvolution, or values as stored")
        for key, words in INTENSITIES.items():
            self.intensity_box.addItem(words, key)
        self.size = QLabel()
        self.size.setWordWrap(True)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Objects", self.objects_box)
        form.addRow("Regions", self.regions_box)
        form.addRow("Image", self.image_box)
        form.addRow("Intensity", self.intensity_box)
        form.addRow("Pixel size", self.size)
        events = viewer.layers.events
        self._events = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._events:
            event.connect(self._list_layers)
        self.objects_box.currentIndexChanged.connect(self._on_objects)
        self._list_layers()

    def disconnect_viewer(self) -> None:
        """Stop following the viewer's layers."""
        for event in self._events:
            event.disconnect(self._list_layers)

    def chosen(self) -> ChosenLayers:
        """What would be measured now.

        Raises
        ------
        ImageError
            Where there are no objects, layers do not fit, or the pixel size is not known.
        """
        objects, regions = self._layer(self.objects_box), self._layer(self.regions_box)
        image = self._layer(self.image_box)
        if objects is None:
            raise ImageError("there are no objects to measure; run Segment, or add a labels layer")
        intensity = self.intensity_box.currentData()
        image = image if intensity != "none" else None
        axes, offset = _place(objects, image) if image is not None else (None, [])
        of_objects, of_regions = outputs.labels_of(objects), outputs.labels_of(regions)
        arrays: dict[str, Any] = {
            "labels": layers.level_0(objects),
            "ids": of_objects.ids,
            "class_ids": of_objects.class_ids,
            "probabilities": of_objects.probabilities,
        }
        if regions is not None:
            arrays["regions"] = layers.level_0(regions)
        if image is not None:
            arrays["image"] = layers.level_0(image)
        arguments = {
            "name": image.name if image is not None else "",
            "axes": axes,
            "offset": offset,
            "geometry": outputs.geometry_of(objects, self._viewer).as_json(),
            "classes": [tasks.pack_class(entry) for entry in of_objects.classes],
            "region_classes": [tasks.pack_class(entry) for entry in of_regions.classes],
            "intensity": intensity,
        }
        kinds = (*of_objects.classes, LabelClass(0, UNTYPED, UNTYPED_COLOR))
        name = outputs.file_stem(self._viewer, objects)
        return ChosenLayers(objects, regions, image, arguments, arrays, kinds, name)

    def _layer(self, box: QComboBox) -> Any:
        layer = layer_box.chosen(box, self._viewer)
        return getattr(layer, "__wrapped__", layer)  # napari hands proxies to plugins

    def _list_layers(self, _: Any = None) -> None:
        """List the layers; the newest of ours is chosen where nothing was."""
        for box, kind in ((self.objects_box, "objects"), (self.regions_box, "regions")):
            found = [layer for layer in self._viewer.layers if _holds_labels(layer)]
            ours = [layer for layer in found if outputs.is_output(layer, kind)]
            other = [layer for layer in found if not outputs.is_output(layer, "regions")]
            layer_box.fill(box, found, ours or (other if kind == "objects" else []))
        images = [layer for layer in self._viewer.layers if isinstance(layer, ImageLayer)]
        images = [layer for layer in images if not outputs.is_output(layer, "guidance")]
        layer_box.fill(self.image_box, images)
        self._on_objects()

    def _on_objects(self, _: Any = None) -> None:
        """Show the pixel size; choose the image of these objects where either list is new."""
        objects = self._layer(self.objects_box)
        if objects is None:
            self._seen = (None, [])
            self.size.setText("")
            return
        self._tell_size(objects)
        images = [self.image_box.itemData(number) for number in range(self.image_box.count())]
        if (objects, images) == self._seen:
            return
        self._seen = (objects, images)
        of_run = outputs.image_of(self._viewer, objects)
        by_hand = outputs.made_of(objects) is None
        for image in images:
            fits = by_hand and (image is None or _fits(objects, image))
            if fits or (image is not None and image is of_run):
                layer_box.choose(self.image_box, image)

    def _tell_size(self, objects: Labels) -> None:
        try:
            size = outputs.geometry_of(objects).known_size_um
        except ImageError:
            self.size.setText("not known")
        else:
            self.size.setText(" × ".join(f"{one:g}" for one in dict.fromkeys(size)) + " µm")


class LayerWatch(QObject):
    """Tells when labels are not any more, or are again, what they were.

    napari says "undone" and "drawn anew" by one event, so the labels' sums by row and column are
    compared, a little after the last event: 15 ms for 4,096 x 4,096 pixels.

    Signals
    -------
    changed(bool)
        Whether the labels differ from those that were remembered.
    """

    changed = Signal(bool)

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Labels, tuple[bytes, ...]] = {}
        self._differs = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(LOOK_AFTER_MS)
        self._timer.timeout.connect(self._look)

    @property
    def differs(self) -> bool:
        """Whether the labels differed when last looked at."""
        return self._differs

    def remember(self, *labels: Labels) -> None:
        """Take these layers, as they are now, for those that are compared with."""
        self.stop()
        self._known = {layer: _fingerprint(layer) for layer in labels}
        for event in self._events():
            event.connect(self._on_event)

    def stop(self) -> None:
        """Let go of the layers."""
        self._timer.stop()
        for event in self._events():
            event.disconnect(self._on_event)
        self._known, self._differs = {}, False

    def _events(self) -> list[Any]:
        names = ("set_data", "data", "paint", "labels_update", "features")
        return [
            getattr(layer.events, name)
            for layer in self._known
            for name in names
            if hasattr(layer.events, name)
        ]

    def _on_event(self, _: Any = None) -> None:
        self._timer.start()

    def _look(self) -> None:
        differs = any(_fingerprint(layer) != known for layer, known in self._known.items())
        if differs != self._differs:
            self._differs = differs
            self.changed.emit(differs)


def _holds_labels(layer: Any) -> bool:
    """Labels that are results or a person's own, and neither marks nor previews of this plugin."""
    kind = dict(layer.metadata.get(METADATA_KEY, {})).get("kind")
    return isinstance(layer, Labels) and kind in (None, "objects", "regions")


def _place(objects: Labels, image: ImageLayer) -> tuple[str, list[int]]:
    """The image's axes, and where in it the labels begin.

    Raises
    ------
    ImageError
        Where the labels do not lie in the image.
    """
    provenance = outputs.labels_of(objects).provenance
    offset = [int(n) for n in provenance.get("region_offset", ())] or [0] * objects.ndim
    shape = layers.level_0(objects).shape
    for axes in dict.fromkeys([str(provenance.get("axes")), *layers.axes_choices(image)]):
        if axes not in layers.axes_choices(image):
            continue
        whole = layers.layer_to_image(image, axes).spatial_shape
        if len(whole) != len(shape):
            continue
        ends = [first + length for first, length in zip(offset, shape, strict=True)]
        if (any(offset) and all(np.less_equal(ends, whole))) or whole == tuple(shape):
            return axes, offset
    raise ImageError(
        f"the image {image.name!r} has shape {tuple(layers.level_0(image).shape)}, the objects "
        f"{objects.name!r} {tuple(shape)}; choose the image that they were made of, or none"
    )


def _fits(objects: Labels, image: ImageLayer) -> bool:
    try:
        _place(objects, image)
    except CosegError:
        return False
    return True


def _fingerprint(layer: Labels) -> tuple[bytes, ...]:
    """Differs where pixels or classes differ, as good as surely."""
    data, features = layers.level_0(layer), layer.features
    prints = []
    if isinstance(data, np.ndarray):
        rows = data.reshape(-1, data.shape[-1])
        # Sums that wrap around are as good, and take no wider copy.
        prints = [np.add.reduce(rows, axis=axis, dtype=data.dtype).tobytes() for axis in (0, 1)]
    if {"index", "class"} <= set(features.columns):
        texts = (features[name].astype(str) for name in ("index", "class"))
        prints += ["\n".join(column).encode() for column in texts]
    return tuple(prints)
