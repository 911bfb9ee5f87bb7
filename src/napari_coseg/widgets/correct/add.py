"""Where the maps come from that an object is grown on under a click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from napari_coseg.labels.editing.add import grow
from napari_coseg.labels.editing.edit import Box, Edit
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.review import Reviewed


@dataclass(frozen=True, eq=False)
class Maps:
    """The model's maps of a part of one plane.

    Parameters
    ----------
    object_probability
        Float (Ym, Xm), 0 to 1.
    hv
        Float (2, Ym, Xm), -1 to 1: horizontal and vertical distance to the object's centre.
    class_probability
        Float (1 + T, Ym, Xm), background first; None where the model knows no types.
    field
        Rows and columns of the labels that they cover, on whatever grid.
    """

    object_probability: np.ndarray
    hv: np.ndarray
    class_probability: np.ndarray | None
    field: Box


class MapsProvider(Protocol):
    """Gives maps around a point, now or later; calls exactly one of the two in the GUI thread."""

    def ask(
        self,
        point: Sequence[float],
        done: Callable[[Maps], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Maps of a part with (y, x) or (z, y, x), in pixels of the labels, well inside."""


def grown(
    editor: LabelEditor, point: Sequence[float], maps: Maps, reviewed: Reviewed, class_id: int
) -> Edit:
    """The object under a click as the model sees it; of `class_id` where the model has no types."""
    return grow(
        editor,
        point,
        maps.object_probability,
        maps.hv,
        class_probability=maps.class_probability,
        field=maps.field,
        class_id=class_id,
        reviewed=reviewed,
    )
