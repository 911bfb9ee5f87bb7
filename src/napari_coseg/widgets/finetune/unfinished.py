"""The part of the Fine-tune dock that resumes, restarts or deletes an unfinished training."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGroupBox, QLabel, QMessageBox, QPushButton, QVBoxLayout

from napari_coseg.finetuning.request import FinetuneRequest, forget, unfinished
from napari_coseg.models.checkpoints.adapter_library import adapters_folder
from napari_coseg.widgets.dock_widget import notify_errors
from napari_coseg.widgets.forms import row
from napari_coseg.widgets.workspace.controller import ago


class UnfinishedPart(QGroupBox):
    """The last unfinished fine-tuning; hidden where there is none.

    Where other labels are reviewed now, it says what differs and offers both: to resume with the
    original labels, and to start over.

    Signals
    -------
    asked(request, how)
        A `FinetuneRequest` is to be resumed; `how` are further arguments of the job.
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
        self.resume_button, self.delete_button = QPushButton("Resume"), QPushButton("Delete")
        self.original_button = QPushButton("Resume with original labels")
        self.restart_button = QPushButton("Start over")
        self.resume_button.setToolTip("Continues from the last saved state")
        self.delete_button.setToolTip("Deletes what it has trained so far")
        self.original_button.setToolTip(
            "Continues from the last saved state, with the labels that it started with"
        )
        self.restart_button.setToolTip(
            "Starts with all that is reviewed now in the same workspaces and folders, and discards "
            "what it has trained so far"
        )
        column = QVBoxLayout(self)
        column.addWidget(self.text)
        column.addWidget(row(self.original_button, self.restart_button))
        column.addWidget(row(self.resume_button, self.delete_button))
        self.resume_button.clicked.connect(lambda: self.ask())
        self.original_button.clicked.connect(lambda: self.ask(original_labels=True))
        self.restart_button.clicked.connect(lambda: self.ask(restart=True))
        self.delete_button.clicked.connect(self.forget)
        self.refresh()

    def differs(self, request: FinetuneRequest, message: str) -> None:
        """Other labels are reviewed now: ask how to continue."""
        self._differs = {request.run_folder: message}
        self.keeps(request)

    def keeps(self, request: FinetuneRequest | None) -> bool:
        """Whether this one can be resumed; it is then the one that is shown."""
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
        for button in (self.original_button, self.restart_button):
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
        """Ask to resume the one that is shown, unless it runs elsewhere by now."""
        request = self._shown
        self.refresh()
        if request is not None and request == self._shown:
            self._differs = {}
            self.asked.emit(request, how)

    def forget(self) -> None:
        """Delete the state of the one that is shown, after asking."""
        request = self._shown
        if request is None or not self._confirms(request):
            return
        with notify_errors():
            forget(request)
        self.refresh()

    def _confirms(self, request: FinetuneRequest) -> bool:
        name = request.name or request.run_folder.name
        answer = QMessageBox.question(
            self, "Co-Seg", f"Delete the training of {name}? What it has trained so far is lost."
        )
        return bool(answer == QMessageBox.StandardButton.Yes)
