"""Records every change of an image's label layers with the writer of its workspace entry.

Corrections of a `CorrectionSession` are recorded as they are made. Everything else (a brush without
a session, another plugin, a script, an array changed in place) is found by comparing digests of the
layers' chunks every `SCAN_MS`, in a thread. Chunks that differ are then copied, a few at a time, in
the GUI thread, where nothing edits them meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_coseg.core.errors import CosegError
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Box, Target
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.widgets.correct.session import SESSIONS, Change, CorrectionSession
from napari_coseg.widgets.run_in_thread import run_in_thread
from napari_coseg.workspace.entry import Entry
from napari_coseg.workspace.saved import Saved, rows_between
from napari_coseg.workspace.watch import Watch
from napari_coseg.workspace.writer import EntryWriter

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Labels

SCAN_MS = 10_000
COPY_FOR_S = 0.02
"""So long chunks are copied before the window gets its turn again."""


@dataclass
class Known:
    """What the writer has been told so far. Made in a thread, as it looks at every pixel."""

    watches: dict[Target, Watch]
    table: pd.DataFrame
    reviewed: Reviewed
    classes: tuple[tuple[LabelClass, ...], tuple[LabelClass, ...]]

    @classmethod
    def of(cls, saved: Saved) -> Known:
        """All that is saved."""
        watches: dict[Target, Watch] = {"objects": Watch(saved.labels)}
        if saved.regions is not None:
            watches["regions"] = Watch(saved.regions)
        classes = (saved.classes, saved.region_classes)
        return cls(watches, saved.table, saved.reviewed, classes)


class WorkspaceLink(QObject):
    """Follows a pair of layers until `close`. All methods are for the GUI thread.

    Parameters
    ----------
    entry, writer
        Where changes go.
    known
        What the entry holds.

    Signals
    -------
    troubled(str)
        Changes can no longer be followed, or the disk refuses, and why; once for each reason.
    """

    troubled = Signal(str)

    def __init__(
        self, entry: Entry, writer: EntryWriter, known: Known, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.entry, self.writer = entry, writer
        self.layers: dict[Target, Labels] = {}
        self._known = known
        self._session: CorrectionSession | None = None
        self._scanning = False
        self._warned = ""
        self._differing: deque[tuple[Target, Box]] = deque()
        self._timer = QTimer(self)
        self._timer.setInterval(SCAN_MS)
        self._timer.timeout.connect(self.scan)

    def attach(self, objects: Labels | None, regions: Labels | None = None) -> None:
        """Follow these layers, and the session that corrects them, now or later."""
        pairs: tuple[tuple[Target, Any], ...] = (("objects", objects), ("regions", regions))
        self.layers = {
            target: layer
            for target, layer in pairs
            if layer is not None and target in self._known.watches
        }
        SESSIONS.opened.connect(self._on_opened)
        for session in list(SESSIONS.open):
            self._on_opened(session)
        self._timer.start()

    def close(self) -> None:
        """Follow no longer; what was not told yet is lost, so `tell_all` first."""
        self._timer.stop()
        SESSIONS.opened.disconnect(self._on_opened)
        self._leave_session()
        self.layers = {}
        self._differing.clear()
        self.setParent(None)  # its controller would hold it for good

    def tell_all(self) -> None:
        """Look at everything now and tell what differs: before closing.

        Raises
        ------
        CosegError
            Where a layer has become another image.
        """
        for target, layer in self.layers.items():
            for box in self._known.watches[target].differing(_values(layer)):
                self._tell_block(target, box)
        self._tell_rest()

    # -- sessions ------------------------------------------------------------------------------

    def _on_opened(self, session: CorrectionSession) -> None:
        objects = self.layers.get("objects")
        if objects is None or session.objects is not objects:
            return
        self._leave_session()
        self._session = session
        session.changed.connect(self._on_change)
        session.closed.connect(self._leave_session)
        self._tell_rest()

    def _leave_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.changed.disconnect(self._on_change)
            session.closed.disconnect(self._leave_session)

    def _on_change(self, change: Change) -> None:
        session = self._session
        if session is None:
            return
        step = change.step
        if not step.edit.is_empty:
            self.writer.record_edit(step.edit)
            self._known.table = session.editor.table
        if step.marks is not None:
            self._known.reviewed = step.marks[1]
            self.writer.record_reviewed(step.marks[1])

    def _tell_rest(self) -> None:
        """Rows, marks and classes of the session that nobody has told of."""
        session, known = self._session, self._known
        if session is None:
            return
        editor = session.editor
        if editor.table is not known.table:
            gone, rows = rows_between(known.table, editor.table)
            if len(gone) or len(rows):
                self.writer.record_rows(gone.tolist(), rows)
            known.table = editor.table
        if session.reviewed is not known.reviewed:
            self.writer.record_reviewed(session.reviewed)
            known.reviewed = session.reviewed
        if (editor.classes, editor.region_classes) != known.classes:
            self.writer.record_classes(editor.classes, editor.region_classes)
            known.classes = (editor.classes, editor.region_classes)

    # -- what came round -----------------------------------------------------------------------

    def scan(self) -> None:
        """Look for chunks that changed without a word, in a thread; `_on_scanned` tells them."""
        self._warn(self.writer.state.error)
        if self._scanning or self._differing:
            return
        self._tell_rest()
        self._scanning = True
        images = {target: layer.data for target, layer in self.layers.items()}
        run_in_thread(self._look, images, done=self._on_scanned, failed=self._on_trouble)

    def _look(self, images: dict[Target, np.ndarray]) -> list[tuple[Target, Box]]:
        watches = self._known.watches
        return [(t, box) for t, image in images.items() for box in watches[t].differing(image)]

    def _on_scanned(self, found: list[tuple[Target, Box]]) -> None:
        self._scanning = False
        if self.layers:
            self._differing.extend(found)
            self._copy_some()

    def _on_trouble(self, error: Exception) -> None:
        self._scanning = False
        if self.layers:
            self._timer.stop()
            self.troubled.emit(str(error))

    def _warn(self, error: CosegError | None) -> None:
        message = "" if error is None else f"{error}. Corrections stay in memory until it works"
        if message and message != self._warned:
            self.troubled.emit(message)
        self._warned = message

    def _copy_some(self) -> None:
        ends = time.monotonic() + COPY_FOR_S
        while self._differing and time.monotonic() < ends:
            target, box = self._differing.popleft()
            try:
                self._tell_block(target, box)
            except CosegError as error:
                self._differing.clear()
                self._on_trouble(error)
        if self._differing:
            QTimer.singleShot(0, self._copy_some)

    def _tell_block(self, target: Target, box: Box) -> None:
        watch, image = self._known.watches[target], _values(self.layers[target])
        watch.check(image)
        values = np.array(image[box])
        self.writer.record_block(target, box, values)
        watch.told(box, values)


def _values(layer: Labels) -> np.ndarray:
    image: np.ndarray = layer.data
    return image
