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
from napari_coseg.widgets.connections import Connections
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
"""Time for copying chunks before other events are processed."""


@dataclass
class Recorded:
    """What the writer has recorded so far. Made in a thread, as it reads every pixel."""

    watches: dict[Target, Watch]
    table: pd.DataFrame
    reviewed: Reviewed
    classes: tuple[tuple[LabelClass, ...], tuple[LabelClass, ...]]

    @classmethod
    def of(cls, saved: Saved) -> Recorded:
        """Everything in `saved`."""
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
        Where changes are recorded.
    recorded
        What the entry holds.

    Signals
    -------
    failed(str)
        Why changes can no longer be followed or written; once for each reason.
    """

    failed = Signal(str)

    def __init__(
        self, entry: Entry, writer: EntryWriter, recorded: Recorded, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.entry, self.writer = entry, writer
        self.layers: dict[Target, Labels] = {}
        self._recorded = recorded
        self._session: CorrectionSession | None = None
        self._session_connections = Connections()
        self._is_scanning = False
        self._warned = ""
        self._differing: deque[tuple[Target, Box]] = deque()
        self._timer = QTimer(self)
        self._timer.setInterval(SCAN_MS)
        self._timer.timeout.connect(self.scan)

    def attach(self, objects: Labels | None, regions: Labels | None = None) -> None:
        """Follow these layers, and sessions that correct them, now or later."""
        pairs: tuple[tuple[Target, Any], ...] = (("objects", objects), ("regions", regions))
        self.layers = {
            target: layer
            for target, layer in pairs
            if layer is not None and target in self._recorded.watches
        }
        SESSIONS.opened.connect(self._on_opened)
        for session in list(SESSIONS.open):
            self._on_opened(session)
        self._timer.start()

    def close(self) -> None:
        """Stop following; changes that are not recorded are lost, so `record_all` first."""
        self._timer.stop()
        SESSIONS.opened.disconnect(self._on_opened)
        self._leave_session()
        self.layers = {}
        self._differing.clear()
        self.setParent(None)  # the controller would keep it alive

    @property
    def is_scanning(self) -> bool:
        """Whether chunks are being compared or copied."""
        return self._is_scanning or bool(self._differing)

    @property
    def is_recorded(self) -> bool:
        """Whether everything that the layers hold now is recorded; reads every pixel."""
        return not self._look({target: layer.data for target, layer in self.layers.items()})

    def record_all(self) -> None:
        """Compare everything now and record what differs: before closing.

        Raises
        ------
        CosegError
            Where a layer's image was replaced by another.
        """
        for target, box in self._look({t: layer.data for t, layer in self.layers.items()}):
            self._record_block(target, box)
        self._record_rest()

    # -- sessions ------------------------------------------------------------------------------

    def _on_opened(self, session: CorrectionSession) -> None:
        objects = self.layers.get("objects")
        if objects is None or session.objects is not objects:
            return
        self._leave_session()
        self._session = session
        self._session_connections.connect(self._on_change, session.changed)
        self._session_connections.connect(self._leave_session, session.closed)
        self._record_rest()

    def _leave_session(self) -> None:
        self._session = None
        self._session_connections.close()

    def _on_change(self, change: Change) -> None:
        session = self._session
        if session is None:
            return
        step = change.step
        if not step.edit.is_empty:
            self.writer.record_edit(step.edit)
            self._recorded.table = session.editor.table
        if step.marks is not None:
            self._recorded.reviewed = step.marks[1]
            self.writer.record_reviewed(step.marks[1])

    def _record_rest(self) -> None:
        """Record rows, marks and classes of the session that are not recorded yet."""
        session, recorded = self._session, self._recorded
        if session is None:
            return
        editor = session.editor
        if editor.table is not recorded.table:
            gone, rows = rows_between(recorded.table, editor.table)
            if len(gone) or len(rows):
                self.writer.record_rows(gone.tolist(), rows)
            recorded.table = editor.table
        if session.reviewed is not recorded.reviewed:
            self.writer.record_reviewed(session.reviewed)
            recorded.reviewed = session.reviewed
        if (editor.classes, editor.region_classes) != recorded.classes:
            self.writer.record_classes(editor.classes, editor.region_classes)
            recorded.classes = (editor.classes, editor.region_classes)

    # -- other changes -------------------------------------------------------------------------

    def scan(self) -> None:
        """Find chunks that changed outside of a session, in a thread; `_on_scanned` copies them."""
        self._warn(self.writer.state.error)
        if self.is_scanning:
            return
        self._record_rest()
        self._is_scanning = True
        images = {target: layer.data for target, layer in self.layers.items()}
        run_in_thread(self._look, images, done=self._on_scanned, failed=self._on_failed)

    def _look(self, images: dict[Target, np.ndarray]) -> list[tuple[Target, Box]]:
        watches = self._recorded.watches
        return [(t, box) for t, image in images.items() for box in watches[t].differing(image)]

    def _on_scanned(self, found: list[tuple[Target, Box]]) -> None:
        self._is_scanning = False
        if self.layers:
            self._differing.extend(found)
            self._copy_some()

    def _on_failed(self, error: Exception) -> None:
        self._is_scanning = False
        if self.layers:
            self._timer.stop()
            self.failed.emit(str(error))

    def _warn(self, error: CosegError | None) -> None:
        message = "" if error is None else f"{error}. Corrections stay in memory until it works"
        if message and message != self._warned:
            self.failed.emit(message)
        self._warned = message

    def _copy_some(self) -> None:
        ends = time.monotonic() + COPY_FOR_S
        while self._differing and time.monotonic() < ends:
            try:
                self._record_block(*self._differing.popleft())
            except CosegError as error:
                self._differing.clear()
                self._on_failed(error)
        if self._differing:
            QTimer.singleShot(0, self._copy_some)

    def _record_block(self, target: Target, box: Box) -> None:
        watch, image = self._recorded.watches[target], self.layers[target].data
        watch.check(image)
        values = np.array(image[box])
        self.writer.record_block(target, box, values)
        watch.record(box, values)
