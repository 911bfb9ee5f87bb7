"""What the mouse drew on the canvas, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Gesture:
    """A click or a drag on a plane of the labels.

    Parameters
    ----------
    points
        float (N, 2): y, x in pixels of the labels; whole numbers are pixel centres.
    z
        Slice of a stack; None in 2D.
    is_click
        The mouse did not move.
    shift, control
        Whether the key was held down.
    """

    points: np.ndarray
    z: int | None = None
    is_click: bool = True
    shift: bool = False
    control: bool = False

    @property
    def point(self) -> tuple[float, ...]:
        """First point: (y, x) or (z, y, x)."""
        at = tuple(float(value) for value in self.points[0])
        return at if self.z is None else (float(self.z), *at)


class ObjectProposer(Protocol):
    """Turns gestures of the tool Add into objects, now or later.

    hint         what to do, shown while Add is in use; empty: the tool's own hint
    takes_boxes  whether drags without Shift are boxes, and not outlines
    """

    hint: str
    takes_boxes: bool

    def use(self, gesture: Gesture) -> None:
        """Add or change an object; raises `EditError` where the gesture makes no sense."""

    def close(self) -> None:
        """Ignore answers that arrive from now on."""
