"""The tools of the Correct widget and their keys, as tables: what the panel shows is what works."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

from napari_coseg.widgets.correct.actions import Corrector
from napari_coseg.widgets.correct.gesture import Gesture


class Tool(NamedTuple):
    """Something drawn on the canvas.

    key     as napari spells it
    closed  whether a drag is an outline, or a line
    hint    what to do, shown while the tool is in the hand
    """

    name: str
    key: str
    group: Literal["objects", "regions", "review"]
    closed: bool
    hint: str
    use: Callable[[Corrector, Gesture], None]


class Action(NamedTuple):
    """Something done at once to the chosen objects or, where none is, to that under the pointer."""

    name: str
    key: str
    tip: str
    use: Callable[[Corrector, Collection[int]], None]


ADD = "A"
TOOLS = (
    Tool(
        "Select",
        "S",
        "objects",
        True,
        "Click an object, or draw around several. Shift adds to those chosen.",
        Corrector.select,
    ),
    Tool(
        "Merge",
        "M",
        "objects",
        False,
        "Draw a stroke over the objects that are one.",
        Corrector.merge,
    ),
    Tool(
        "Split",
        "C",
        "objects",
        False,
        "Draw a line from side to side, or click once in each part.",
        Corrector.split,
    ),
    Tool(
        "Add",
        ADD,
        "objects",
        True,
        "Click where an object is missing, or draw its outline.",
        Corrector.add,
    ),
    Tool(
        "Classify",
        "T",
        "objects",
        True,
        "Click an object, or draw around several, to give them the class ticked below.",
        Corrector.classify,
    ),
    Tool(
        "Outline",
        "W",
        "regions",
        True,
        "Draw around what becomes the region class ticked below. Shift clears.",
        Corrector.outline_region,
    ),
    Tool(
        "Fill",
        "Q",
        "regions",
        False,
        "Click a piece of a region to give it the class ticked below. Shift clears.",
        Corrector.fill_region,
    ),
    Tool(
        "Area reviewed",
        "Shift-R",
        "review",
        True,
        "Draw around what you have checked: the objects, the regions, or both, as chosen below. "
        "Shift takes the marks away.",
        Corrector.review_area,
    ),
)

ACTIONS = (
    Action("Delete", "D", "Delete the objects", Corrector.delete),
    Action("Fill holes", "H", "Fill the objects' holes", Corrector.fill),
    Action("Smooth", "O", "Smooth the objects' outlines", Corrector.smooth),
)
REVIEWED = Action(
    "Reviewed",
    "R",
    "Mark the objects as checked: a new run leaves them as they are. Again: take the mark away",
    Corrector.review,
)
MERGE_CHOSEN = "M"
"""With two or more chosen, the key of Merge merges them at once."""
BRUSH, REGION_BRUSH, NEXT, BEFORE, REST = "P", "Shift-P", "N", "Shift-N", "Escape"
CLASS_KEYS = "0123456789"
