"""A correction session: one editor on the arrays of two labels layers, with one order of undo.

Every action, strokes of napari's own brush included, is one item in the undo history of the layer
whose pixels it changes, so that napari's Ctrl-Z undoes it. An action without pixels (a class, a
review mark) is an item without pixels. Actions on objects and on regions share one table, so they
are undone in the order they were made, whichever of the two layers is active.

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
from napari_coseg.widgets.dock_widget import notify_errors
from napari_coseg.widgets.outputs import metadata_of, object_features, update_metadata

if TYPE_CHECKING:
    from napari.layers import Labels

REVIEWED_KEY = "reviewed"
"""Key, in this plugin's metadata of a layer, of its review marks (`Reviewed.as_json`)."""


@dataclass(frozen=True, eq=False)
class Step:
    """One undo step: an edit, a change of review marks, or both.

    Parameters
    ----------
    edit
        May change neither pixels nor rows.
    marks
        Review marks before and after; None where they stay.
    """

    edit: Edit
    marks: tuple[Reviewed, Reviewed] | None = None

    def inverse(self) -> Step:
        """The step that undoes this one."""
        return Step(self.edit.inverse(), self.marks and self.marks[::-1])


@dataclass(frozen=True, eq=False)
class Change:
    """A step that was just made ("done", "redone"), or the inverse of one that was "undone"."""

    step: Step
    how: str


class _Atom(tuple[Any, Any, Any]):
    """An atom of napari's history that carries its step."""

    step: Step

    @classmethod
    def of(cls, step: Step) -> _Atom:
        atom = cls(step.edit.history_item())
        atom.step = step
        return atom


class Sessions:
    """The open sessions of this program.

    Signals
    -------
    opened(CorrectionSession)
        A new one is ready.
    """

    opened = Signal(object)

    def __init__(self) -> None:
        self.open: list[CorrectionSession] = []


SESSIONS = Sessions()


def session_of(layer: Any) -> CorrectionSession | None:
    """The open session whose objects or regions the layer holds."""
    return next((one for one in SESSIONS.open if layer in (one.objects, one.regions)), None)


class CorrectionSession:
    """Corrections of a layer of objects and, optionally, a layer of regions.

    The undo histories of both layers are cleared.

    Parameters
    ----------
    objects, regions
        Labels layers with numpy arrays of one shape.
    editor
        On these arrays, from `reading.editor_of`, which takes time and may run in a thread.

    Raises
    ------
    EditError
        Where one of the layers has a session already, and where both are one layer.

    Signals
    -------
    changed(Change)
    closed()
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
        """Release the layers. Corrections stay, but can no longer be undone."""
        if self not in SESSIONS.open:
            return
        SESSIONS.open.remove(self)
        marks = self.reviewed.among(self.editor.index.ids.tolist())
        update_metadata(self.objects, **{REVIEWED_KEY: marks.as_json()})
        for layer in self.layers:
            layer.events.paint.disconnect(self._on_paint)
            del layer.undo, layer.redo
            layer._reset_history()  # its items would change labels without the table
        self.closed.emit()

    # -- steps ---------------------------------------------------------------------------------

    def do(self, edit: Edit, reviewed: Reviewed | None = None) -> None:
        """Make an edit, and set other review marks if given, as one undo step.

        Raises
        ------
        EditError
            Where nothing would change, the labels have changed since the edit was computed, or a
            brush stroke is not finished.
        """
        if edit.is_empty and reviewed is None:
            raise EditError(f"nothing to change ({edit.name.lower()})")
        self._check_arrays()
        layer = self.objects
        if edit.target == "regions" and self.regions is not None:
            layer = self.regions
        if layer._block_history:
            raise EditError("a stroke is not finished; release the mouse button first")
        step = Step(edit, None if reviewed is None else (self.reviewed, reviewed))
        self.editor.apply(edit)
        atom = _Atom.of(step)
        self._remember(layer, atom)
        layer._save_history(atom)
        self._follow(Change(step, "done"))

    def mark(self, name: str, reviewed: Reviewed) -> None:
        """Set other review marks, as one undo step with a name for people."""
        self.do(change_kinds(self.editor, name, (), Kind()), reviewed)

    def undo(self) -> None:
        """Undo the last step, of whichever layer."""
        self._move(self._done, self._undone, "undo")

    def redo(self) -> None:
        """Redo the step that was undone last."""
        self._move(self._undone, self._done, "redo")

    @property
    def undo_name(self) -> str | None:
        """Name of the step that `undo` would undo."""
        return _last_name(self._done)

    @property
    def redo_name(self) -> str | None:
        """Name of the step that `redo` would redo."""
        return _last_name(self._undone)

    @property
    def last_step(self) -> Step | None:
        """The step that `undo` would undo."""
        return self._done[-1][1].step if self._done else None

    def write_features(self) -> None:
        """Copy the table to the objects layer's features, which napari shows as a tooltip."""
        self.objects.features = object_features(self.editor.table)

    # ------------------------------------------------------------------------------------------

    def _move(
        self, taken: list[tuple[Labels, _Atom]], given: list[tuple[Labels, _Atom]], verb: str
    ) -> None:
        """Let napari undo or redo the last step's pixels; index, table and marks follow."""
        if taken:
            layer, atom = taken[-1]
            history = layer._undo_history if verb == "undo" else layer._redo_history
            if not history or history[-1][0] is not atom:
                taken.clear()  # napari keeps a hundred items per layer
        if not taken:
            return
        layer, atom = taken.pop()
        with layer._block_refresh():
            getattr(type(layer), verb)(layer)
        given.append((layer, atom))
        step = atom.step.inverse() if verb == "undo" else atom.step
        self.editor.apply(step.edit)
        self._follow(Change(step, "undone" if verb == "undo" else "redone"))

    def _follow(self, change: Change) -> None:
        if change.step.marks is not None:
            self.reviewed = change.step.marks[1]
        edit = change.step.edit
        if len(edit.old_rows) or len(edit.new_rows):
            self.write_features()
        self.changed.emit(change)

    def _remember(self, layer: Labels, atom: _Atom) -> None:
        del self._done[: -2 * layer._history_limit]
        self._done.append((layer, atom))
        self._undone.clear()
        for one in self.layers:
            one._redo_history.clear()  # it belongs to a state before this step

    def _on_paint(self, event: Any) -> None:
        """Turn a stroke of napari's brush, bucket or polygon, or `data_setitem`, into a step."""
        item = event.value
        if any(isinstance(atom, _Atom) for atom in item):
            return
        layer = event.source
        atoms = [_as_pixels(atom) for atom in item]
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

    def _check_arrays(self) -> None:
        regions = None if self.regions is None else self.regions.data
        if self.objects.data is not self.editor.labels or regions is not self.editor.regions:
            raise EditError("a layer's data were replaced; finish, and start again")


def marks_kept(objects: Labels) -> Reviewed:
    """Review marks of a layer as its last session, or a workspace, left them."""
    kept = metadata_of(objects).get(REVIEWED_KEY)
    shape = tuple(objects.data.shape)
    return Reviewed(shape) if kept is None else Reviewed.from_json(kept, shape)


def _last_name(steps: list[tuple[Labels, _Atom]]) -> str | None:
    return steps[-1][1].step.edit.name if steps else None


def _as_pixels(atom: Any) -> tuple[tuple[np.ndarray, ...], Any, Any]:
    """Indices, old and new values of an atom of napari's history, by indices or by mask."""
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
