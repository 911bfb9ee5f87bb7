"""Run and Cancel buttons, a progress bar and the time left, for one job at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_coseg.widgets.background.worker import Job
from napari_coseg.widgets.forms import text_label

STEPS = 1000


class TimeLeft:
    """Estimates the time left from the progress; time before the first report does not count.

    Parameters
    ----------
    clock
        Gives seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start: tuple[float, float] | None = None

    def seconds(self, fraction: float) -> float | None:
        """Seconds left at this fraction done; None while it cannot be estimated."""
        now = self._clock()
        if self._start is None:
            self._start = (now, fraction)
        began, first = self._start
        if now - began < 1 or fraction <= first:
            return None
        return (now - began) * (1 - fraction) / (fraction - first)


def in_words(seconds: float) -> str:
    """A rounded duration.

    >>> in_words(3.2), in_words(48), in_words(400), in_words(9000)
    ('3 s', '50 s', '7 min', '2.5 h')
    """
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 90:
        return f"{round(seconds / 10) * 10} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


class JobBar(QWidget):
    """Two buttons, a progress bar and a line of text.

    Signals
    -------
    run_clicked()

    Attributes
    ----------
    job
        The job that is shown; None between jobs.
    shows_time_left
        False where the job's own messages say it.
    """

    run_clicked = Signal()

    def __init__(self, run_text: str = "Run") -> None:
        super().__init__()
        self.run_button = QPushButton(run_text)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setEnabled(False)
        self.progress = QProgressBar()
        self.progress.setRange(0, STEPS)
        self.progress.setTextVisible(False)
        self.progress.setMaximumHeight(8)
        self.text = text_label()
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.run_button, 2)
        self.buttons.addWidget(self.cancel_button, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(self.buttons)
        outer.addWidget(self.progress)
        outer.addWidget(self.text)
        self.shows_time_left = True
        self.job: Job | None = None
        self._left = TimeLeft()
        self.run_button.clicked.connect(self.run_clicked)
        self.cancel_button.clicked.connect(self.cancel)

    @property
    def is_busy(self) -> bool:
        return self.job is not None

    def follow(self, job: Job) -> None:
        """Show a job's progress until `finish`."""
        self.job, self._left = job, TimeLeft()
        self.run_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        self.progress.setRange(0, 0)  # animated until the first progress report
        self.text.setText("starting")
        job.progressed.connect(self._on_progress)

    def finish(self, text: str, *, done: bool = False) -> None:
        """Show the outcome of the job in `text`; `done` fills the bar."""
        self.job = None
        self.run_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        self.progress.setRange(0, STEPS)
        self.progress.setValue(STEPS if done else 0)
        self.text.setText(text)

    def cancel(self) -> None:
        """Cancel the job that is shown, if there is one."""
        if self.job is not None:
            self.cancel_button.setEnabled(False)
            self.text.setText("cancelling")
            self.job.cancel()

    def _on_progress(self, fraction: float, message: str) -> None:
        if self.job is None or self.job.is_cancelled:
            return
        if fraction > 0:
            self.progress.setRange(0, STEPS)
            self.progress.setValue(round(fraction * STEPS))
            left = self._left.seconds(fraction)
            if left is not None and self.shows_time_left:
                message += f" · about {in_words(left)} left"
        self.text.setText(message)
