"""Base of the dock widgets that have work done by a process beside the window."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import (
    QFrame,
    QGroupBox,
    QHBoxLayout,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_coseg.errors import Cancelled, CosegError
from napari_coseg.widgets.job_bar import JobBar
from napari_coseg.widgets.process import Reply
from napari_coseg.widgets.worker import Worker

if TYPE_CHECKING:
    from napari.viewer import Viewer


class JobWidget(QWidget):
    """A form above a `JobBar`, and one `Worker` that is warm from the first look to the end.

    A subclass builds its form with `lay_out`, and says what a click on Run does in `run` (usually
    `start`) and what comes back in `receive`.

    Parameters
    ----------
    napari_viewer
        The viewer that it is docked in.
    worker
        None makes one of its own, which is closed with the widget; another is left running.
    """

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._began = 0.0
        self._was_docked = False
        self.worker = worker or Worker()
        self._owns_worker = worker is None
        self.bar = JobBar()
        self.bar.run_clicked.connect(self.run)
        if self._owns_worker:
            self.destroyed.connect(self.worker.close)

    def lay_out(self, *groups: QWidget) -> None:
        """Stack the groups in a column that scrolls, with the bar below."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(4, 4, 8, 4)
        column.setSpacing(10)
        for one in groups:
            column.addWidget(one)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(4, 4, 4, 8)
        outer.addWidget(_UprightScroll(content), 1)
        outer.addWidget(self.bar)

    def run(self) -> None:
        """What a click on Run does."""
        raise NotImplementedError(f"{type(self).__name__} must say what Run does")

    def receive(self, reply: Reply, seconds: float) -> None:
        """What came back, and how long it took."""
        raise NotImplementedError(f"{type(self).__name__} must say what to do with a reply")

    def first_shown(self) -> None:
        """The widget is seen and its process not yet started; starting it now keeps Run quick."""
        self.worker.prepare()

    def let_go(self) -> None:
        """The widget is closed: disconnect from the viewer."""

    def start(self, function: str, arguments: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Submit a job, show its progress, and `receive` its reply."""
        job = self.worker.submit(function, arguments, arrays)
        self._began = time.monotonic()
        self.bar.follow(job)
        job.done.connect(self._on_done)
        job.failed.connect(self._on_failed)

    def failed(self) -> None:
        """The job ended without a reply; what was kept for it can go."""

    def _on_done(self, reply: Reply) -> None:
        self.receive(reply, time.monotonic() - self._began)

    def _on_failed(self, error: Exception) -> None:
        self.failed()
        if isinstance(error, Cancelled):
            self.bar.finish("Cancelled.")
            return
        self.bar.finish("Failed.")
        with told():
            raise error

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if self.worker.pid is None:
            self.first_shown()

    def event(self, event: Any) -> bool:
        """Napari takes a closed dock widget's content out of it, and closes nothing."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._was_docked = True
            elif self._was_docked:
                self.shut_down()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Stop what runs, end the worker process and let go of the viewer."""
        self.bar.cancel()
        if self._owns_worker:
            self.worker.close()
        self.let_go()


class _UprightScroll(QScrollArea):
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
def told() -> Iterator[None]:
    """Turn what a person can mend into a notification; a bug goes on to napari's own handler."""
    try:
        yield
    except CosegError as error:
        message = str(error)
        show_error(message[:1].upper() + message[1:])


def group(title: str, content: QWidget) -> QGroupBox:
    """A titled frame around a widget."""
    box = QGroupBox(title)
    column = QVBoxLayout(box)
    column.addWidget(content)
    return box


def row(*widgets: QWidget) -> QWidget:
    """Widgets side by side, the space at the right."""
    container = QWidget()
    line = QHBoxLayout(container)
    line.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        line.addWidget(widget)
    line.addStretch(1)
    return container
