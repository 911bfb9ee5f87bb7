"""Base of the dock widgets: a column that scrolls, errors as notifications, and an end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QGroupBox,
    QHBoxLayout,
    QMainWindow,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.core.errors import CosegError

if TYPE_CHECKING:
    from napari.viewer import Viewer


class DockWidget(QWidget):
    """A form in a column that scrolls, which lets go of the viewer when it is closed.

    The first time that it is shown it becomes a tab beside the other docks of this plugin: below
    them, as napari would have it, none of two or three could be seen whole.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._was_docked = False
        self._is_placed = False

    def lay_out(self, *groups: QWidget, below: QWidget | None = None) -> None:
        """Stack the groups in a column that scrolls; what is `below` does not."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 8, 4)
        column.setSpacing(10)
        for one in groups:
            column.addWidget(one)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 8)
        outer.addWidget(UprightScroll(content), 1)
        if below is not None:
            outer.addWidget(below)

    def shut_down(self) -> None:
        """The widget is closed: stop what runs and let go of the viewer."""
        self.let_go()

    def let_go(self) -> None:
        """Disconnect from the viewer."""

    def event(self, event: Any) -> bool:
        """Napari takes a closed dock widget's content out of it, and closes nothing."""
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
        """Become a tab beside the docks of this plugin that are on the same side, in front."""
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


class UprightScroll(QScrollArea):
    """Scrolls up and down, and is as wide as its content needs."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        width = self.widget().minimumSizeHint().width()
        return QSize(width + self.verticalScrollBar().sizeHint().width(), 150)


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


def group(title: str, content: QWidget) -> QGroupBox:
    """A titled frame around a widget."""
    box = QGroupBox(title)
    column = QVBoxLayout(box)
    column.addWidget(content)
    return box


def column_of(*widgets: QWidget) -> QWidget:
    """Widgets one below the other."""
    container = QWidget()
    column = QVBoxLayout(container)
    column.setContentsMargins(0, 0, 0, 0)
    column.setSpacing(6)
    for widget in widgets:
        column.addWidget(widget)
    return container


def row(*widgets: QWidget) -> QWidget:
    """Widgets side by side, the space at the right."""
    container = QWidget()
    line = QHBoxLayout(container)
    line.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        line.addWidget(widget)
    line.addStretch(1)
    return container
