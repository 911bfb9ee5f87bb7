"""Closing napari with corrections that are not on the disk: asks first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_coseg.core.errors import CosegError
from napari_coseg.widgets.dock_widget import notify_errors, sentence
from napari_coseg.widgets.workspace.controller import WorkspaceController, controller_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

Buttons = QMessageBox.StandardButton
SUFFIX = ".coseg"


def guard_closing(viewer: Viewer) -> None:
    """From now on, closing this viewer's window saves, or asks. Again: nothing.

    A viewer without a window has nothing to close.
    """
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands proxies to plugins
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    if window is not None and window.findChild(CloseGuard) is None:
        window.installEventFilter(CloseGuard(window, controller_of(viewer)))


class CloseGuard(QObject):
    """Filters the events of the main window."""

    def __init__(self, window: QWidget, controller: WorkspaceController) -> None:
        super().__init__(window)
        self._window, self._controller = window, controller

    def eventFilter(self, watched: Any, event: Any) -> bool:
        if event.type() == QEvent.Type.Close and not self._may_close():
            event.ignore()
            return True
        return False

    def _may_close(self) -> bool:
        # A window that nobody sees is closed by a program, which nobody can answer.
        asks = self._window.isVisible()
        while True:
            layers = self._controller.unsaved()
            reason = "" if layers else self._finished()
            if not layers and not reason:
                return True
            answer = ask(self._window, layers, reason) if asks else Buttons.Discard
            if answer == Buttons.Cancel:
                return False
            if answer == Buttons.Discard and not layers:
                self._controller.give_up()
                return True
            if answer == Buttons.Discard:  # of these; what a workspace keeps is saved all the same
                self._controller.forget_unsaved()
            elif layers and not self._saved():
                return False

    def _finished(self) -> str:
        """Save and close the workspace; why it could not be, or nothing."""
        QGuiApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
        try:
            self._controller.finish()
        except CosegError as error:
            return str(error)
        finally:
            QGuiApplication.restoreOverrideCursor()
        return ""

    def _saved(self) -> bool:
        """Put what is unsaved into the workspace, or a new one."""
        controller, path = self._controller, None
        if controller.workspace is None:
            path = ask_new_folder(self._window)
            if path is None:
                return False
        with notify_errors():
            if controller.workspace is None and path is not None:
                controller.create_and_wait(path)
            controller.add_unsaved()
        return not controller.unsaved()


def ask(parent: QWidget, layers: list[Labels], reason: str) -> int:
    """Save, discard or cancel."""
    names = ", ".join(layer.name for layer in layers[:4]) + (" …" if len(layers) > 4 else "")
    if layers:
        text = "Save your corrections before closing?"
        more = f"{names}: corrected, and kept in no workspace."
    else:
        text = "Your last corrections could not be saved."
        more = f"{sentence(reason)}."
    box = QMessageBox(QMessageBox.Icon.Warning, "Co-Seg", text, parent=parent)
    box.setInformativeText(more)
    box.setStandardButtons(Buttons.Save | Buttons.Discard | Buttons.Cancel)
    box.setDefaultButton(Buttons.Save)
    if not layers:
        box.button(Buttons.Save).setText("Try again")
    return int(box.exec())


def ask_new_folder(parent: QWidget | None) -> Path | None:
    """A folder that is made as a workspace; None where nobody wants one."""
    chosen, _ = QFileDialog.getSaveFileName(
        parent,
        "New workspace: a folder of this name is made",
        str(Path.home() / f"corrections{SUFFIX}"),
        f"Workspace (*{SUFFIX})",
    )
    if not chosen:
        return None
    path = Path(chosen)
    return path if path.suffix else path.with_suffix(SUFFIX)
