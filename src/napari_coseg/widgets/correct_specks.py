"""Specks and holes of regions: looked for in a thread, shown, then made to go or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal
from superqt.utils import create_worker

from napari_coseg.editing.edit import Edit
from napari_coseg.editing.regions import clean_regions
from napari_coseg.errors import CosegError
from napari_coseg.widgets.correct_session import Session
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import told

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

COLOR = (230, 0, 90)


class Specks:
    """One preview at a time.

    Signals
    -------
    changed(str)
        What is shown now, in words; `previewing` and `busy` tell which buttons make sense.
    """

    changed = Signal(str)

    def __init__(self, viewer: Viewer, session: Session) -> None:
        self._viewer, self._session = viewer, session
        self._edit: Edit | None = None
        self._layer: Labels | None = None
        self.busy = False

    @property
    def previewing(self) -> bool:
        return self._edit is not None

    def preview(self, speck_um2: float, hole_um2: float) -> None:
        """Look for them; every pixel is looked at, so a thread does."""
        self.drop()
        self.busy = True
        self.changed.emit("Looking for specks and holes …")
        worker = create_worker(_found, self._session, speck_um2, hole_um2)
        worker.returned.connect(self._on_found)
        worker.start()

    def accept(self) -> None:
        """Make what is shown go, as one undo step."""
        edit = self._edit
        self.drop()
        if edit is not None:
            self._session.do(edit)
            self.changed.emit(f"Changed {len(edit.new_values):,} pixels of specks and holes")

    def drop(self) -> None:
        """Show nothing, and change nothing."""
        self._edit = None
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None
        self.changed.emit("")

    def _on_found(self, found: Edit | CosegError) -> None:
        self.busy = False
        with told():
            if isinstance(found, CosegError):
                self.changed.emit("")
                raise found
            if found.is_empty:
                self.changed.emit("There are no specks or holes below these areas")
                return
            self._edit = found
            self._show(found)
            self.changed.emit(f"{len(found.new_values):,} pixels would change")

    def _show(self, edit: Edit) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        like = self._session.regions or self._session.objects
        color = np.array([*COLOR, 255]) / 255
        keys: Any = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
        layer = Labels(
            edit.mask(like.data.shape).view(np.uint8),
            name="specks and holes",
            colormap=DirectLabelColormap(color_dict={None: color, 0: np.zeros(4)}),
            metadata={METADATA_KEY: {"kind": "preview"}},
            opacity=0.9,
            **{key: getattr(like, key) for key in keys},
        )
        layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active
        self._layer = layer


def _found(session: Session, speck_um2: float, hole_um2: float) -> Edit | CosegError:
    try:
        return clean_regions(session.desk, speck_um2, hole_um2)
    except CosegError as error:  # told in the window's thread
        return error
