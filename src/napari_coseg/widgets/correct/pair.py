"""Which pair of labels layers is corrected: that of the newest run, or any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtWidgets import QFormLayout, QWidget

from napari_coseg.widgets import layer_box, outputs
from napari_coseg.widgets.image_choice import narrow_box
from napari_coseg.widgets.runs import regions_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

HELPING_KINDS = ("reviewed", "preview")
"""Labels layers of ours that nobody corrects."""


class PairChoice(QWidget):
    """Two lists of the viewer's labels layers: objects, and regions or none."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.objects_box = narrow_box("Labels whose values are objects")
        self.regions_box = narrow_box("Labels whose values are region classes")
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Objects", self.objects_box)
        form.addRow("Regions", self.regions_box)
        self.objects_box.currentIndexChanged.connect(self._propose_regions)
        self.list_layers()

    @property
    def objects(self) -> Labels | None:
        return layer_box.chosen(self.objects_box, self._viewer)

    @property
    def regions(self) -> Labels | None:
        return layer_box.chosen(self.regions_box, self._viewer)

    def list_layers(self) -> None:
        """List what there is now; what was chosen stays so where it is still there."""
        found = [layer for layer in self._viewer.layers if _is_choice(layer)]
        before = self.objects_box.currentData()
        for box, kind in ((self.objects_box, "objects"), (self.regions_box, "regions")):
            ours = [layer for layer in found if outputs.is_output(layer, kind)]
            others = found if kind == "objects" else []
            layer_box.fill(box, found, ours or others)
        if self.objects_box.currentData() is not before:
            self._propose_regions()

    def _propose_regions(self, _: Any = None) -> None:
        """The regions that the same run gave."""
        regions = None if self.objects is None else regions_of(self._viewer, self.objects)
        if regions is not None:
            layer_box.choose(self.regions_box, regions)


def _is_choice(layer: Any) -> bool:
    helps = any(outputs.is_output(layer, kind) for kind in HELPING_KINDS)
    return isinstance(layer, Labels) and not helps
