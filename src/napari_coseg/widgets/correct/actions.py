"""What the tools and keys of the Correct widget do: edits of one undo step, with a status message.

Independent of buttons: a `Corrector` takes gestures and selected objects, and makes the edit with
the functions of `napari_coseg.labels.editing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from psygnal import Signal

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing import objects, regions
from napari_coseg.labels.editing.drawing import (
    ids_inside_polygon,
    ids_under_stroke,
    in_image,
    pixel_at,
    plane_of,
    polygon_pixels,
)
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.interpolate import interpolate
from napari_coseg.labels.editing.review import BOTH, Doubtful, doubtful_first
from napari_coseg.labels.editing.split import split_along, split_at
from napari_coseg.labels.measure import UNTYPED
from napari_coseg.widgets.correct.display import Display
from napari_coseg.widgets.correct.gesture import Gesture, ObjectProposer, plane_shown
from napari_coseg.widgets.correct.session import Change, CorrectionSession
from napari_coseg.widgets.dock_widget import sentence


class Corrector:
    """Actions on one session.

    Attributes
    ----------
    object_class, region_class
        Class that new and reclassified objects, and drawn regions, get.
    stroke_px
        Width of the stroke that merges.
    smooth_px
        Radius by which outlines are smoothed.
    area_targets
        What an area is marked as reviewed for: objects, regions, or both.
    proposer
        What finds objects for the tool Add: the run's model, or SAM2; None where there is neither.
    """

    message = Signal(str)
    review_changed = Signal()

    def __init__(self, session: CorrectionSession, display: Display) -> None:
        self.session, self.display = session, display
        self.proposer: ObjectProposer | None = None
        self.region_class = min((e.id for e in session.editor.region_classes), default=0)
        self.area_targets = BOTH if session.regions is not None else ("objects",)
        self.stroke_px, self.smooth_px = 5.0, 2.0
        self._first_click: tuple[float, ...] | None = None
        self._last_shown: tuple[float, int] | None = None
        session.changed.connect(self._on_change)

    def close(self) -> None:
        """Stop following the session."""
        self.session.changed.disconnect(self._on_change)

    @property
    def object_class(self) -> int:
        return self.session.new_class

    @object_class.setter
    def object_class(self, class_id: int) -> None:
        self.session.new_class = class_id

    def class_name(self, class_id: int) -> str:
        """Name of a class of objects; "untyped" for 0 and unknown ids."""
        classes = self.session.editor.classes
        return next((entry.name for entry in classes if entry.id == class_id), UNTYPED)

    # -- objects, by mouse ---------------------------------------------------------------------

    def select(self, gesture: Gesture) -> None:
        """Select the object under a click, or those whose centroid is inside an outline.

        With Shift they are added to the selection; a Shift-click on a selected one removes it.
        """
        selected = set(self.display.selected) if gesture.shift else set()
        if gesture.is_click:
            selected ^= {self.object_at(gesture.point)} - {0}
        else:
            selected |= set(
                ids_inside_polygon(self.session.editor, gesture.points, plane=gesture.plane)
            )
        self.display.select(selected)
        self.message.emit(f"{_counted(selected)} selected" if selected else "Nothing selected")

    def merge(self, gesture: Gesture) -> None:
        """Merge the objects that a stroke touches."""
        if gesture.is_click:
            raise EditError("draw a stroke over the objects to merge; a click merges nothing")
        ids = ids_under_stroke(self.session.editor, gesture.points, self.stroke_px, gesture.plane)
        if not ids:
            raise EditError("the stroke touches no object; draw it over two or more")
        self.merge_ids(ids)

    def split(self, gesture: Gesture) -> None:
        """Split objects along a line, or one object by two clicks, one in each part."""
        editor = self.session.editor
        if not gesture.is_click:
            self._first_click = None
            edit = split_along(editor, gesture.points, plane=gesture.plane)
        elif self._first_click is None:
            if not self.object_at(gesture.point):
                raise EditError("there is no object; click in each part of one, or draw a line")
            self._first_click = gesture.point
            self.message.emit("Now click in the other part")
            return
        else:
            first, self._first_click = self._first_click, None
            edit = split_at(editor, [first, gesture.point])
        parts = len(edit.changed) + len(edit.added)
        self._do(edit, f"Split {_named(edit.changed)} into {parts}")
        self.display.select([*edit.changed, *edit.added])

    def add(self, gesture: Gesture) -> None:
        """Let the proposer add an object at a click or in a box, or add an outline as an object."""
        proposer = self.proposer
        is_box = proposer is not None and proposer.takes_boxes and not gesture.shift
        if gesture.is_click or is_box:
            if proposer is None:
                raise EditError("no model can find an object at a click; draw its outline")
            proposer.use(gesture)
            return
        editor, class_id = self.session.editor, self.object_class
        self.added(
            objects.add_polygon(editor, gesture.points, class_id=class_id, plane=gesture.plane)
        )

    def added(self, edit: Edit, details: str = "") -> None:
        """Make an edit that adds one object, and select it."""
        (new,) = edit.added
        rows = edit.new_rows
        class_id = int(rows.loc[rows["id"] == new, "class_id"].iloc[0])
        self._do(edit, f"Added object {new}: {self.class_name(class_id)}{details}")
        self.display.select([new])

    def classify(self, gesture: Gesture) -> None:
        """Give the class to the object under a click, or to all with their centroid inside."""
        if gesture.is_click:
            ids = [self.object_at(gesture.point)]
        else:
            ids = ids_inside_polygon(self.session.editor, gesture.points, plane=gesture.plane)
        self.set_class(ids, self.object_class)

    # -- selected objects, by key --------------------------------------------------------------

    def merge_ids(self, ids: Collection[int]) -> None:
        edit = objects.merge(self.session.editor, ids)
        (target,) = edit.changed
        self._do(edit, f"Merged {len(edit.removed) + 1} objects into {target}")
        self.display.select([target])

    def delete(self, ids: Collection[int]) -> None:
        self._do(objects.delete(self.session.editor, ids), f"Deleted {_named(ids)}")

    def fill(self, ids: Collection[int]) -> None:
        self._do(objects.fill_holes(self.session.editor, ids), f"Filled holes of {_named(ids)}")

    def smooth(self, ids: Collection[int]) -> None:
        edit = objects.smooth(self.session.editor, ids, self.smooth_px)
        self._do(edit, f"Smoothed {_named(ids)}")

    def interpolate(self, ids: Collection[int]) -> None:
        """Fill objects between the planes, along the axis that is hidden, where they were drawn."""
        plane = plane_shown(self.session.objects)
        axis = 0 if plane is None else plane.axis
        edit = interpolate(self.session.editor, ids, axis)
        self._do(edit, f"Filled {_named(ids)} between slices")

    def set_class(self, ids: Collection[int], class_id: int) -> None:
        edit = objects.set_class(self.session.editor, ids, class_id)
        self._do(edit, f"{sentence(_named(ids))} → {self.class_name(class_id)}")

    # -- regions -------------------------------------------------------------------------------

    def outline_region(self, gesture: Gesture) -> None:
        """Give the inside of an outline the region class; with Shift make it background."""
        if gesture.is_click:
            raise EditError("draw an outline around the region")
        class_id = 0 if gesture.shift else self.region_class
        self._do(regions.set_region(self.session.editor, gesture.points, class_id, gesture.plane))

    def fill_region(self, gesture: Gesture) -> None:
        """Give the connected piece under a click the region class; with Shift background."""
        class_id = 0 if gesture.shift else self.region_class
        across = 0 if gesture.plane is None else gesture.plane.axis
        self._do(regions.fill_region(self.session.editor, gesture.point, class_id, across))

    # -- review --------------------------------------------------------------------------------

    def review(self, ids: Collection[int]) -> None:
        """Mark objects as reviewed or, where all of them are, remove their marks."""
        ids = [int(i) for i in sorted(ids) if i in self.session.editor.index]
        if not ids:
            raise EditError("no object is selected; select one first")
        reviewed, names = self.session.reviewed, sentence(_named(ids))
        if set(ids) <= reviewed.ids:
            self.session.mark("Remove review marks", reviewed.without_objects(ids))
            self.message.emit(f"{names} no longer marked as reviewed")
        else:
            self.session.mark("Mark as reviewed", reviewed.with_objects(ids))
            self.message.emit(f"{names} reviewed, {self.unreviewed().left:,} left")

    def review_area(self, gesture: Gesture) -> None:
        """Mark an outlined area as reviewed for `area_targets`; with Shift remove its marks."""
        if gesture.is_click:
            raise EditError("draw an outline around what is reviewed")
        labels = self.session.editor.labels
        drawn = polygon_pixels(gesture.points, plane_of(labels, gesture.plane).shape)
        pixels = in_image(drawn, labels, gesture.plane)
        if not len(pixels[0]):
            raise EditError("the outline contains no pixel; draw it inside the image")
        reviewed, targets = self.session.reviewed, self.area_targets
        if gesture.shift and self.session.regions is None:
            targets = BOTH  # an earlier session with regions may have left marks
        what = "" if len(targets) > 1 else f" for its {targets[0]}"
        if gesture.shift:
            self.session.mark("Remove an area's marks", reviewed.without_area(pixels, targets))
            self.message.emit(f"The area is no longer marked as reviewed{what}")
        else:
            self.session.mark("Mark an area as reviewed", reviewed.with_area(pixels, targets))
            self.message.emit(f"Area reviewed{what}, {self.unreviewed().left:,} objects left")

    def unreviewed(self) -> Doubtful:
        """Objects that are not reviewed, the least certain first."""
        return doubtful_first(self.session.editor.table, self.session.reviewed)

    def select_next(self, step: int = 1) -> int:
        """Select the next unreviewed object by certainty or, with -1, the previous; returns its id.

        Raises
        ------
        EditError
            Where every object is reviewed.
        """
        unreviewed = self.unreviewed()
        if not unreviewed.left:
            raise EditError("every object is reviewed")
        table, ids = self.session.editor.table, unreviewed.ids
        probability = table["class_probability"].to_numpy()[np.searchsorted(table["id"], ids)]
        probability = np.nan_to_num(probability, nan=np.inf)
        keys = list(zip(probability.tolist(), ids.tolist(), strict=True))
        if self._last_shown is None:
            at = 0
        elif step > 0:
            at = next((n for n, key in enumerate(keys) if key > self._last_shown), 0)
        else:
            at = max((n for n, key in enumerate(keys) if key < self._last_shown), default=-1)
        self._last_shown = keys[at]
        object_id = keys[at][1]
        self.display.select([object_id])
        self.message.emit(f"{self.describe(object_id)} · {unreviewed.left:,} left to review")
        return object_id

    # -- objects -------------------------------------------------------------------------------

    def object_at(self, point: Iterable[float]) -> int:
        """Id at a point (y, x) or (z, y, x); 0 on background and outside the image."""
        labels = self.session.editor.labels
        try:
            return int(labels[pixel_at(tuple(point), labels.shape)])
        except EditError:
            return 0

    def describe(self, object_id: int) -> str:
        """Id, class and class probability of an object."""
        row = self.session.editor.rows([object_id]).iloc[0]
        probability = row["class_probability"]
        text = f"Object {object_id}: {row['class']}"
        return text if np.isnan(probability) else f"{text} (probability {probability:.0%})"

    def forget_click(self) -> None:
        """Start splitting by two clicks again."""
        self._first_click = None

    # ------------------------------------------------------------------------------------------

    def _do(self, edit: Edit, message: str | None = None) -> None:
        self.session.do(edit)
        self.message.emit(message or edit.name)

    def _on_change(self, change: Change) -> None:
        self._first_click = None
        edit = change.step.edit
        if change.how in ("undone", "redone"):
            self.message.emit(f"{change.how.capitalize()}: {edit.name.lower()}")
        elif edit.name.startswith("Paint"):
            self.message.emit(f"Painted {len(edit.new_values):,} pixels")
        else:  # also of others, as Refine; our own actions give details right after
            self.message.emit(edit.name)
        self.review_changed.emit()


def _counted(ids: Collection[int]) -> str:
    return "1 object" if len(ids) == 1 else f"{len(ids):,} objects"


def _named(ids: Collection[int]) -> str:
    ids = [i for i in ids if i]
    return f"object {ids[0]}" if len(ids) == 1 else _counted(ids)
