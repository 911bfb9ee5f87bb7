"""Lists of the viewer's layers to choose from: objects, regions and their image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.layers import Image as ImageLayer
from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QWidget

from napari_coseg.widgets.connections import Connections, layer_list_events
from napari_coseg.widgets.forms import ChoiceBox, form
from napari_coseg.widgets.labelled_image import image_of
from napari_coseg.widgets.outputs import is_output, metadata_of
from napari_coseg.widgets.runs import regions_of

if TYPE_CHECKING:
    from napari.viewer import Viewer


class LayerBox(ChoiceBox):
    """A list of layers, which keeps its choice when layers are added, removed or renamed.

    Parameters
    ----------
    optional
        Whether "none" is listed as well.
    """

    def __init__(self, tooltip: str, *, optional: bool = True) -> None:
        super().__init__(tooltip)
        self._none = [("none", None)] if optional else []
        self.set_layers(())

    def set_layers(self, listed: Sequence[Any], proposed: Sequence[Any] = ()) -> None:
        """List layers, without a signal; where nothing was chosen, the last proposed one is."""
        before = self.currentData()
        kept = [before] if any(one is before for one in listed) else []
        self.set_entries(
            [*self._none, *((layer.name, layer) for layer in listed)], *kept, *proposed[-1:]
        )

    def layer_in(self, viewer: Viewer) -> Any:
        """The chosen layer, unless it has just been removed from the viewer; else None."""
        layer = self.currentData()
        layer = getattr(layer, "__wrapped__", layer)  # napari hands proxies to plugins
        return layer if layer is not None and layer in viewer.layers else None


class LayerChoice(QWidget):
    """Lists of labels layers for objects and for regions and, where asked for, of image layers.

    Proposed are the newest objects, the regions of the same run, and the image of the objects.

    Parameters
    ----------
    image_tooltip
        None: no list of images.
    image_optional
        Whether no image may be chosen.

    Signals
    -------
    changed()
        The lists or a choice are others.
    """

    changed = Signal()

    def __init__(
        self, viewer: Viewer, image_tooltip: str | None = None, *, image_optional: bool = True
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._proposed_for: tuple[Any, list[Any]] = (None, [])
        self.objects_box = LayerBox("Labels layer whose values are object ids")
        self.regions_box = LayerBox("Labels layer whose values are region classes")
        self.image_box = LayerBox(image_tooltip or "", optional=image_optional)
        rows = [("Objects", self.objects_box), ("Regions", self.regions_box)]
        if image_tooltip is not None:
            rows.append(("Image", self.image_box))
        form(*rows, parent=self)
        self.connections = Connections()
        self.connections.connect(self.list_layers, *layer_list_events(viewer))
        self.objects_box.currentIndexChanged.connect(self._on_objects)
        for box in (self.regions_box, self.image_box):
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.list_layers()

    @property
    def objects(self) -> Labels | None:
        layer: Labels | None = self.objects_box.layer_in(self._viewer)
        return layer

    @property
    def regions(self) -> Labels | None:
        layer: Labels | None = self.regions_box.layer_in(self._viewer)
        return layer

    @property
    def image(self) -> ImageLayer | None:
        layer: ImageLayer | None = self.image_box.layer_in(self._viewer)
        return layer

    def list_layers(self, _: Any = None) -> None:
        """List the layers of now; what was chosen stays where it is still there."""
        labels = [layer for layer in self._viewer.layers if is_annotation(layer)]
        kinds = {id(layer): metadata_of(layer).get("kind") for layer in labels}
        of_kind = {
            kind: [layer for layer in labels if kinds[id(layer)] == kind]
            for kind in ("objects", "regions")
        }
        other = [layer for layer in labels if kinds[id(layer)] is None]
        self.objects_box.set_layers(labels, of_kind["objects"] or other)
        self.regions_box.set_layers(labels, of_kind["regions"])
        images = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, ImageLayer) and not is_output(layer, "guidance")
        ]
        self.image_box.set_layers(images)
        self._propose(images)
        self.changed.emit()

    def _on_objects(self, _: Any = None) -> None:
        self._propose(self._proposed_for[1])
        self.changed.emit()

    def _propose(self, images: list[Any]) -> None:
        """Choose regions and image that belong to the objects, where these or the list are new."""
        objects = self.objects
        (before, listed), self._proposed_for = self._proposed_for, (objects, images)
        if objects is None:
            return
        if objects is not before:
            regions = regions_of(self._viewer, objects)
            if regions is not None:
                self.regions_box.choose(regions)
        if objects is not before or listed != images:
            self.image_box.choose(image_of(self._viewer, objects))


def is_annotation(layer: Any) -> bool:
    """Whether a layer holds labels, and not marks or previews of this plugin."""
    return isinstance(layer, Labels) and metadata_of(layer).get("kind") in (
        None,
        "objects",
        "regions",
    )
