"""Rows of objects that follow an edit through napari's own undo and redo.

napari's history holds pixels and no table. While a session of corrections is open it sees to both;
here the layer is listened to, and its features follow what its history says of the edit.
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
"""Keeps them as long as their layers: napari holds what listens to its events weakly."""


def make_with_rows(layer: Labels, edit: Edit) -> None:
    """Make an edit as one undo step of the layer; features of objects follow, now and later."""
    atom = edit.history_item()
    layer.data[edit.indices] = edit.new_values
    layer._save_history(atom)
    if edit.target == "objects":
        _write_rows(layer, edit)
        _FOLLOWED.setdefault(layer, []).append(_Rows(layer, edit, atom))
    layer.refresh()


class _Rows:
    """The rows of one edit: those after it while its pixels are there, else those before."""

    def __init__(self, layer: Labels, edit: Edit, atom: Any) -> None:
        self._edit, self._atom, self._is_made = edit, atom, True
        layer.events.set_data.connect(self._follow)

    def _follow(self, event: Any) -> None:
        layer = event.source
        is_made = _holds(layer._undo_history, self._atom)
        if not is_made and not _holds(layer._redo_history, self._atom):
            self._let_go(layer)
        elif is_made != self._is_made:
            self._is_made = is_made
            _write_rows(layer, self._edit if is_made else self._edit.inverse())

    def _let_go(self, layer: Labels) -> None:
        """The history has dropped the edit: it stays as it is for good."""
        layer.events.set_data.disconnect(self._follow)
        followed = _FOLLOWED.get(layer, [])
        if self in followed:
            followed.remove(self)


def _holds(history: Any, atom: Any) -> bool:
    return any(one is atom for item in history for one in item)


def _write_rows(layer: Labels, edit: Edit) -> None:
    """Rows of the edit's objects as they are after it, and the colours of their classes."""
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
