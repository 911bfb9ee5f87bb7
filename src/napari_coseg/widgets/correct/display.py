"""What a session of corrections looks like: colours, chosen objects, outlines of reviewed ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap
from psygnal import Signal

from napari_coseg.labels.editing.area import Area
from napari_coseg.labels.editing.edit import Box, Edit, Target
from napari_coseg.labels.editing.review import BOTH, Reviewed
from napari_coseg.widgets.correct.colors import ObjectColormap
from napari_coseg.widgets.correct.refresh import Refresher
from napari_coseg.widgets.correct.session import Change, CorrectionSession
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.geometry import placed_like

if TYPE_CHECKING:
    from napari.layers import Labels
    from napari.viewer import Viewer

REVIEWED_COLOR = (0, 200, 80)
AREA_COLORS: dict[tuple[Target, ...], tuple[int, int, int]] = {
    BOTH: REVIEWED_COLOR,
    ("objects",): (0, 160, 255),
    ("regions",): (255, 160, 0),
}
"""By what the area was reviewed for."""
REVIEWED_PX = 2
_AREAS = {targets: number for number, targets in enumerate(AREA_COLORS, 1)}
"""What the layer of marks holds in reviewed areas; small, as napari tables colours by value."""
_ABOVE = len(AREA_COLORS)
"""In reviewed objects it holds their ids, and as much more as this."""


class Display:
    """Keeps the layers of a session as its editor and marks are, drawing only what changes.

    Parameters
    ----------
    viewer
        To which the layer of marks is added.
    """

    chosen_changed = Signal()

    def __init__(self, viewer: Viewer, session: CorrectionSession) -> None:
        self._viewer, self.session = viewer, session
        self.chosen: tuple[int, ...] = ()
        self.refresher = Refresher()
        self._marked = np.zeros(1, bool)
        self._colormap = self._install(self._by())
        self.marks_layer = self._add_marks_layer()
        session.changed.connect(self._on_change)
        session.objects.events.colormap.connect(self._on_colormap)

    def close(self) -> None:
        """Leave the layers as they are, without chosen objects and without outlines of marks."""
        self.choose(())
        self.refresher.stop()
        self.session.changed.disconnect(self._on_change)
        self.session.objects.events.colormap.disconnect(self._on_colormap)
        if self.marks_layer in self._viewer.layers:
            self._viewer.layers.remove(self.marks_layer)

    # -- chosen objects ------------------------------------------------------------------------

    def choose(self, ids: Iterable[int]) -> None:
        """Show these objects as chosen, and no others; ids of none are left out."""
        index = self.session.editor.index
        chosen = tuple(sorted({int(i) for i in ids if i in index}))
        if chosen == self.chosen:
            return
        before, self.chosen = self.chosen, chosen
        self._colormap.choose(before, False)
        self._colormap.choose(chosen, True)
        self._recolored(set(before) ^ set(chosen))
        if len(chosen) == 1:
            self.session.objects.selected_label = chosen[0]  # what napari's brush goes on with
        self.chosen_changed.emit()

    def _recolored(self, ids: Iterable[int]) -> None:
        layer, index = self.session.objects, self.session.editor.index
        if layer.data.dtype.itemsize <= 2:  # the canvas looks colours up by id itself
            self._colormap._clear_cache()
            with layer.events.colormap.blocker(self._on_colormap):
                layer.events.colormap()
            return
        self.refresher.draw(layer, [index.box(i) for i in ids if i in index])

    # -- after a step --------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        edit = change.step.edit
        rows = edit.new_rows
        self._colormap.set_classes(rows["id"].to_numpy(), rows["class_id"].to_numpy())
        drawn: list[Box] = [] if edit.box is None else [edit.box]
        if edit.target == "regions" and self.session.regions is not None:
            self.refresher.draw(self.session.regions, drawn)
            drawn = []
        self.refresher.draw(self.session.objects, drawn)
        of_other_class = _reclassified(edit)
        if of_other_class:
            self._recolored(of_other_class)
        self.choose(self.chosen)
        self._follow_marks(change, drawn)

    # -- colours -------------------------------------------------------------------------------

    def _by(self) -> str:
        is_cyclic = isinstance(self.session.objects.colormap, CyclicLabelColormap)
        has_classes = bool(self.session.editor.classes)
        return "id" if is_cyclic and has_classes else "class"

    def _install(self, by: str) -> ObjectColormap:
        found = ObjectColormap.of(self.session.editor.classes, self.session.editor.table, by)
        found.choose(self.chosen, True)
        self.session.objects.colormap = found
        return found

    def _on_colormap(self, event: Any) -> None:
        """Another widget has coloured the objects by class or by id: do so, with chosen ones."""
        now = self.session.objects.colormap
        if now is self._colormap:
            return
        if isinstance(now, ObjectColormap):
            self._colormap = now
            return
        self._colormap = self._install("id" if isinstance(now, CyclicLabelColormap) else "class")

    # -- marks ---------------------------------------------------------------------------------

    def _add_marks_layer(self) -> Labels:
        from napari.layers import Labels
        from napari.utils.colormaps import DirectLabelColormap

        objects = self.session.objects
        colors: dict[int | None, np.ndarray] = {None: _opaque(REVIEWED_COLOR), 0: np.zeros(4)}
        colors |= {_AREAS[targets]: _opaque(color) for targets, color in AREA_COLORS.items()}
        self._marked = _table_of(self.session.reviewed)
        layer = Labels(
            self._marks_in(tuple(slice(0, size) for size in objects.data.shape)),
            name=f"{objects.name} reviewed",
            colormap=DirectLabelColormap(color_dict=colors),
            metadata={METADATA_KEY: {"kind": "reviewed", "image": objects.name}},
            opacity=1.0,
            **placed_like(objects),
        )
        if self.session.reviewed.is_empty:
            with layer._block_refresh():  # nothing has no outline: no need to look for it
                layer.contour = REVIEWED_PX
        else:
            layer.contour = REVIEWED_PX
        layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = active or objects
        return layer

    def _follow_marks(self, change: Change, drawn: list[Box]) -> None:
        marks, boxes = change.step.marks, list(drawn)
        if marks is not None:
            self._marked = _table_of(marks[1])
            index = self.session.editor.index
            boxes += [index.box(i) for i in marks[0].ids ^ marks[1].ids if i in index]
            boxes += changed_areas(*marks)
        reviewed = self.session.reviewed
        if not boxes or (marks is None and reviewed.is_empty):
            return
        if self.marks_layer not in self._viewer.layers:
            if marks is not None:  # somebody has closed it, but marks anew
                self.marks_layer = self._add_marks_layer()
            return
        for box in boxes:
            self.marks_layer.data[box] = self._marks_in(box)
        self.refresher.draw(self.marks_layer, boxes)

    def _marks_in(self, box: Box) -> np.ndarray:
        labels = self.session.editor.labels[box]
        is_marked = np.take(self._marked, labels, mode="clip")
        marks = np.where(is_marked, labels.astype(np.int32) + _ABOVE, 0)
        reviewed = self.session.reviewed
        if not (reviewed.objects or reviewed.regions):
            return marks
        seen = {target: reviewed.area(target).mask(box) for target in BOTH}
        for targets, value in _AREAS.items():
            only = [seen[one] if one in targets else ~seen[one] for one in BOTH]
            marks[(marks == 0) & np.logical_and(*only)] = value
        return marks


def _opaque(color: tuple[int, int, int]) -> np.ndarray:
    found: np.ndarray = np.array([*color, 255]) / 255
    return found


def changed_areas(before: Reviewed, after: Reviewed) -> list[Box]:
    """Boxes around what lies in an area of one and not of the other, one for each kind."""
    return [box for t in BOTH for box in _changed(before.area(t), after.area(t))]


def _changed(before: Area, after: Area) -> list[Box]:
    """The box around what lies in one and not in the other; nothing where that is nothing."""
    if before.runs is after.runs:
        return []
    one, other = ({tuple(run) for run in area.runs.tolist()} for area in (before, after))
    runs = np.array(sorted(one ^ other), dtype=np.int64).reshape(-1, 2)
    if not len(runs):
        return []
    row = after.shape[-1]
    first, last = int(runs.min()) // row, (int(runs.max()) - 1) // row
    if len(after.shape) == 3:
        height = after.shape[1]
        planes = slice(first // height, last // height + 1)
        return [(planes, slice(0, height), slice(0, row))]
    rows = (slice(first, last + 1), slice(0, row))
    differs = (before.mask(rows) != after.mask(rows)).any(axis=0)
    columns = np.flatnonzero(differs)
    return [(rows[0], slice(int(columns[0]), int(columns[-1]) + 1))]


def _table_of(reviewed: Reviewed) -> np.ndarray:
    """Bool by id: which objects are marked; the last is of all larger ids."""
    table = np.zeros(max(reviewed.ids, default=0) + 2, bool)
    table[list(reviewed.ids)] = True
    return table


def _reclassified(edit: Edit) -> list[int]:
    """Objects that an edit gives another class."""
    before = dict(zip(edit.old_rows["id"], edit.old_rows["class_id"], strict=True))
    after = zip(edit.new_rows["id"], edit.new_rows["class_id"], strict=True)
    return [int(i) for i, class_id in after if before.get(i, class_id) != class_id]
