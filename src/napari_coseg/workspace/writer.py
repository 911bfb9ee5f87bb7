"""Writes the changes of one entry in a thread, so that the window never waits for the disk.

Changes are on the disk about a second later: the thread gathers for `GATHER_S`, writes the records
at once and waits until the disk has them. If writing fails, everything stays in memory, `state` has
the reason, and it is tried again every `RETRY_S`. The journal is folded into the arrays from time
to time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import CosegError, WorkspaceError
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.edit import Box, Edit, Target
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.workspace import records
from napari_coseg.workspace.entry import ENTRY, fold, journal_path, journals, next_journal
from napari_coseg.workspace.facts import EntryFacts, read_entry_facts
from napari_coseg.workspace.files import refusals
from napari_coseg.workspace.journal import JournalFile, framed

if TYPE_CHECKING:
    import pandas as pd

GATHER_S = 1.0
RETRY_S = 5.0
FOLD_ABOVE = 32 * 2**20
"""Bytes of journal."""
FOLD_AFTER_S = 600.0

Telling = Callable[[], Iterable[records.Record]]


@dataclass(frozen=True)
class SaveState:
    """How far saving has come.

    saved_at  `time.monotonic` when something was last on the disk
    waiting   changes that are not yet
    since     `time.monotonic` when the oldest of those was received; None where none waits
    error     why the disk refuses; None while all is well
    """

    saved_at: float
    waiting: int
    since: float | None
    error: CosegError | None


class EntryWriter:
    """The journal of one entry, open for writing. All `record_...` return at once.

    Tell it from one thread, in the order things happen.

    Parameters
    ----------
    folder
        Of the entry; the caller holds the workspace's lock.
    salvage
        Go on from what comes before a damage of the journal; the damaged file is kept beside it.
    """

    def __init__(self, folder: Path, *, salvage: bool = False) -> None:
        self.folder = folder
        self._salvage = salvage
        self._facts: EntryFacts = read_entry_facts(folder / ENTRY)
        self._journal: JournalFile | None = None
        self._received: list[tuple[str, Telling]] = []
        self._packed: list[bytes] = []
        self._waiting = 0
        self._change = threading.Condition()
        self._saved_at = self._folded_at = time.monotonic()
        self._since: float | None = None
        self._error: CosegError | None = None
        self._lost: CosegError | None = None
        self._is_urgent = self._is_closing = False
        self._tries = 0
        self._thread = threading.Thread(target=self._run, name=f"saving {folder.name}", daemon=True)
        self._thread.start()

    # -- telling -------------------------------------------------------------------------------

    def record_edit(self, edit: Edit) -> None:
        """An edit that was made; for one that was taken back its `inverse`."""
        shape = self._facts.shape
        self._tell("edit", lambda: records.of_edit(edit, shape))

    def record_block(self, target: Target, box: Box, values: np.ndarray) -> None:
        """A part of the labels or regions as it is now; `values` must not change any more."""
        self._tell("block", lambda: [records.of_block(target, box, values)])

    def record_rows(self, removed: Iterable[int], rows: pd.DataFrame) -> None:
        """Rows of the table that went, came or changed beside the edits that were received."""
        gone = [int(i) for i in removed]
        self._tell("rows", lambda: records.of_rows(gone, rows))

    def record_reviewed(self, reviewed: Reviewed) -> None:
        """All marks as they are now."""
        self._tell("reviewed", lambda: [records.of_reviewed(reviewed)])

    def record_classes(
        self, classes: tuple[LabelClass, ...], region_classes: tuple[LabelClass, ...]
    ) -> None:
        """All classes as they are now."""
        self._tell("classes", lambda: [records.of_classes(classes, region_classes)])

    @property
    def state(self) -> SaveState:
        with self._change:
            return SaveState(self._saved_at, self._waiting, self._since, self._error)

    def flush(self, timeout_s: float = 30) -> None:
        """Wait until all edits are on the disk.

        Raises
        ------
        WorkspaceError
            Where the disk refuses, or is slower than `timeout_s`. Edits stay in memory.
        """
        with self._change:
            self._is_urgent = True
            tries = self._tries
            self._change.notify_all()
            self._change.wait_for(
                lambda: self._since is None or (self._tries > tries and self._error is not None),
                timeout_s,
            )
            self._is_urgent = False
            if self._error is not None:
                raise self._error
            if self._since is not None:
                raise WorkspaceError(f"{self.folder} was not written in {timeout_s:g} s; try again")

    def close(self, timeout_s: float = 60) -> None:
        """Write what is left, fold the journal and end the thread.

        Raises
        ------
        WorkspaceError
            Where the disk refuses.
        """
        try:
            self.flush(timeout_s)
        finally:
            with self._change:
                self._is_closing = True
                self._change.notify_all()
            self._thread.join(timeout_s)

    def _tell(self, kind: str, telling: Telling) -> None:
        with self._change:
            if self._is_closing:
                raise WorkspaceError(f"{self.folder} is closed; open the workspace again")
            if kind in ("reviewed", "classes"):  # the last word on these is enough
                others = [one for one in self._received if one[0] != kind]
                self._waiting -= len(self._received) - len(others)
                self._received = others
            self._received.append((kind, telling))
            self._waiting += 1
            self._since = self._since or time.monotonic()
            self._change.notify_all()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        if self._salvage:
            self._fold()
        while True:
            with self._change:
                self._change.wait_for(self._has_work, FOLD_AFTER_S)
                if not self._is_urgent and not self._is_closing:
                    wait = RETRY_S if self._error else GATHER_S
                    self._change.wait_for(lambda: self._is_urgent or self._is_closing, wait)
                received, self._received = self._received, []
                count, closing = self._waiting, self._is_closing
            for kind, telling in received:
                self._pack(kind, telling)
            self._attempt(count)
            if not self._packed and (closing or self._is_long()):
                self._fold()
            if closing:
                if self._journal is not None:
                    self._journal.close()
                return

    def _has_work(self) -> bool:
        return bool(self._received or self._packed or self._is_closing)

    def _pack(self, kind: str, telling: Telling) -> None:
        try:
            self._packed += [framed(record) for record in telling()]
        except Exception as error:  # noqa: BLE001  whatever it is, the rest must still be saved
            self._lost = WorkspaceError(f"a change ({kind}) could not be saved: {error!r}")

    def _attempt(self, count: int) -> None:
        """Write what is packed, which is what the first `count` tellings that wait came to."""
        error = self._lost
        try:
            if self._packed:
                with refusals(self.folder):
                    self._opened().append_packed(b"".join(self._packed))
                self._packed.clear()
        except CosegError as found:
            error, count = found, 0
        except Exception as bug:  # noqa: BLE001  the thread must live, and the person must hear
            error, count = WorkspaceError(f"saving failed: {bug!r}; report this"), 0
        with self._change:
            self._error = error
            self._tries += 1
            self._waiting -= count
            if count:
                self._saved_at = time.monotonic()
                self._since = time.monotonic() if self._waiting else None
            self._change.notify_all()

    def _opened(self) -> JournalFile:
        if self._journal is None:
            number = next_journal(self.folder, self._facts)
            self._journal = JournalFile(journal_path(self.folder, number))
        return self._journal

    def _is_long(self) -> bool:
        size = self._journal.size if self._journal else 0
        return size > FOLD_ABOVE or time.monotonic() - self._folded_at > FOLD_AFTER_S

    def _fold(self) -> None:
        """Begin another journal, and bring the older ones into the arrays."""
        self._folded_at = time.monotonic()  # also where it fails: not again at once
        if not journals(self.folder, self._facts.generation):
            return
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        try:
            with refusals(self.folder):
                upto = next_journal(self.folder, self._facts)
                self._facts = fold(self.folder, upto, self._salvage)
        except CosegError as error:
            with self._change:
                self._error = error
        except Exception as bug:  # noqa: BLE001  the journal has everything; go on with it
            with self._change:
                self._error = WorkspaceError(
                    f"{self.folder} cannot be folded: {bug!r}; report this"
                )
