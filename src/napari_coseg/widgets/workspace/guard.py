"""Asks before napari is closed with corrections that are not on disk."""

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
    """Save, or ask, when this viewer's window is closed. Safe to call again."""
    viewer = getattr(viewer, "__wrapped__", viewer)  # napari hands proxies to plugins
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    if window is not None and window.findChild(CloseGuard) is None:
        window.installEventFilter(CloseGuard(window, controller_of(viewer)))


class CloseGuard(QObject):
    """Event filter of the main window."""

    def __init__(self, window: QWidget, controller: WorkspaceController) -> None:
        super().__init__(window)
        self._window, self._controller = window, controller

    def eventFilter(self, watched: Any, event: Any) -> bool:
        # A hidden window is closed by a program, where nobody could answer.
        is_close = event.type() == QEvent.Type.Close
        if is_close and not may_close(self._controller, self._window, self._window.isVisible()):
            event.ignore()
            return True
        return False


def may_close(controller: WorkspaceController, window: QWidget | None, asks: bool = True) -> bool:
    """Save and close the workspace; whether the window may be closed then.

    Parameters
    ----------
    asks
        Whether the user is asked about unsaved corrections; else they are discarded.
    """
    while True:
        layers = controller.unsaved()
        reason = "" if layers else _finish(controller)
        if not layers and not reason:
            return True
        answer = ask(window, layers, reason) if asks else Buttons.Discard
        if answer == Buttons.Cancel:
            return False
        if answer == Buttons.Discard and not layers:
            controller.abandon()
            return True
        if answer == Buttons.Discard:  # only these; the workspace is saved all the same
            controller.discard_unsaved()
        elif layers and not _save(controller, window):
            return False


def _finish(controller: WorkspaceController) -> str:
    """Save and close the workspace; the reason where that failed, else empty."""
    QGuiApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
    try:
        controller.finish()
    except CosegError as error:
        return str(error)
    finally:
        QGuiApplication.restoreOverrideCursor()
    return ""


def _save(controller: WorkspaceController, window: QWidget | None) -> bool:
    """Add what is unsaved to the workspace, or to a new one; whether that worked."""
    path = None
    if controller.workspace is None:
        path = ask_new_folder(window)
        if path is None:
            return False
    with notify_errors():
        if path is not None:
            controller.create_and_wait(path)
        controller.add_unsaved()
    return not controller.unsaved()


def ask(parent: QWidget | None, layers: list[Labels], reason: str) -> int:
    """Ask whether to save, discard or cancel."""
    if layers:
        names = ", ".join(layer.name for layer in layers[:4]) + (" …" if len(layers) > 4 else "")
        text = "Save your corrections before closing?"
        details = f"Corrected, but not saved in a workspace: {names}."
    else:
        text = "Your last corrections could not be saved."
        details = f"{sentence(reason)}."
    box = QMessageBox(QMessageBox.Icon.Warning, "Co-Seg", text, parent=parent)
    box.setInformativeText(details)
    box.setStandardButtons(Buttons.Save | Buttons.Discard | Buttons.Cancel)
    box.setDefaultButton(Buttons.Save)
    if not layers:
        box.button(Buttons.Save).setText("Try again")
    return int(box.exec())


def ask_new_folder(parent: QWidget | None) -> Path | None:
    """Ask for the folder of a new workspace; None where the user cancels."""
    chosen, _ = QFileDialog.getSaveFileName(
        parent,
        "New workspace: a folder of this name is created",
        str(Path.home() / f"corrections{SUFFIX}"),
        f"Workspace (*{SUFFIX})",
    )
    if not chosen:
        return None
    path = Path(chosen)
    return path if path.suffix else path.with_suffix(SUFFIX)
