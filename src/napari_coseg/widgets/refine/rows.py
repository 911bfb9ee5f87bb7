"""Table rows of an edit that follow napari's own undo and redo of its pixels.

napari's history holds pixels but no table. A correction session keeps both consistent while it is
open; without one, the layer's features are updated here whenever its history shows that the edit
was undone or redone.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import DirectLabelColormap

from napari_coseg.labels.editing.edit import Edit
from napari_coseg.widgets import outputs

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Labels

_FOLLOWED: weakref.WeakKeyDictionary[Labels, list[_Rows]] = weakref.WeakKeyDictionary()
"""Keeps them alive as long as their layers, since napari holds callbacks weakly."""


def apply_with_rows(layer: Labels, edit: Edit) -> None:
    """Apply an edit as one undo step of the layer; the features of objects follow, also in undo."""
    atom = edit.history_item()
    layer.data[edit.indices] = edit.new_values
    layer._save_history(atom)
    if edit.target == "objects":
        _write_rows(layer, edit)
        _FOLLOWED.setdefault(layer, []).append(_Rows(layer, edit, atom))
    layer.refresh()


class _Rows:
    """Rows of one edit: those after it while it is applied, else those before it."""

    def __init__(self, layer: Labels, edit: Edit, atom: Any) -> None:
        self._edit, self._atom, self._is_applied = edit, atom, True
        layer.events.set_data.connect(self._follow)

    def _follow(self, event: Any) -> None:
        layer = event.source
        is_applied = _holds(layer._undo_history, self._atom)
        if not is_applied and not _holds(layer._redo_history, self._atom):
            self._end(layer)
        elif is_applied != self._is_applied:
            self._is_applied = is_applied
            _write_rows(layer, self._edit if is_applied else self._edit.inverse())

    def _end(self, layer: Labels) -> None:
        """Stop following: the history has dropped the edit."""
        layer.events.set_data.disconnect(self._follow)
        followed = _FOLLOWED.get(layer, [])
        if self in followed:
            followed.remove(self)


def _holds(history: Any, atom: Any) -> bool:
    return any(one is atom for item in history for one in item)


def _write_rows(layer: Labels, edit: Edit) -> None:
    """Write the rows that the edit leaves, and the colours of their classes."""
    layer.features = _with_rows(layer.features, edit)
    if isinstance(layer.colormap, DirectLabelColormap):  # by class, not by id
        outputs.color_objects(layer, "class")


def _with_rows(features: pd.DataFrame, edit: Edit) -> pd.DataFrame:
    import pandas as pd

    ids = np.concatenate([rows["id"].to_numpy() for rows in (edit.old_rows, edit.new_rows)])
    new = outputs.object_features(edit.new_rows)
    if "index" not in features:
        return new
    stays = features[~features["index"].isin(ids)]
    parts = [part for part in (stays, new) if len(part)]
    if not parts:
        return stays
    return pd.concat(parts, ignore_index=True).sort_values("index", ignore_index=True)
