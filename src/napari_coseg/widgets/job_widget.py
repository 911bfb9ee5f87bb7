"""Base of the dock widgets that have work done by a process beside the window."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QWidget

from napari_coseg.core.errors import Cancelled
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Job, Worker
from napari_coseg.widgets.dock_widget import DockWidget, notify
from napari_coseg.widgets.job_bar import JobBar

if TYPE_CHECKING:
    from napari.viewer import Viewer


class JobWidget(DockWidget):
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
        super().__init__(napari_viewer)
        self._began = 0.0
        self.worker = worker or Worker()
        self._owns_worker = worker is None
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()
        self.bar = JobBar()
        self.bar.run_clicked.connect(self.run)
        if self._owns_worker:
            self.destroyed.connect(partial(_end, self.worker, self._jobs))

    def lay_out(self, *groups: QWidget, below: QWidget | None = None) -> None:
        """Stack the groups in a column that scrolls, with the bar below."""
        super().lay_out(*groups, below=below or self.bar)

    def run(self) -> None:
        """What a click on Run does."""
        raise NotImplementedError(f"{type(self).__name__} must say what Run does")

    def receive(self, reply: Reply, seconds: float) -> None:
        """What came back, and how long it took."""
        raise NotImplementedError(f"{type(self).__name__} must say what to do with a reply")

    def first_shown(self) -> None:
        """The widget is seen and its process not yet started; starting it now keeps Run quick."""
        self.worker.prepare()

    def submit(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None,
        worker: Worker | None = None,
    ) -> Job:
        """As `Worker.submit`; nothing is heard of the job once this widget is closed."""
        job = (worker or self.worker).submit(function, arguments, arrays)
        self._jobs.add(job)
        return job

    def start(
        self,
        function: str,
        arguments: Mapping[str, Any],
        arrays: Mapping[str, Any],
        worker: Worker | None = None,
    ) -> Job:
        """Submit a job, show its progress, and `receive` its reply.

        Parameters
        ----------
        worker
            Of another widget, where it holds what the job needs; None: this widget's own.
        """
        job = self.submit(function, arguments, arrays, worker)
        self._began = time.monotonic()
        self.bar.follow(job)
        job.done.connect(self._on_done)
        job.failed.connect(self._on_failed)
        return job

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
        notify(error)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if self.worker.pid is None:
            self.first_shown()

    def shut_down(self) -> None:
        """Stop what runs, end the worker process and let go of the viewer."""
        _silence(self._jobs)
        self.bar.cancel()
        if self._owns_worker:
            self.worker.close()
        self.let_go()


def _silence(jobs: Iterable[Job]) -> None:
    """Nobody is left to hear of them."""
    for job in jobs:
        job.blockSignals(True)


def _end(worker: Worker, jobs: Iterable[Job], _: Any = None) -> None:
    """Of a widget that is gone: jobs that others have given its worker are told."""
    _silence(jobs)
    worker.close()
