"""A session of corrections: one editor on the arrays of two labels layers, one order of undo.

Every action, strokes of napari's own brush included, is one item of the undo history of the layer
whose pixels it changes, so napari's Ctrl-Z takes it back. An action that changes no pixel (a class,
a mark) is an item without pixels. Actions on objects and on regions share one table, so they are
undone in the order they were made, whichever of the two layers is active.

`session_of` finds the session of a layer, `SESSIONS.opened` announces new ones. Whatever changes
corrected labels goes through `CorrectionSession.do`, so that labels, table, features and review
marks stay consistent and can be undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.changes import change_kinds
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.label_editor import Kind, LabelEditor
from napari_coseg.labels.editing.objects import painted
from napari_coseg.labels.editing.regions import painted_regions
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.widgets import outputs
from napari_coseg.widgets.corrected import METADATA_KEY
from napari_coseg.widgets.dock_widget import notify_errors

if TYPE_CHECKING:
    from napari.layers import Labels

REVIEWED_KEY = "reviewed"
"""Of ``layer.metadata[METADATA_KEY]``: marks, as `Reviewed.as_json` gives them, to begin with."""


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


class Sessions:
    """The open sessions of this program; what keeps or shows corrections hears of new ones.

    Signals
    -------
    opened(CorrectionSession)
        It is ready; its `changed` and `closed` tell of all that follows.
    """

    opened = Signal(object)

    def __init__(self) -> None:
        self.open: list[CorrectionSession] = []

    def of(self, layer: Any) -> CorrectionSession | None:
        """The one whose objects or regions the layer holds."""
        return next((one for one in self.open if layer in (one.objects, one.regions)), None)


SESSIONS = Sessions()


def session_of(layer: Any) -> CorrectionSession | None:
    """The open session whose objects or regions the layer holds."""
    return SESSIONS.of(layer)


class CorrectionSession:
    """Corrections of a layer of objects and, where there is one, a layer of regions.

    Call `reading.editor_of` first: it takes time and may run in a thread. Both layers' undo
    histories are cleared.

    Parameters
    ----------
    objects, regions
        Labels layers with numpy arrays on one grid.
    editor
        On these arrays.

    Raises
    ------
    EditError
        Where a session has one of the layers already, and where both are one layer.
    """

    changed = Signal(Change)
    closed = Signal()

    def __init__(self, objects: Labels, regions: Labels | None, editor: LabelEditor) -> None:
        if regions is not None and regions is objects:
            raise EditError(
                f"{objects.name!r} is chosen as objects and as regions; choose the layer of "
                "regions, or none"
            )
        if session_of(objects) or (regions is not None and session_of(regions)):
            raise EditError("these layers are being corrected already; finish that first")
        self.objects, self.regions, self.editor = objects, regions, editor
        self.reviewed = marks_kept(objects)
        self.new_class = 0
        """Class of objects that a brush makes."""
        self._done: list[tuple[Labels, _Atom]] = []
        self._undone: list[tuple[Labels, _Atom]] = []
        for layer in self.layers:
            layer._reset_history()
            layer.events.paint.connect(self._on_paint)
            # napari's Ctrl-Z, its menus and other plugins all call these.
            layer.undo, layer.redo = self.undo, self.redo
        self.write_features()
        SESSIONS.open.append(self)
        SESSIONS.opened.emit(self)

    @property
    def layers(self) -> list[Labels]:
        return [layer for layer in (self.objects, self.regions) if layer is not None]

    def close(self) -> None:
        """Let go of the layers. What was done stays, but can be taken back no longer."""
        if self not in SESSIONS.open:
            return
        SESSIONS.open.remove(self)
        _keep_marks(self.objects, self.reviewed.among(self.editor.index.ids.tolist()))
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
        self.editor.apply(edit)
        atom = _Atom.of(step)
        self._remember(layer, atom)
        layer._save_history(atom)
        self._follow(Change(step, "done"))

    def mark(self, name: str, reviewed: Reviewed) -> None:
        """Other marks, as one undo step; `name` as shown to people."""
        nothing = change_kinds(self.editor, name, (), Kind())
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

    @property
    def last_step(self) -> Step | None:
        """The step that `undo` would take back."""
        return self._done[-1][1].step if self._done else None

    def write_features(self) -> None:
        """Bring the table of the objects layer in step; napari shows it under the pointer."""
        self.objects.features = outputs.object_features(self.editor.table)

    # ------------------------------------------------------------------------------------------

    def _again(self, step: Step, how: str) -> None:
        """Napari has written the pixels; index, table and marks follow."""
        self.editor.apply(step.edit)
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
        with notify_errors():
            try:
                self._check_arrays()
                if layer is self.objects:
                    edit = painted(self.editor, atoms, self.new_class)
                else:
                    edit = painted_regions(self.editor, atoms)
                self.editor.apply(edit)
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
        editor_regions = None if self.regions is None else self.regions.data
        if self.objects.data is not self.editor.labels or editor_regions is not self.editor.regions:
            raise EditError(
                "a layer has got other data since correcting began; finish and start again"
            )


def marks_kept(objects: Labels) -> Reviewed:
    """The marks of a layer as its last session, or a workspace, left them."""
    kept = dict(objects.metadata.get(METADATA_KEY, {})).get(REVIEWED_KEY)
    shape = tuple(objects.data.shape)
    return Reviewed(shape) if kept is None else Reviewed.from_json(kept, shape)


def _keep_marks(objects: Labels, reviewed: Reviewed) -> None:
    """Write marks where the next session of the layer finds them."""
    ours = dict(objects.metadata.get(METADATA_KEY, {}))
    objects.metadata = {
        **objects.metadata,
        METADATA_KEY: {**ours, REVIEWED_KEY: reviewed.as_json()},
    }


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
