"""Take the result of a new run, except where a person has reviewed the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.changes import change_pixels, change_regions
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.label_editor import Kind, LabelEditor, regions_of
from napari_coseg.labels.editing.objects import largest_piece
from napari_coseg.labels.editing.review import Reviewed

if TYPE_CHECKING:
    import pandas as pd


def merge_prediction(
    editor: LabelEditor, new_labels: np.ndarray, new_table: pd.DataFrame, reviewed: Reviewed
) -> Edit:
    """The edit that takes the objects of a new run, except what is reviewed.

    Reviewed objects stay, and every object that extends into an area whose objects are reviewed; in
    such an area background stays background. New objects are fitted around these (`fit_around`).
    One that overlaps an old one by more than half of their union takes its id, others get new ids.

    Time and memory grow with the number of pixels: not for interactive use.

    Parameters
    ----------
    new_labels, new_table
        Labels on the same grid, and their table with ``id``, ``class_id`` and
        ``class_probability``.
    """
    labels = editor.labels
    _same_shape(new_labels, labels, "new labels")
    mask = reviewed.objects.mask()
    kept = set(np.unique(labels[mask]).tolist()) | set(reviewed.ids)
    kept_ids = np.array(sorted(i for i in kept if i in editor.index), dtype=np.int64)
    protected = mask | np.isin(labels, kept_ids)
    arriving = fit_around(new_labels, ~protected)
    ids = _ids_for(editor, arriving)
    # Objects of a run have ids from 1 on without gaps, so a table by id is short.
    number = np.zeros(int(arriving.max(initial=0)) + 1, dtype=labels.dtype)
    number[list(ids)] = list(ids.values())
    after = np.where(protected, labels, number[arriving])
    indices = np.nonzero(after != labels)
    kinds = _changed_kinds(editor, new_table, ids)
    return change_pixels(editor, "Take a new run", indices, after[indices], kinds=kinds)


def merge_regions(editor: LabelEditor, new_regions: np.ndarray, reviewed: Reviewed) -> Edit:
    """The edit that takes the regions of a new run, except where regions are reviewed."""
    regions = regions_of(editor)
    _same_shape(new_regions, regions, "new regions")
    indices = np.nonzero((new_regions != regions) & ~reviewed.regions.mask())
    return change_regions(editor, "Take a new run's regions", indices, new_regions[indices])


def fit_around(found: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The parts of new objects on free pixels, for objects that lie mostly there.

    An object is taken if more than half of its pixels are free, as two objects match if they
    overlap by more than half; one that loses exactly half is left out. Where the rest of an object
    is in several pieces, the largest one is taken.

    Parameters
    ----------
    found
        Object ids, (Y, X) or (Z, Y, X); memory grows with the largest one.
    free
        Bool, of the same shape.

    Returns
    -------
    np.ndarray
        As `found`, 0 where nothing is taken.
    """
    from scipy import ndimage

    before = np.bincount(found.reshape(-1))
    taken = np.where(free, found, 0)
    after = np.bincount(taken.reshape(-1), minlength=len(before))
    is_out = 2 * after <= before
    is_out[0] = False
    taken[is_out[taken]] = 0
    cut = np.flatnonzero((after < before) & ~is_out)
    boxes = ndimage.find_objects(taken) if len(cut) else []
    for object_id in cut[cut > 0].tolist():
        part = taken[boxes[object_id - 1]]
        mine = part == object_id
        part[mine & ~largest_piece(mine)] = 0
    return taken


def _ids_for(editor: LabelEditor, arriving: np.ndarray) -> dict[int, int]:
    """Each new object's id in the editor."""
    sizes = np.bincount(arriving.reshape(-1))
    new_ids = np.flatnonzero(sizes[1:]) + 1
    both = (arriving > 0) & (editor.labels > 0)
    pairs = np.stack([arriving[both], editor.labels[both]]).astype(np.int64)
    key, common = np.unique(pairs[0] << 32 | pairs[1], return_counts=True)
    found: dict[int, int] = {}
    for new, old, shared in zip(
        (key >> 32).tolist(), (key & 0xFFFFFFFF).tolist(), common.tolist(), strict=True
    ):
        union = int(sizes[new]) + editor.index.count(old) - shared
        if 2 * shared > union:  # true for one pair at most
            found[new] = old
    rest = [int(i) for i in new_ids if int(i) not in found]
    return found | dict(zip(rest, editor.free_ids(len(rest)), strict=True))


def _changed_kinds(
    editor: LabelEditor, new_table: pd.DataFrame, ids: dict[int, int]
) -> dict[int, Kind]:
    columns = ("id", "class_id", "class_probability")
    present = {
        row[0]: Kind(*row[1:])
        for row in zip(*(editor.table[column].tolist() for column in columns), strict=True)
    }
    arriving = {
        ids[row[0]]: Kind(*row[1:])
        for row in zip(*(new_table[column].tolist() for column in columns), strict=True)
        if row[0] in ids
    }
    if len(arriving) < len(ids):
        raise EditError("the new table lacks objects of the new labels; measure them again")
    return {
        i: kind
        for i, kind in arriving.items()
        # nan means no probability and equals nan
        if i not in present or not np.array_equal(kind, present[i], equal_nan=True)
    }


def _same_shape(new: np.ndarray, old: np.ndarray, name: str) -> None:
    if new.shape != old.shape:
        raise EditError(f"{name} have shape {new.shape}, expected {old.shape}; use one image")
