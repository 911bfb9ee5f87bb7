"""Which pair of labels layers is corrected: that of the newest run, or any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtWidgets import QComboBox, QFormLayout, QWidget

from napari_coseg.widgets import outputs
from napari_coseg.widgets.image_choice import narrow_box
from napari_coseg.widgets.runs import regions_of

if TYPE_CHECKING:
    from napari.viewer import Viewer

NONE = "none"
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
        return self._layer(self.objects_box)

    @property
    def regions(self) -> Labels | None:
        return self._layer(self.regions_box)

    def list_layers(self) -> None:
        """List what there is now; what was chosen stays so where it is still there."""
        found = [layer for layer in self._viewer.layers if _is_choice(layer)]
        known = {layer.name for layer in found}
        before = self.objects_box.currentData()
        for box, kind in ((self.objects_box, "objects"), (self.regions_box, "regions")):
            was = box.currentData()
            box.blockSignals(True)
            box.clear()
            box.addItem(NONE, None)
            for layer in found:
                box.addItem(layer.name, layer.name)
            ours = [layer.name for layer in found if outputs.is_output(layer, kind)]
            others = [layer.name for layer in found if kind == "objects"]
            chosen = was if was in known else (ours or others or [None])[-1]
            box.setCurrentIndex(max(0, box.findData(chosen)))
            box.blockSignals(False)
        if self.objects_box.currentData() != before:
            self._propose_regions()

    def _propose_regions(self, _: Any = None) -> None:
        """The regions that the same run gave."""
        objects = self.objects
        regions = None if objects is None else regions_of(self._viewer, objects)
        if regions is not None:
            self.regions_box.setCurrentIndex(self.regions_box.findData(regions.name))

    def _layer(self, box: QComboBox) -> Labels | None:
        name = box.currentData()
        return next((layer for layer in self._viewer.layers if layer.name == name), None)


def _is_choice(layer: Any) -> bool:
    helps = any(outputs.is_output(layer, kind) for kind in HELPING_KINDS)
    return isinstance(layer, Labels) and not helps
