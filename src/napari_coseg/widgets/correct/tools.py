"""Tables of the Correct widget's tools, actions and keys, from which the panel is built."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

from napari_coseg.widgets.correct.actions import Corrector
from napari_coseg.widgets.correct.gesture import Gesture


class Tool(NamedTuple):
    """Something drawn on the canvas.

    key     as napari spells it
    closed  whether a drag is an outline, or a line
    hint    what to do, shown while the tool is in use
    """

    name: str
    key: str
    group: Literal["objects", "regions", "review"]
    closed: bool
    use: Callable[[Corrector, Gesture], None]
    hint: str


class Action(NamedTuple):
    """Something done at once to the selected objects, else to the one under the pointer."""

    name: str
    key: str
    use: Callable[[Corrector, Collection[int]], None]
    tip: str


ADD = "A"
# fmt: off
TOOLS = (
    Tool("Select", "S", "objects", True, Corrector.select,
         "Click an object, or draw around several. Shift adds to the selection."),
    Tool("Merge", "M", "objects", False, Corrector.merge,
         "Draw a stroke over the objects to merge."),
    Tool("Split", "C", "objects", False, Corrector.split,
         "Draw a line across an object, or click once in each part."),
    Tool("Add", ADD, "objects", True, Corrector.add,
         "Click where an object is missing, or draw its outline."),
    Tool("Classify", "T", "objects", True, Corrector.classify,
         "Click an object, or draw around several, to give them the class selected below."),
    Tool("Outline", "W", "regions", True, Corrector.outline_region,
         "Draw around the area that gets the region class selected below. Shift clears it."),
    Tool("Fill", "Q", "regions", False, Corrector.fill_region,
         "Click a piece of a region to give it the class selected below. Shift clears it."),
    Tool("Area reviewed", "Shift-R", "review", True, Corrector.review_area,
         "Draw around what you have checked: the objects, the regions, or both, as chosen below. "
         "Shift removes the marks."),
)
ACTIONS = (
    Action("Delete", "D", Corrector.delete, "Delete objects"),
    Action("Fill holes", "H", Corrector.fill, "Fill the holes of objects"),
    Action("Smooth", "O", Corrector.smooth, "Smooth the outlines of objects, in stacks in 3D"),
    Action("Interpolate", "I", Corrector.interpolate,
           "Fill objects between the slices in which they were painted"),
)
REVIEWED = Action(
    "Reviewed", "R", Corrector.review,
    "Mark objects as reviewed, so that a new run leaves them as they are, or remove the mark",
)
# fmt: on
MERGE_SELECTED = "M"
"""With two or more objects selected, the key of Merge merges them at once."""
BRUSH, REGION_BRUSH, NEXT, PREVIOUS, REST = "P", "Shift-P", "N", "Shift-N", "Escape"
CLASS_KEYS = "0123456789"
