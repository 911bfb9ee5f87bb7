"""How a fine-tuning reports what it does, and how it is paused or stopped: plain callables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from napari_coseg.core.errors import Cancelled

PAUSE_POLL_S = 0.1


@dataclass
class FinetuneHooks:
    """What the caller wants to know, and whether it wants to stop. All are optional.

    Parameters
    ----------
    progress
        Called with the part done, 0..1, and one line of text that says the time left.
    report
        Called with a kind of event and plain JSON values:

        ``note``        message: something a user should know (a smaller batch, an assumption)
        ``plan``        steps, seconds_a_step, crops, input, parts, and more of the run's plan
        ``step``        step, steps, loss, learning_rate, seconds_left
        ``scores``      when ("before", "validation", "after"; "base_before", "base_after", "kept"
                        of what was forgotten), step, and the scores
        ``picture``     path of a PNG: image, truth, prediction side by side
    should_cancel, should_pause
        Asked several times a step. A cancelled fine-tuning can be resumed.
    """

    progress: Callable[[float, str], None] = lambda fraction, message: None
    report: Callable[[str, dict[str, Any]], None] = lambda kind, values: None
    should_cancel: Callable[[], bool] = lambda: False
    should_pause: Callable[[], bool] = lambda: False


@dataclass
class RunControl:
    """Called between pieces of work: waits while paused, raises when cancelled.

    Also keeps the notes and the progress, which never goes backwards.
    """

    hooks: FinetuneHooks = field(default_factory=FinetuneHooks)
    fraction: float = 0.0
    notes: list[str] = field(default_factory=list)
    paused_s: float = 0.0

    def __call__(self) -> bool:
        """Always False, so that it can be given as `should_cancel`.

        Raises
        ------
        Cancelled
            When the caller says so, while paused as well.
        """
        began = time.perf_counter()
        paused = False
        while True:
            if self.hooks.should_cancel():
                raise Cancelled("the fine-tuning was stopped; the same call resumes it")
            if not self.hooks.should_pause():
                break
            if not paused:
                self.hooks.progress(self.fraction, "paused")
                paused = True
            time.sleep(PAUSE_POLL_S)
        if paused:
            self.paused_s += time.perf_counter() - began
        return False

    def clock(self) -> float:
        """Seconds since some moment, which do not count while paused."""
        return time.perf_counter() - self.paused_s

    def progress(self, fraction: float, message: str) -> None:
        self.fraction = max(self.fraction, min(1.0, fraction))
        self.hooks.progress(self.fraction, message)

    def note(self, message: str) -> None:
        """Report something that a user should know, once; it is kept with the adapter."""
        if message not in self.notes:
            self.notes.append(message)
            self.hooks.report("note", {"message": message})
            self.hooks.progress(self.fraction, message)
