"""The model's maps around a click, from which an object is grown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from napari_coseg.labels.editing.edit import Box


@dataclass(frozen=True, eq=False)
class Maps:
    """The model's maps of a part of one plane.

    Parameters
    ----------
    object_probability
        float (Ym, Xm), 0 to 1.
    hv
        float (2, Ym, Xm), -1 to 1: horizontal and vertical distance to the object's centre.
    class_probability
        float (1 + T, Ym, Xm), background first; None where the model has no object classes.
    field
        Rows and columns of the labels that the maps cover, on a grid of any resolution.
    """

    object_probability: np.ndarray
    hv: np.ndarray
    class_probability: np.ndarray | None
    field: Box


class MapsProvider(Protocol):
    """Gives maps around a point, now or later."""

    def ask(
        self,
        point: Sequence[float],
        done: Callable[[Maps], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Call `done` or `failed` once, in the GUI thread.

        The maps contain the point (y, x) or (z, y, x), in pixels of the labels, well inside.
        """
