"""A list of layers to choose from, which keeps its choice when layers are renamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox

if TYPE_CHECKING:
    from napari.viewer import Viewer

NONE = "none"


def fill(
    box: QComboBox, found: Sequence[Any], proposed: Sequence[Any] = (), none: bool = True
) -> None:
    """List layers, without a signal. What was chosen stays so where it is still there.

    Parameters
    ----------
    proposed
        The last of these is chosen where nothing was.
    none
        Whether no layer may be chosen as well.
    """
    before = box.currentData()
    box.blockSignals(True)
    box.clear()
    if none:
        box.addItem(NONE, None)
    for layer in found:
        box.addItem(layer.name, layer)
    box.setCurrentIndex(0)
    choose(box, before if any(one is before for one in found) else [None, *proposed][-1])
    box.blockSignals(False)


def choose(box: QComboBox, layer: Any) -> None:
    """Choose a layer; the choice stays as it is where the layer is not listed."""
    for at in range(box.count()):
        if box.itemData(at) is layer:
            box.setCurrentIndex(at)


def chosen(box: QComboBox, viewer: Viewer) -> Any:
    """The layer that is chosen, unless the viewer has lost it meanwhile; None for none."""
    layer = box.currentData()
    return layer if layer is not None and layer in viewer.layers else None
