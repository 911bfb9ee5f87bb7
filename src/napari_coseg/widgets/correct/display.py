"""What a correction session looks like: colours, the selection, outlines of what is reviewed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap
from psygnal import Signal

from napari_coseg.labels.editing.area import Area
from napari_coseg.labels.editing.edit import Box, Edit, Target
from napari_coseg.labels.editing.review import BOTH, Reviewed
from napari_coseg.widgets.connections import Connections
from napari_coseg.widgets.correct.colors import ObjectColormap
from napari_coseg.widgets.correct.refresh import Refresher
from napari_coseg.widgets.correct.session import Change, CorrectionSession
from napari_coseg.widgets.outputs import add_helper_layer, direct_colormap

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
"""Values of the marks layer in reviewed areas; small, since napari tabulates colours by value."""
_OFFSET = len(AREA_COLORS)
"""In reviewed objects the marks layer holds their ids plus this."""


class Display:
    """Keeps a session's layers as its editor and review marks are, drawing only what changes.

    Attributes
    ----------
    selected
        Ids of the selected objects, sorted.
    marks_layer
        Labels layer whose outlines show what is reviewed.
    """

    selection_changed = Signal()

    def __init__(self, viewer: Viewer, session: CorrectionSession) -> None:
        self._viewer, self.session = viewer, session
        self.selected: tuple[int, ...] = ()
        self.refresher = Refresher()
        self._marked = np.zeros(1, bool)
        self._colormap = self._install(self._colored_by())
        self.marks_layer = self._add_marks_layer()
        self._connections = Connections()
        self._connections.connect(self._on_change, session.changed)
        self._connections.connect(self._on_colormap, session.objects.events.colormap)

    def close(self) -> None:
        """Clear the selection and remove the review marks."""
        self.select(())
        self.refresher.stop()
        self._connections.close()
        if self.marks_layer in self._viewer.layers:
            self._viewer.layers.remove(self.marks_layer)

    # -- the selection -------------------------------------------------------------------------

    def select(self, ids: Iterable[int]) -> None:
        """Select these objects and no others; ids of no object are ignored."""
        index = self.session.editor.index
        selected = tuple(sorted({int(i) for i in ids if i in index}))
        if selected == self.selected:
            return
        before, self.selected = self.selected, selected
        self._colormap.select(before, False)
        self._colormap.select(selected, True)
        self._redraw_colors(set(before) ^ set(selected))
        if len(selected) == 1:
            self.session.objects.selected_label = selected[0]  # for napari's brush
        self.selection_changed.emit()

    def _redraw_colors(self, ids: Iterable[int]) -> None:
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
        reclassified = _reclassified(edit)
        if reclassified:
            self._redraw_colors(reclassified)
        self.select(self.selected)
        self._follow_marks(change, drawn)

    # -- colours -------------------------------------------------------------------------------

    def _colored_by(self) -> str:
        is_cyclic = isinstance(self.session.objects.colormap, CyclicLabelColormap)
        return "id" if is_cyclic and self.session.editor.classes else "class"

    def _install(self, by: str) -> ObjectColormap:
        found = ObjectColormap.of(self.session.editor.classes, self.session.editor.table, by)
        found.select(self.selected, True)
        self.session.objects.colormap = found
        return found

    def _on_colormap(self, event: Any) -> None:
        """Follow another widget that coloured the objects by class or by id."""
        now = self.session.objects.colormap
        if now is self._colormap:
            return
        if isinstance(now, ObjectColormap):
            self._colormap = now
            return
        self._colormap = self._install("id" if isinstance(now, CyclicLabelColormap) else "class")

    # -- review marks --------------------------------------------------------------------------

    def _add_marks_layer(self) -> Labels:
        objects, reviewed = self.session.objects, self.session.reviewed
        self._marked = _marked_ids(reviewed)
        whole = tuple(slice(0, size) for size in objects.data.shape)
        blank = np.zeros(objects.data.shape, np.int32) if reviewed.is_empty else None
        colors = {value: AREA_COLORS[targets] for targets, value in _AREAS.items()}
        return add_helper_layer(
            self._viewer,
            self._marks_in(whole) if blank is None else blank,
            objects,
            name=f"{objects.name} reviewed",
            kind="reviewed",
            colormap=direct_colormap(colors, unknown=REVIEWED_COLOR),
            contour=REVIEWED_PX,
            is_blank=reviewed.is_empty,
        )

    def _follow_marks(self, change: Change, drawn: list[Box]) -> None:
        marks, boxes = change.step.marks, list(drawn)
        if marks is not None:
            self._marked = _marked_ids(marks[1])
            index = self.session.editor.index
            boxes += [index.box(i) for i in marks[0].ids ^ marks[1].ids if i in index]
            boxes += changed_areas(*marks)
        if not boxes or (marks is None and self.session.reviewed.is_empty):
            return
        if self.marks_layer not in self._viewer.layers:
            if marks is not None:  # the user has removed the layer, but marks again
                self.marks_layer = self._add_marks_layer()
            return
        for box in boxes:
            self.marks_layer.data[box] = self._marks_in(box)
        self.refresher.draw(self.marks_layer, boxes)

    def _marks_in(self, box: Box) -> np.ndarray:
        """Values of the marks layer in a box."""
        labels = self.session.editor.labels[box]
        is_marked = np.take(self._marked, labels, mode="clip")
        marks = np.where(is_marked, labels.astype(np.int32) + _OFFSET, 0)
        reviewed = self.session.reviewed
        if not (reviewed.objects or reviewed.regions):
            return marks
        seen = {target: reviewed.area(target).mask(box) for target in BOTH}
        for targets, value in _AREAS.items():
            only = [seen[one] if one in targets else ~seen[one] for one in BOTH]
            marks[(marks == 0) & np.logical_and(*only)] = value
        return marks


def changed_areas(before: Reviewed, after: Reviewed) -> list[Box]:
    """Boxes around the pixels whose review for objects, and for regions, differs."""
    return [box for t in BOTH for box in _changed(before.area(t), after.area(t))]


def _changed(before: Area, after: Area) -> list[Box]:
    """The box around the pixels that lie in one area only; empty where there are none."""
    if before.runs is after.runs:
        return []
    one, other = ({tuple(run) for run in area.runs.tolist()} for area in (before, after))
    runs = np.array(sorted(one ^ other), dtype=np.int64).reshape(-1, 2)
    if not len(runs):
        return []
    row = after.shape[-1]
    first, last = int(runs.min()) // row, (int(runs.max()) - 1) // row
    if len(after.shape) == 3:
        return [_around_runs(runs, after.shape)]
    rows = (slice(first, last + 1), slice(0, row))
    columns = np.flatnonzero((before.mask(rows) != after.mask(rows)).any(axis=0))
    return [(rows[0], slice(int(columns[0]), int(columns[-1]) + 1))]


def _around_runs(runs: np.ndarray, shape: tuple[int, ...]) -> Box:
    """The box around runs in a stack; as wide as the image where a run goes on in the next row."""
    first, last = runs[:, 0], runs[:, 1] - 1
    rows = np.stack([first, last]) // shape[2]
    z, y, x = rows // shape[1], rows % shape[1], np.stack([first, last]) % shape[2]
    if (rows[0] != rows[1]).any():
        x = np.array([0, shape[2] - 1])
        if (z[0] != z[1]).any():
            y = np.array([0, shape[1] - 1])
    return tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in (z, y, x))


def _marked_ids(reviewed: Reviewed) -> np.ndarray:
    """Bool by id: whether an object is reviewed; the last entry is for all larger ids."""
    table = np.zeros(max(reviewed.ids, default=0) + 2, bool)
    table[list(reviewed.ids)] = True
    return table


def _reclassified(edit: Edit) -> list[int]:
    """Objects to which an edit gives another class."""
    before = dict(zip(edit.old_rows["id"], edit.old_rows["class_id"], strict=True))
    after = zip(edit.new_rows["id"], edit.new_rows["class_id"], strict=True)
    return [int(i) for i, class_id in after if before.get(i, class_id) != class_id]
