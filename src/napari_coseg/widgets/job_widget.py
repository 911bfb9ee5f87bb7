"""Base of the dock widgets whose work is done in a worker process."""

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
from napari_coseg.widgets.dock_widget import DockWidget, notify, notify_errors
from napari_coseg.widgets.job_bar import JobBar

if TYPE_CHECKING:
    from napari.viewer import Viewer


class JobWidget(DockWidget):
    """A form above a `JobBar`, and a `Worker` that is started when the widget is first shown.

    A subclass builds its form with `lay_out`, submits a job in `begin` (by `start`) and uses the
    reply in `receive`.

    Parameters
    ----------
    worker
        None makes one that is closed with the widget; another is left running.
    """

    def __init__(self, napari_viewer: Viewer, worker: Worker | None = None) -> None:
        super().__init__(napari_viewer)
        self._began = 0.0
        self.asked: Any = None
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
        """Begin a job unless one is running; a `CosegError` becomes a notification."""
        if not self.bar.is_busy:
            with notify_errors():
                self.begin()

    def begin(self) -> None:
        """Submit what the form asks for; called by a click on the run button."""
        raise NotImplementedError(f"{type(self).__name__} must define begin")

    def receive(self, reply: Reply, seconds: float) -> None:
        """Use the reply to the job that `start` submitted; it took `seconds`."""
        raise NotImplementedError(f"{type(self).__name__} must define receive")

    def first_shown(self) -> None:
        """Start the worker process early, so that the first run need not wait for it."""
        self.worker.prepare()

    def submit(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None,
        worker: Worker | None = None,
    ) -> Job:
        """As `Worker.submit`; the job's signals are blocked once this widget is closed."""
        job = (worker or self.worker).submit(function, arguments, arrays)
        self._jobs.add(job)
        return job

    def start(
        self,
        function: str,
        arguments: Mapping[str, Any],
        arrays: Mapping[str, Any],
        worker: Worker | None = None,
        asked: Any = None,
    ) -> Job:
        """Submit a job, show its progress, and `receive` its reply.

        Parameters
        ----------
        worker
            Another widget's, where it holds what the job needs; None: this widget's own.
        asked
            Kept as `asked` until the job has ended.
        """
        job = self.submit(function, arguments, arrays, worker)
        self._began, self.asked = time.monotonic(), asked
        self.bar.follow(job)
        job.done.connect(self._on_done)
        job.failed.connect(self._on_failed)
        return job

    def _on_done(self, reply: Reply) -> None:
        self.receive(reply, time.monotonic() - self._began)
        self.asked = None

    def _on_failed(self, error: Exception) -> None:
        self.asked = None
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
        """Cancel the running job, end the worker process and disconnect from the viewer."""
        _block_signals(self._jobs)
        self.bar.cancel()
        if self._owns_worker:
            self.worker.close()
        super().shut_down()


def _block_signals(jobs: Iterable[Job]) -> None:
    for job in jobs:
        job.blockSignals(True)


def _end(worker: Worker, jobs: Iterable[Job], _: Any = None) -> None:
    """Close the worker of a deleted widget; jobs of other widgets fail and are reported."""
    _block_signals(jobs)
    worker.close()
