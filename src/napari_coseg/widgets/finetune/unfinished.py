"""What was stopped, or ended by a crash: go on with it, begin it anew, or forget it."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QMessageBox, QPushButton, QVBoxLayout

from napari_coseg.finetuning.request import FinetuneRequest, forget, unfinished
from napari_coseg.models.checkpoints.adapter_library import adapters_folder
from napari_coseg.widgets.dock_widget import notify_errors, row
from napari_coseg.widgets.workspace.controller import ago


class UnfinishedPart(QGroupBox):
    """The last unfinished fine-tuning; hidden where there is none.

    Where more was reviewed meanwhile, it says what differs and offers both: to go on with what it
    began with, and to begin anew.

    Signals
    -------
    asked(request, how)
        A `FinetuneRequest` is to be gone on with; `how` are further arguments of the task.
    """

    asked = Signal(object, object)

    def __init__(self) -> None:
        super().__init__("Unfinished")
        self._differs: dict[Path, str] = {}
        self._first: Path | None = None
        self._shown: FinetuneRequest | None = None
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.resume_button, self.forget_button = QPushButton("Resume"), QPushButton("Forget")
        self.begun_button = QPushButton("Go on as it began")
        self.anew_button = QPushButton("Begin anew")
        self.resume_button.setToolTip("Goes on from the last saved state")
        self.forget_button.setToolTip("Delete what it has learnt so far")
        self.begun_button.setToolTip(
            "Goes on from the last saved state, with the reviews that it began with"
        )
        self.anew_button.setToolTip(
            "Begins with all that is reviewed now in the same workspaces and folders, and forgets "
            "what it has learnt so far"
        )
        column = QVBoxLayout(self)
        column.addWidget(self.text)
        column.addWidget(row(self.begun_button, self.anew_button))
        column.addWidget(row(self.resume_button, self.forget_button))
        self.resume_button.clicked.connect(lambda: self.ask())
        self.begun_button.clicked.connect(lambda: self.ask(as_begun=True))
        self.anew_button.clicked.connect(lambda: self.ask(restart=True))
        self.forget_button.clicked.connect(self.forget)
        self.refresh()

    def differs(self, request: FinetuneRequest, message: str) -> None:
        """Other reviews than it began with: ask how to go on."""
        self._differs = {request.run_folder: message}
        self.keeps(request)

    def keeps(self, request: FinetuneRequest | None) -> bool:
        """Whether this one can be gone on with; it is then the one that is shown."""
        self._first = None if request is None else request.run_folder
        self.refresh()
        return self._shown is not None and self._shown.run_folder == self._first

    def refresh(self) -> None:
        """Look for unfinished ones; the one that ended here last comes first."""
        left = unfinished(adapters_folder())
        left.sort(key=lambda one: one.request.run_folder != self._first)
        differs = self._differs.get(left[0].request.run_folder, "") if left else ""
        self._shown = left[0].request if left else None
        self.setVisible(bool(left))
        for button in (self.begun_button, self.anew_button):
            button.setVisible(bool(differs))
        self.resume_button.setVisible(not differs)
        if left:
            one = left[0]
            when = ago(max(0.0, time.time() - one.left_at))
            name = one.request.name or one.request.run_folder.name
            more = f", and {len(left) - 1} more" if len(left) > 1 else ""
            words = f"{name}: step {one.step} of {one.steps}, left {when}{more}"
            self.text.setText(
                html.escape(words) + (f"<br>⚠ {html.escape(differs)}." * bool(differs))
            )

    def ask(self, **how: Any) -> None:
        """Ask to go on with the one that is shown, unless it goes on elsewhere by now."""
        request = self._shown
        self.refresh()
        if request is not None and request == self._shown:
            self._differs = {}
            self.asked.emit(request, how)

    def forget(self) -> None:
        """Delete the state of the one that is shown, once the person has said so."""
        request = self._shown
        if request is None or not self._says_yes(request):
            return
        with notify_errors():
            forget(request)
        self.refresh()

    def _says_yes(self, request: FinetuneRequest) -> bool:
        name = request.name or request.run_folder.name
        answer = QMessageBox.question(
            self, "Co-Seg", f"Forget {name}? What it has learnt so far is deleted."
        )
        return bool(answer == QMessageBox.StandardButton.Yes)
