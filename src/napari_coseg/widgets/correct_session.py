"""A session of corrections: one desk on the arrays of two labels layers, one order of undo.

Every action, strokes of napari's own brush included, is one item of the undo history of the layer
whose pixels it changes, so napari's Ctrl-Z takes it back. An action that changes no pixel (a class,
a mark) is an item without pixels. Actions on objects and on regions share one table, so they are
undone in the order they were made, whichever of the two layers is active.

`session_of` finds the session of a layer; whatever changes corrected labels goes through
`Session.do`, so that labels, table, features and marks stay in step and can be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_coseg.editing.changes import change_kinds
from napari_coseg.editing.desk import Desk, Kind
from napari_coseg.editing.edit import Edit
from napari_coseg.editing.objects import painted
from napari_coseg.editing.regions import painted_regions
from napari_coseg.editing.review import Reviewed
from napari_coseg.errors import EditError
from napari_coseg.measure import object_table
from napari_coseg.widgets import layers, outputs
from napari_coseg.widgets.corrected import LARGEST_ID, METADATA_KEY, LabelsOf
from napari_coseg.widgets.dock_widget import told

if TYPE_CHECKING:
    from napari.layers import Labels

REVIEWED_KEY = "reviewed"
"""Of ``layer.metadata[METADATA_KEY]``: marks, as `Reviewed.as_json` gives them, to begin with."""
_SESSIONS: list[Session] = []


@dataclass(frozen=True, eq=False)
class Step:
    """One undo step: an edit, marks that change, or both.

    Parameters
    ----------
    edit
        May be without pixels and rows.
    marks
        What is reviewed before and after; None where that stays.
    """

    edit: Edit
    marks: tuple[Reviewed, Reviewed] | None = None

    def inverse(self) -> Step:
        """The step that takes this one back."""
        return Step(self.edit.inverse(), self.marks and self.marks[::-1])


@dataclass(frozen=True, eq=False)
class Change:
    """What has just happened: a step was made ("done", "redone") or taken back ("undone").

    `step` is what was made: the inverse of the one that was taken back.
    """

    step: Step
    how: str


class _Atom(tuple[Any, Any, Any]):
    """An atom of napari's history that remembers its step."""

    step: Step

    @classmethod
    def of(cls, step: Step) -> _Atom:
        atom = cls(step.edit.history_item())
        atom.step = step
        return atom


def session_of(layer: Any) -> Session | None:
    """The open session whose objects or regions the layer holds."""
    return next((one for one in _SESSIONS if layer in (one.objects, one.regions)), None)


class Session:
    """Corrections of a layer of objects and, where there is one, a layer of regions.

    Use `desk_of`, which takes time and may run in a thread, then this. Both layers' undo histories
    begin anew.

    Parameters
    ----------
    objects, regions
        Labels layers with numpy arrays on one grid.
    desk
        On these arrays.

    Raises
    ------
    EditError
        Where a session has one of the layers already.
    """

    changed = Signal(Change)
    closed = Signal()

    def __init__(self, objects: Labels, regions: Labels | None, desk: Desk) -> None:
        if session_of(objects) or (regions is not None and session_of(regions)):
            raise EditError("these layers are being corrected already; finish that first")
        self.objects, self.regions, self.desk = objects, regions, desk
        self.reviewed = _marks(objects)
        self.new_class = 0
        """Class of objects that a brush makes."""
        self._done: list[tuple[Labels, _Atom]] = []
        self._undone: list[tuple[Labels, _Atom]] = []
        for layer in self.layers:
            layer._reset_history()
            layer.events.paint.connect(self._on_paint)
            # napari's Ctrl-Z, its menus and other plugins all call these.
            layer.undo, layer.redo = self.undo, self.redo  # type: ignore[method-assign]
        self.write_features()
        _SESSIONS.append(self)

    @property
    def layers(self) -> list[Labels]:
        return [layer for layer in (self.objects, self.regions) if layer is not None]

    def close(self) -> None:
        """Let go of the layers; what was done stays, and napari's undo knows it still."""
        if self not in _SESSIONS:
            return
        _SESSIONS.remove(self)
        for layer in self.layers:
            layer.events.paint.disconnect(self._on_paint)
            del layer.undo, layer.redo
            layer._reset_history()  # its items would change labels, but no longer the table
        self.closed.emit()

    # -- steps ---------------------------------------------------------------------------------

    def do(self, edit: Edit, reviewed: Reviewed | None = None) -> None:
        """Make an edit, with other marks or not, as one undo step.

        Raises
        ------
        EditError
            Where nothing would change, the labels have changed since the edit was made, or a
            stroke of the brush is not finished.
        """
        if edit.is_empty and reviewed is None:
            raise EditError(f"nothing to change ({edit.name.lower()})")
        self._check_arrays()
        layer = self._layer_of(edit)
        if layer._block_history:
            raise EditError("a stroke is not finished; let go of the mouse button first")
        step = Step(edit, None if reviewed is None else (self.reviewed, reviewed))
        self.desk.apply(edit)
        atom = _Atom.of(step)
        self._remember(layer, atom)
        layer._save_history(atom)
        self._follow(Change(step, "done"))

    def mark(self, name: str, reviewed: Reviewed) -> None:
        """Other marks, as one undo step; `name` as shown to people."""
        nothing = change_kinds(self.desk, name, (), Kind())
        self.do(nothing, reviewed)

    def undo(self) -> None:
        """Take the last step back, of whichever layer."""
        if self._done and not self._is_last(*self._done[-1], undone=False):
            self._done.clear()  # napari keeps a hundred of each layer
        if not self._done:
            return
        layer, atom = self._done.pop()
        with layer._block_refresh():
            type(layer).undo(layer)
        self._undone.append((layer, atom))
        self._again(atom.step.inverse(), "undone")

    def redo(self) -> None:
        """Make the last step that was taken back again."""
        if self._undone and not self._is_last(*self._undone[-1], undone=True):
            self._undone.clear()
        if not self._undone:
            return
        layer, atom = self._undone.pop()
        with layer._block_refresh():
            type(layer).redo(layer)
        self._done.append((layer, atom))
        self._again(atom.step, "redone")

    @property
    def undo_name(self) -> str | None:
        """What `undo` would take back."""
        return self._done[-1][1].step.edit.name if self._done else None

    @property
    def redo_name(self) -> str | None:
        """What `redo` would make again."""
        return self._undone[-1][1].step.edit.name if self._undone else None

    def write_features(self) -> None:
        """Bring the table of the objects layer in step; napari shows it under the pointer."""
        self.objects.features = outputs.object_features(self.desk.table)

    # ------------------------------------------------------------------------------------------

    def _again(self, step: Step, how: str) -> None:
        """Napari has written the pixels; index, table and marks follow."""
        self.desk.apply(step.edit)
        self._follow(Change(step, how))

    def _follow(self, change: Change) -> None:
        if change.step.marks is not None:
            self.reviewed = change.step.marks[1]
        edit = change.step.edit
        if len(edit.old_rows) or len(edit.new_rows):
            self.write_features()
        self.changed.emit(change)

    def _remember(self, layer: Labels, atom: _Atom) -> None:
        self._done = [*self._done[-2 * layer._history_limit :], (layer, atom)]
        self._undone.clear()
        for one in self.layers:
            one._redo_history.clear()  # what was undone there belongs to another past

    def _on_paint(self, event: Any) -> None:
        """Take a stroke of napari's brush, bucket or polygon, or `data_setitem`, as a step."""
        item = event.value
        if any(isinstance(atom, _Atom) for atom in item):
            return
        layer = event.source
        atoms = [_plain(atom) for atom in item]
        with told():
            try:
                self._check_arrays()
                if layer is self.objects:
                    edit = painted(self.desk, atoms, self.new_class)
                else:
                    edit = painted_regions(self.desk, atoms)
                self.desk.apply(edit)
            except EditError:
                type(layer).undo(layer)
                layer._redo_history.clear()
                raise
            step = Step(edit)
            item[:] = [_Atom.of(step)]
            self._remember(layer, item[0])
            self._follow(Change(step, "done"))

    def _layer_of(self, edit: Edit) -> Labels:
        if edit.target == "objects" or self.regions is None:
            return self.objects
        return self.regions

    def _is_last(self, layer: Labels, atom: _Atom, *, undone: bool) -> bool:
        history = layer._redo_history if undone else layer._undo_history
        return bool(history) and history[-1][0] is atom

    def _check_arrays(self) -> None:
        desk_regions = None if self.regions is None else self.regions.data
        if self.objects.data is not self.desk.labels or desk_regions is not self.desk.regions:
            raise EditError(
                "a layer has got other data since correcting began; finish and start again"
            )


def desk_of(
    labels: np.ndarray,
    regions: np.ndarray | None,
    pixel_size_um: Sequence[float],
    of_labels: LabelsOf,
    of_regions: LabelsOf,
) -> Desk:
    """A desk on the layers' own arrays, measured as they are now. Plain values: fit for a thread.

    Parameters
    ----------
    labels, regions
        Whole numbers, (Y, X) or (Z, Y, X), on one grid.
    of_labels, of_regions
        What the layers know of classes; an object without a row has none.

    Raises
    ------
    EditError
        For arrays that cannot be edited, or do not fit.
    """
    for values, name in ((labels, "objects"), (regions, "regions")):
        if values is not None and not isinstance(values, np.ndarray):
            raise EditError(
                f"the {name} are a {type(values).__name__}, which cannot be corrected in place; "
                "convert the layer to a numpy array of one resolution first"
            )
    largest = int(labels.max(initial=0))
    if largest > LARGEST_ID:
        raise EditError(
            f"the objects have ids up to {largest:,}, more than {LARGEST_ID:,}; number them anew, "
            "for example with skimage.segmentation.relabel_sequential"
        )
    class_ids, probabilities = np.zeros(largest, np.int64), np.full(largest, np.nan)
    known = (of_labels.ids > 0) & (of_labels.ids <= largest)
    class_ids[of_labels.ids[known] - 1] = of_labels.class_ids[known]
    probabilities[of_labels.ids[known] - 1] = of_labels.probabilities[known]
    size = tuple(float(um) for um in pixel_size_um)
    table = object_table(
        labels,
        regions,
        pixel_size_um=size,
        class_ids=class_ids,
        class_probabilities=probabilities,
        classes=of_labels.classes,
        semantic_classes=of_regions.classes,
    )
    return Desk(labels, size, regions, table, of_labels.classes, of_regions.classes)


def request_of(objects: Labels, regions: Labels | None) -> tuple[Any, ...]:
    """Arguments of `desk_of` for two layers. An unknown pixel size is 1, and areas are in pixels.

    Raises
    ------
    EditError
        For layers of several resolutions.
    """
    for layer in (objects, regions):
        if layer is not None and layer.multiscale:
            raise EditError(
                f"{layer.name!r} has several resolutions, and napari cannot edit such layers; "
                "choose one of a single resolution"
            )
    size = pixel_size_um(objects) or (1.0,) * objects.ndim
    known = LabelsOf.read(objects.metadata, objects.features)
    of_regions = LabelsOf() if regions is None else LabelsOf.read(regions.metadata, None)
    return objects.data, None if regions is None else regions.data, size, known, of_regions


def pixel_size_um(layer: Labels) -> tuple[float, ...] | None:
    """What the run took, else what the layer's scale says; None where nobody says."""
    by_run = dict(layer.metadata.get(METADATA_KEY, {})).get("pixel_size_um")
    if by_run:
        return tuple(float(size) for size in by_run)
    return layers.layer_pixel_size(layer, "ZYX"[-layer.ndim :]).um


def _marks(objects: Labels) -> Reviewed:
    kept = dict(objects.metadata.get(METADATA_KEY, {})).get(REVIEWED_KEY)
    shape = tuple(objects.data.shape)
    return Reviewed(shape) if kept is None else Reviewed.from_json(kept, shape)


def _plain(atom: Any) -> tuple[tuple[np.ndarray, ...], Any, Any]:
    """Pixels, old and new values of an atom of napari's history, by indices or by mask."""
    if isinstance(atom, tuple) and len(atom) == 3:
        return atom
    box = atom.slice_key
    if atom.mask is None:
        inside = np.nonzero(np.ones(np.shape(atom.old_values), bool))
        old = np.asarray(atom.old_values).reshape(-1)
    else:
        inside, old = np.nonzero(atom.mask), np.asarray(atom.old_values)
    indices = tuple(axis + part.start for axis, part in zip(inside, box, strict=True))
    return indices, old, atom.new_value
