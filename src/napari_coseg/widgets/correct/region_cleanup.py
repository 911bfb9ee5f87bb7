"""Small pieces and holes of regions: searched in a thread, shown, then removed or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.regions import clean_regions
from napari_coseg.widgets.correct.session import CorrectionSession
from napari_coseg.widgets.dock_widget import notify
from napari_coseg.widgets.outputs import add_helper_layer, direct_colormap
from napari_coseg.widgets.run_in_thread import run_in_thread

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

COLOR = (230, 0, 90)
LAYER = "small pieces and holes"


class RegionCleanup:
    """Removes small pieces and holes of regions, after a preview.

    Signals
    -------
    changed(str)
        A status message; `previewing` and `busy` say which buttons apply.
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

    def preview(self, piece_um2: float, hole_um2: float) -> None:
        """Search for pieces and holes below these areas; in a thread, as it reads every pixel."""
        self.discard()
        self.busy = True
        self.changed.emit("Searching for small pieces and holes …")
        run_in_thread(
            clean_regions,
            self._session.editor,
            piece_um2,
            hole_um2,
            done=self._on_found,
            failed=self._on_failed,
        )

    def accept(self) -> None:
        """Apply what is shown, as one undo step."""
        edit = self._edit
        self.discard()
        if edit is not None:
            self._session.do(edit)
            self.changed.emit(f"Changed {len(edit.new_values):,} pixels of small pieces and holes")

    def discard(self) -> None:
        """Remove the preview and change nothing."""
        self._edit = None
        if self._layer is not None and self._layer in self._viewer.layers:
            self._viewer.layers.remove(self._layer)
        self._layer = None
        self.changed.emit("")

    def close(self) -> None:
        """Remove the preview, and ignore what is found from now on."""
        self.discard()
        self._is_closed = True

    def _on_found(self, found: Edit) -> None:
        if self._is_closed:
            return
        self.busy = False
        if found.is_empty:
            self.changed.emit("No piece and no hole is smaller than these areas")
            return
        self._edit = found
        like = self._session.regions or self._session.objects
        self._layer = add_helper_layer(
            self._viewer,
            found.mask(like.data.shape).view(np.uint8),
            like,
            name=LAYER,
            kind="preview",
            colormap=direct_colormap({}, unknown=COLOR),
        )
        self.changed.emit(f"{len(found.new_values):,} pixels would change")

    def _on_failed(self, error: Exception) -> None:
        if self._is_closed:
            return
        self.busy = False
        self.changed.emit("")
        notify(error)
