"""What the tools and keys of the Correct widget do, each one undo step with a word on what it did.

Nothing here knows of buttons: a `Corrector` takes gestures and chosen objects, makes the edit by
the functions of `napari_coseg.labels.editing`, and says in `said` what came of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing import objects, regions
from napari_coseg.labels.editing.drawing import (
    ids_inside_polygon,
    ids_under_stroke,
    in_image,
    pixel_at,
    polygon_pixels,
)
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.review import BOTH, Doubtful, doubtful_first
from napari_coseg.labels.editing.split import split_along, split_at
from napari_coseg.labels.measure import UNTYPED
from napari_coseg.widgets.correct.add import Maps, MapsProvider, grown
from napari_coseg.widgets.correct.display import Display
from napari_coseg.widgets.correct.gesture import Gesture, ObjectProposer
from napari_coseg.widgets.correct.session import Change, CorrectionSession
from napari_coseg.widgets.dock_widget import notify, notify_errors

if TYPE_CHECKING:
    from napari_coseg.core.types import LabelClass


class Corrector:
    """Actions on one session.

    Attributes
    ----------
    object_class, region_class
        What new and classified objects, and drawn regions, become.
    stroke_px
        Width of the stroke that merges.
    smooth_px
        Radius that outlines are smoothed with.
    area_targets
        What an area counts for that is marked as reviewed: objects, regions, or both.
    maps
        Where an object is grown from a click; None where no model is at hand.
    proposals
        What adds objects in the place of `maps`: SAM2; None where it is not chosen.
    """

    said = Signal(str)
    doubt_changed = Signal()

    def __init__(
        self, session: CorrectionSession, display: Display, maps: MapsProvider | None = None
    ) -> None:
        self.session, self.display, self.maps = session, display, maps
        self.proposals: ObjectProposer | None = None
        self.region_class = min((e.id for e in session.editor.region_classes), default=0)
        self.area_targets = BOTH if session.regions is not None else ("objects",)
        self.stroke_px, self.smooth_px = 5.0, 2.0
        self._first_click: tuple[float, ...] | None = None
        self._was_at: tuple[float, int] | None = None
        self._is_closed = False
        session.changed.connect(self._on_change)

    def close(self) -> None:
        """Do nothing more, and take no maps that are still to come."""
        self._is_closed = True
        self.session.changed.disconnect(self._on_change)

    @property
    def object_class(self) -> int:
        return self.session.new_class

    @object_class.setter
    def object_class(self, class_id: int) -> None:
        self.session.new_class = class_id

    def class_name(self, class_id: int) -> str:
        return _name(self.session.editor.classes, class_id, UNTYPED)

    # -- by mouse: objects ---------------------------------------------------------------------

    def select(self, gesture: Gesture) -> None:
        """A click chooses the object under it, a drawn outline those whose centre is inside.

        With Shift they join those that are chosen; a click with Shift on a chosen one leaves it.
        """
        chosen = set(self.display.chosen) if gesture.shift else set()
        if gesture.is_click:
            under = self.object_at(gesture.point)
            chosen ^= {under} - {0}
        else:
            chosen |= set(ids_inside_polygon(self.session.editor, gesture.points, z=gesture.z))
        self.display.choose(chosen)
        self.said.emit(f"{_counted(len(chosen))} chosen" if chosen else "Nothing chosen")

    def merge(self, gesture: Gesture) -> None:
        """Merge the objects that a stroke touches."""
        if gesture.is_click:
            raise EditError("draw a stroke over the objects that are one; a click merges nothing")
        ids = ids_under_stroke(self.session.editor, gesture.points, self.stroke_px, gesture.z)
        if not ids:
            raise EditError("the stroke touches no object; draw it over two or more")
        self.merge_ids(ids)

    def split(self, gesture: Gesture) -> None:
        """Split along a drawn line, or by two clicks, one in each part."""
        editor = self.session.editor
        if not gesture.is_click:
            self._first_click = None
            edit = split_along(editor, gesture.points)
        elif self._first_click is None:
            if not self.object_at(gesture.point):
                raise EditError("there is no object; click in each part of one, or draw a line")
            self._first_click = gesture.point
            self.said.emit("Now click in the other part")
            return
        else:
            first, self._first_click = self._first_click, None
            edit = split_at(editor, [first, gesture.point])
        count = len(edit.changed)
        words = f"object {edit.changed[0]}" if count == 1 else f"{count} objects"
        self._do(edit, f"Split {words} in {count + len(edit.added)}")
        self.display.choose([*edit.changed, *edit.added])

    def add(self, gesture: Gesture) -> None:
        """A click grows the object that the model sees there; an outline is an object as drawn.

        With SAM2 a click, or a drag without Shift, is a prompt for it.
        """
        if self.proposals is not None and (gesture.is_click or not gesture.shift):
            self.proposals.use(gesture)
            return
        if gesture.is_click:
            if self.object_at(gesture.point):
                raise EditError(
                    f"object {self.object_at(gesture.point)} is there already; click on "
                    "background, or split it"
                )
            if self.maps is None:
                raise EditError(
                    "no model's maps are at hand to grow an object from a click; draw its outline"
                )
            self.said.emit("Looking at what the model sees there …")
            self.maps.ask(gesture.point, lambda maps: self._grow(gesture, maps), self._not_grown)
            return
        edit = objects.add_polygon(
            self.session.editor, gesture.points, class_id=self.object_class, z=gesture.z
        )
        self.added(edit)

    def added(self, edit: Edit, more: str = "") -> None:
        """Make an edit that adds one object, say so and what `more` says, and choose it."""
        (new,) = edit.added
        self._do(edit, f"Added object {new}: {self.class_name(_class_of(edit, new))}{more}")
        self.display.choose([new])

    def classify(self, gesture: Gesture) -> None:
        """Give the class to the object under a click, or to all whose centre is inside."""
        if gesture.is_click:
            ids = [self.object_at(gesture.point)]
        else:
            ids = ids_inside_polygon(self.session.editor, gesture.points, z=gesture.z)
        self.set_class(ids, self.object_class)

    # -- by key: chosen objects ----------------------------------------------------------------

    def merge_ids(self, ids: Collection[int]) -> None:
        edit = objects.merge(self.session.editor, ids)
        (target,) = edit.changed
        self._do(edit, f"Merged {len(edit.removed) + 1} objects into {target}")
        self.display.choose([target])

    def delete(self, ids: Collection[int]) -> None:
        self._do(objects.delete(self.session.editor, ids), f"Deleted {_told(ids)}")

    def fill(self, ids: Collection[int]) -> None:
        """Fill holes of objects."""
        self._do(objects.fill_holes(self.session.editor, ids), f"Filled holes of {_told(ids)}")

    def smooth(self, ids: Collection[int]) -> None:
        edit = objects.smooth(self.session.editor, ids, self.smooth_px)
        self._do(edit, f"Smoothed {_told(ids)}")

    def set_class(self, ids: Collection[int], class_id: int) -> None:
        edit = objects.set_class(self.session.editor, ids, class_id)
        self._do(edit, f"{_told(ids).capitalize()} → {self.class_name(class_id)}")

    # -- regions -------------------------------------------------------------------------------

    def outline_region(self, gesture: Gesture) -> None:
        """Give what is inside an outline the region class; with Shift make it background."""
        if gesture.is_click:
            raise EditError("draw an outline around the region")
        class_id = 0 if gesture.shift else self.region_class
        self._do(regions.set_region(self.session.editor, gesture.points, class_id, gesture.z))

    def fill_region(self, gesture: Gesture) -> None:
        """Give the piece of a region under a click the region class; with Shift background."""
        class_id = 0 if gesture.shift else self.region_class
        self._do(regions.fill_region(self.session.editor, gesture.point, class_id))

    # -- review --------------------------------------------------------------------------------

    def review(self, ids: Collection[int]) -> None:
        """Mark objects as reviewed; where all of them are so, take the marks away."""
        ids = self._known(ids)
        reviewed = self.session.reviewed
        if set(ids) <= reviewed.ids:
            self.session.mark("Take marks away", reviewed.without_objects(ids))
            self.said.emit(f"{_told(ids).capitalize()} no longer marked as reviewed")
        else:
            self.session.mark("Mark as reviewed", reviewed.with_objects(ids))
            self.said.emit(f"{_told(ids).capitalize()} reviewed, {self.doubt().left:,} left")

    def review_area(self, gesture: Gesture) -> None:
        """Mark an outlined area as reviewed for `area_targets`; with Shift take its marks away."""
        if gesture.is_click:
            raise EditError("draw an outline around what is reviewed")
        shape = self.session.editor.labels.shape
        pixels = in_image(polygon_pixels(gesture.points, shape), shape, gesture.z)
        if not len(pixels[0]):
            raise EditError("the outline holds no pixel; draw it inside the image")
        reviewed, targets = self.session.reviewed, self.area_targets
        if gesture.shift and self.session.regions is None:
            targets = BOTH  # marks may be left of a session with regions
        of = "" if len(targets) > 1 else f" for its {targets[0]}"
        if gesture.shift:
            self.session.mark("Take marks of an area away", reviewed.without_area(pixels, targets))
            self.said.emit(f"The area is no longer marked as reviewed{of}")
        else:
            self.session.mark("Mark an area as reviewed", reviewed.with_area(pixels, targets))
            self.said.emit(f"Area reviewed{of}, {self.doubt().left:,} objects left")

    def doubt(self) -> Doubtful:
        """Objects that are not reviewed, the least sure first."""
        return doubtful_first(self.session.editor.table, self.session.reviewed)

    def next_doubtful(self, step: int = 1) -> int:
        """Choose the next object in the order of doubt, or the one before; gives its id.

        Raises
        ------
        EditError
            Where none is left.
        """
        doubt = self.doubt()
        if not doubt.left:
            raise EditError("every object is reviewed")
        table = self.session.editor.table
        sure = table["class_probability"].to_numpy()[np.searchsorted(table["id"], doubt.ids)]
        keys = list(zip(np.nan_to_num(sure, nan=np.inf).tolist(), doubt.ids.tolist(), strict=True))
        if self._was_at is None:
            at = 0
        elif step > 0:
            at = next((n for n, key in enumerate(keys) if key > self._was_at), 0)
        else:
            at = max((n for n, key in enumerate(keys) if key < self._was_at), default=-1)
        self._was_at = keys[at]
        object_id = keys[at][1]
        self.display.choose([object_id])
        self.said.emit(f"{self.describe(object_id)} · {doubt.left:,} left to review")
        return object_id

    # -- what is there -------------------------------------------------------------------------

    def object_at(self, point: Iterable[float]) -> int:
        """Id under a point (y, x) or (z, y, x); 0 on background and outside."""
        labels = self.session.editor.labels
        try:
            return int(labels[pixel_at(tuple(point), labels.shape)])
        except EditError:
            return 0

    def describe(self, object_id: int) -> str:
        """An object in words: id, class, how sure."""
        row = self.session.editor.rows([object_id]).iloc[0]
        sure = row["class_probability"]
        words = f"Object {object_id}: {row['class']}"
        return words if np.isnan(sure) else f"{words} ({sure:.0%} sure)"

    def forget_click(self) -> None:
        """The first of two clicks counts no more."""
        self._first_click = None

    # ------------------------------------------------------------------------------------------

    def _do(self, edit: Edit, words: str | None = None) -> None:
        self.session.do(edit)
        self.said.emit(words or edit.name)

    def _grow(self, gesture: Gesture, maps: Maps) -> None:
        """May come a while after the click: errors are told here."""
        if self._is_closed:
            return
        with notify_errors():
            session, class_id = self.session, self.object_class
            edit = grown(session.editor, gesture.point, maps, session.reviewed, class_id)
            self.added(edit)

    def _not_grown(self, error: Exception) -> None:
        if self._is_closed:
            return
        self.said.emit("")
        notify(error)

    def _known(self, ids: Collection[int]) -> list[int]:
        known = sorted(int(i) for i in ids if i in self.session.editor.index)
        if not known:
            raise EditError("no object is chosen; choose one first")
        return known

    def _on_change(self, change: Change) -> None:
        self._first_click = None
        if change.how == "undone":
            self.said.emit(f"Undone: {change.step.edit.name.lower()}")
        elif change.how == "redone":
            self.said.emit(f"Redone: {change.step.edit.name.lower()}")
        elif change.step.edit.name.startswith("Paint"):
            self.said.emit(f"Painted {len(change.step.edit.new_values):,} pixels")
        else:  # of others too, as Refine; our own actions say more in a moment
            self.said.emit(change.step.edit.name)
        self.doubt_changed.emit()


def _told(ids: Collection[int]) -> str:
    ids = [i for i in ids if i]
    return f"object {ids[0]}" if len(ids) == 1 else _counted(len(ids))


def _counted(count: int) -> str:
    return "1 object" if count == 1 else f"{count:,} objects"


def _class_of(edit: Edit, object_id: int) -> int:
    rows = edit.new_rows
    return int(rows.loc[rows["id"] == object_id, "class_id"].iloc[0])


def _name(classes: Iterable[LabelClass], class_id: int, otherwise: str) -> str:
    return next((entry.name for entry in classes if entry.id == class_id), otherwise)
