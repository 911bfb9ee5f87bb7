"""Run, Cancel, a progress bar and the time left: the face of one job at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_coseg.widgets.background.worker import Job

STEPS = 1000


class TimeLeft:
    """Estimates what is left from what is done; what came before the first part does not count.

    Parameters
    ----------
    clock
        Seconds, for ever rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start: tuple[float, float] | None = None

    def seconds(self, fraction: float) -> float | None:
        """Seconds left, or None while that cannot be told."""
        now = self._clock()
        if self._start is None:
            self._start = (now, fraction)
        began, first = self._start
        if now - began < 1 or fraction <= first:
            return None
        return (now - began) * (1 - fraction) / (fraction - first)


def in_words(seconds: float) -> str:
    """A duration no more exact than it is known.

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
    """Two buttons, a bar and a line of text.

    Signals
    -------
    run_clicked()
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
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.buttons = QHBoxLayout()
        self.buttons.addWidget(self.run_button, 2)
        self.buttons.addWidget(self.cancel_button, 1)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(self.buttons)
        outer.addWidget(self.progress)
        outer.addWidget(self.text)
        self.tells_time_left = True
        """Switched off where the job's own messages tell it."""
        self._job: Job | None = None
        self._left = TimeLeft()
        self.run_button.clicked.connect(self.run_clicked)
        self.cancel_button.clicked.connect(self.cancel)

    @property
    def is_busy(self) -> bool:
        return self._job is not None

    def follow(self, job: Job) -> None:
        """Show a job from now to its end."""
        self._job, self._left = job, TimeLeft()
        self.run_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        self.progress.setRange(0, 0)  # moves by itself until the first part is done
        self.text.setText("starting")
        job.progressed.connect(self._on_progress)

    def finish(self, text: str, *, done: bool = False) -> None:
        """The job is over; `text` says how it went."""
        self._job = None
        self.run_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        self.progress.setRange(0, STEPS)
        self.progress.setValue(STEPS if done else 0)
        self.text.setText(text)

    def cancel(self) -> None:
        """Stop the job that is followed, if there is one."""
        if self._job is not None:
            self.cancel_button.setEnabled(False)
            self.text.setText("cancelling")
            self._job.cancel()

    def _on_progress(self, fraction: float, message: str) -> None:
        if self._job is None or self._job.is_cancelled:
            return
        if fraction > 0:
            self.progress.setRange(0, STEPS)
            self.progress.setValue(round(fraction * STEPS))
            left = self._left.seconds(fraction)
            if left is not None and self.tells_time_left:
                message += f" · about {in_words(left)} left"
        self.text.setText(message)
