"""Progress of a long job on stderr."""

from __future__ import annotations

import sys
import time
from typing import Self, TextIO


class ProgressLine:
    """A line on a terminal that is redrawn; in a log file, a new line every 10 %.

    Call it with the fraction done (0 to 1) and a message.
    """

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._title, self._started, self._tenths = title, time.monotonic(), -1
        self._drawn, self._fraction = 0, 0.0

    def __call__(self, fraction: float, message: str) -> None:
        if fraction < self._fraction:  # another job starts
            self._started, self._tenths = time.monotonic(), -1
        self._fraction = fraction
        line = f"{self._title}: {fraction:4.0%} {message}{self._time_left(fraction)}"
        if self._stream.isatty():
            self._stream.write("\r" + line.ljust(self._drawn))
            self._drawn = len(line)
        elif int(fraction * 10) > self._tenths:
            self._tenths = int(fraction * 10)
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._drawn:
            self._stream.write("\n")
            self._drawn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _time_left(self, fraction: float) -> str:
        passed = time.monotonic() - self._started
        if not 0.02 < fraction < 1 or passed < 2:
            return ""
        left = round(passed / fraction - passed)
        return f", {left // 60}:{left % 60:02d} left"
