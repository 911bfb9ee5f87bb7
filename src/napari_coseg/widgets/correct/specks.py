"""Specks and holes of regions: looked for in a thread, shown, then made to go or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.regions import clean_regions
from napari_coseg.widgets.correct.session import CorrectionSession
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import notify
from napari_coseg.widgets.geometry import placed_like
from napari_coseg.widgets.run_in_thread import run_in_thread

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

    def __init__(self, viewer: Viewer, session: CorrectionSession) -> None:
        self._viewer, self._session = viewer, session
        self._edit: Edit | None = None
        self._layer: Labels | None = None
        self.busy = False
        self._is_closed = False

    @property
    def previewing(self) -> bool:
        return self._edit is not None

    def preview(self, speck_um2: float, hole_um2: float) -> None:
        """Look for them; every pixel is looked at, so a thread does."""
        self.drop()
        self.busy = True
        self.changed.emit("Looking for specks and holes …")
        run_in_thread(
            clean_regions,
            self._session.editor,
            speck_um2,
            hole_um2,
            done=self._on_found,
            failed=self._not_found,
        )

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

    def close(self) -> None:
        """Show nothing; what is found from now on is for nobody."""
        self.drop()
        self._is_closed = True

    def _on_found(self, found: Edit) -> None:
        if self._is_closed:
            return
        self.busy = False
        if found.is_empty:
            self.changed.emit("There are no specks or holes below these areas")
            return
        self._edit = found
        self._show(found)
        self.changed.emit(f"{len(found.new_values):,} pixels would change")

    def _not_found(self, error: Exception) -> None:
        if self._is_closed:
            return
        self.busy = False
        self.changed.emit("")
        notify(error)

    def _show(self, edit: Edit) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        like = self._session.regions or self._session.objects
        color = np.array([*COLOR, 255]) / 255
        layer = Labels(
            edit.mask(like.data.shape).view(np.uint8),
            name="specks and holes",
            colormap=DirectLabelColormap(color_dict={None: color, 0: np.zeros(4)}),
            metadata={METADATA_KEY: {"kind": "preview"}},
            opacity=0.9,
            **placed_like(like),
        )
        layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active
        self._layer = layer
