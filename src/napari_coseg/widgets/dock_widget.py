"""Base of the dock widgets: a column that scrolls, errors as notifications, and a clean end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QTimer
from qtpy.QtWidgets import QDockWidget, QMainWindow, QVBoxLayout, QWidget

from napari_coseg.core.errors import CosegError
from napari_coseg.widgets.connections import Connections
from napari_coseg.widgets.forms import ScrollColumn

if TYPE_CHECKING:
    from napari.viewer import Viewer


class DockWidget(QWidget):
    """A form in a column that scrolls; disconnects from the viewer when it is closed.

    When it is shown for the first time it becomes a tab beside the other docks of this plugin:
    stacked, as napari places them, two or three would not fit on the screen.

    Attributes
    ----------
    connections
        Callbacks that are disconnected when the widget is closed.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self.connections = Connections()
        self._was_docked = False
        self._is_placed = False

    def lay_out(self, *groups: QWidget, below: QWidget | None = None) -> None:
        """Stack the groups in a column that scrolls; `below` stays in view under it."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 8, 4)
        column.setSpacing(10)
        for one in groups:
            column.addWidget(one)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 8)
        outer.addWidget(ScrollColumn(content), 1)
        if below is not None:
            outer.addWidget(below)

    def shut_down(self) -> None:
        """Stop what runs and disconnect from the viewer: the widget is closed."""
        self.let_go()
        self.connections.close()

    def let_go(self) -> None:
        """Release what `connections` does not."""

    def event(self, event: Any) -> bool:
        """Notice that napari takes the content out of a closed dock, without closing it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
            elif self._was_docked:
                self.shut_down()
        return bool(super().event(event))

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if self._was_docked and not self._is_placed:
            self._is_placed = True
            QTimer.singleShot(0, self._join_others)  # napari is still placing it

    def closeEvent(self, event: Any) -> None:
        self.shut_down()
        super().closeEvent(event)

    def _join_others(self) -> None:
        """Become the front tab among the docks of this plugin on the same side."""
        window = self.window()
        if not isinstance(window, QMainWindow):
            return
        docks = [dock for dock in window.findChildren(QDockWidget) if not dock.isFloating()]
        own = next((dock for dock in docks if dock.isAncestorOf(self)), None)
        if own is None:
            return
        area = window.dockWidgetArea(own)
        others = [
            dock
            for dock in docks
            if dock is not own
            and dock.findChild(DockWidget) is not None
            and window.dockWidgetArea(dock) == area
            and not dock.isHidden()
        ]
        if others:
            window.tabifyDockWidget(others[-1], own)
            own.raise_()


@contextlib.contextmanager
def notify_errors() -> Iterator[None]:
    """Show a `CosegError` as a notification; a bug goes on to napari's own handler."""
    try:
        yield
    except CosegError as error:
        show_error(sentence(error))


def notify(error: Exception) -> None:
    """As `notify_errors`, for an exception that a callback received."""
    with notify_errors():
        raise error


def sentence(error: Exception | str) -> str:
    """An error's message with a capital at its start."""
    message = str(error)
    return message[:1].upper() + message[1:]
