"""What the mouse drew on the canvas, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.drawing import Plane

if TYPE_CHECKING:
    from napari.layers import Labels


@dataclass(frozen=True, eq=False)
class Gesture:
    """A click or a drag on a plane of the labels.

    Parameters
    ----------
    points
        float (N, 2): along the axes of the plane, in pixels of the labels and the order of their
        axes (y, x of a slice z); whole numbers are pixel centres.
    plane
        Of a stack; None in 2D.
    is_click
        The mouse did not move.
    shift, control
        Whether the key was held down.
    """

    points: np.ndarray
    plane: Plane | None = None
    is_click: bool = True
    shift: bool = False
    control: bool = False

    @property
    def point(self) -> tuple[float, ...]:
        """First point: (y, x) or (z, y, x)."""
        at = tuple(float(value) for value in self.points[0])
        if self.plane is None:
            return at
        return (*at[: self.plane.axis], float(self.plane.at), *at[self.plane.axis :])

    @property
    def z(self) -> int | None:
        """Slice of a stack, for models that see slices; None in 2D.

        Raises
        ------
        EditError
            In a plane of another axis.
        """
        if self.plane is None:
            return None
        if self.plane.axis:
            raise EditError(
                "the model sees slices in the plane y, x; show these, or draw the object's outline"
            )
        return self.plane.at


def plane_shown(layer: Labels) -> Plane | None:
    """The plane of a stack that the canvas shows; None in 2D.

    Raises
    ------
    EditError
        In the 3D display.
    """
    hidden = layer._slice_input.not_displayed
    if layer.ndim == 2 and not hidden:
        return None
    if layer.ndim != 3 or len(hidden) != 1:
        raise EditError("corrections are drawn in a plane; switch to the 2D display")
    return Plane(hidden[0], int(layer._get_pt_not_disp()[hidden[0]]))


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
