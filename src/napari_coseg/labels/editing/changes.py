"""Changed pixels or classes to an `Edit` with the table rows that change with them.

Every edit is made by one of three functions: for pixels of objects, pixels of regions, or classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from napari_coseg.labels.editing.edit import Edit, around_pixels
from napari_coseg.labels.editing.index import counted, inside, moved
from napari_coseg.labels.editing.label_editor import Kind, LabelEditor, regions_of
from napari_coseg.labels.measure import BACKGROUND, UNTYPED


def change_pixels(
    editor: LabelEditor,
    name: str,
    indices: tuple[np.ndarray, ...],
    new_values: np.ndarray | int,
    *,
    old_values: np.ndarray | None = None,
    kinds: Mapping[int, Kind] | None = None,
) -> Edit:
    """The edit that gives pixels other object ids, with the rows of all objects concerned.

    Parameters
    ----------
    indices
        One int array per axis, each pixel once.
    new_values
        An id per pixel, or one for all; 0 is background.
    old_values
        The values before, if napari has already painted the new ones; None reads the labels.
    kinds
        Class and probability of new objects, and of those that change it.
    """
    labels = editor.labels
    old = labels[indices] if old_values is None else np.asarray(old_values, labels.dtype)
    new = np.broadcast_to(np.asarray(new_values, labels.dtype), old.shape)
    differs = old != new
    indices = tuple(np.asarray(axis, np.int64)[differs] for axis in indices)
    old, new = old[differs], new[differs]
    lost, gained = counted(old), counted(new)
    kinds = kinds or {}
    touched = sorted({*lost, *gained, *(i for i in kinds if i in editor.index)})
    staying = [i for i in touched if editor.index.count(i) - lost.get(i, 0) + gained.get(i, 0)]
    coordinates, owners = _pixels_after(editor, staying, indices, new)
    regions = None if editor.regions is None else editor.regions[coordinates]
    rows = editor.measured(coordinates, owners, kinds, regions)
    return Edit(name, "objects", indices, old, new, editor.rows(touched), rows)


def change_regions(
    editor: LabelEditor,
    name: str,
    indices: tuple[np.ndarray, ...],
    new_values: np.ndarray | int,
    *,
    old_values: np.ndarray | None = None,
) -> Edit:
    """The edit that gives pixels other region classes, with the rows whose region changes.

    Parameters are those of `change_pixels`.

    Raises
    ------
    EditError
        Where the editor has no regions.
    """
    regions = regions_of(editor)
    old = regions[indices] if old_values is None else np.asarray(old_values, regions.dtype)
    new = np.broadcast_to(np.asarray(new_values, regions.dtype), old.shape)
    differs = old != new
    indices = tuple(np.asarray(axis, np.int64)[differs] for axis in indices)
    old, new = old[differs], new[differs]
    present = old if old_values is None else regions[indices]
    in_region = _regions_of_objects(editor, regions, indices, present, new)
    before = editor.rows(in_region)
    region_ids = np.array([in_region[i] for i in before["id"].tolist()], dtype=np.int64)
    moves = before["region_id"].to_numpy() != region_ids
    old_rows, region_ids = before[moves].reset_index(drop=True), region_ids[moves]
    names = {entry.id: entry.name for entry in editor.region_classes}
    new_rows = old_rows.assign(
        region_id=region_ids, region=[names.get(i, BACKGROUND) for i in region_ids.tolist()]
    ).astype(editor.table.dtypes.to_dict())
    return Edit(name, "regions", indices, old, new, old_rows, new_rows)


def change_kinds(editor: LabelEditor, name: str, ids: Collection[int], kind: Kind) -> Edit:
    """The edit that gives objects a class."""
    old = editor.rows(ids)
    names = {entry.id: entry.name for entry in editor.classes}
    new = old.assign(class_id=kind.class_id, class_probability=kind.probability)
    new["class"] = names.get(kind.class_id, UNTYPED)
    new = new.astype(editor.table.dtypes.to_dict())
    nothing = np.zeros(0, dtype=np.int64)
    values = nothing.astype(editor.labels.dtype)
    indices = (nothing,) * editor.labels.ndim
    return Edit(name, "objects", indices, values, values, old, new)


def joined(
    parts: Sequence[tuple[tuple[np.ndarray, ...], np.ndarray]], shape: tuple[int, ...]
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Changes of several objects as one; of two changes of a pixel the first counts."""
    flat = [np.ravel_multi_index(indices, shape) for indices, _ in parts]
    if not flat:
        nothing = np.zeros(0, dtype=np.int64)
        return (nothing,) * len(shape), nothing
    pixels, first = np.unique(np.concatenate(flat), return_index=True)
    values = np.concatenate([values for _, values in parts])[first]
    return np.unravel_index(pixels, shape), values


def _pixels_after(
    editor: LabelEditor, ids: Sequence[int], indices: tuple[np.ndarray, ...], new: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """What `LabelEditor.pixels` will return after the change."""
    there = [i for i in ids if i in editor.index]
    coordinates, owners = editor.pixels(there)
    if not len(new):
        return coordinates, owners
    stays = ~_among(coordinates, indices)
    comes = np.isin(new, ids)
    return (
        tuple(
            np.concatenate([axis[stays], added[comes]])
            for axis, added in zip(coordinates, indices, strict=True)
        ),
        np.concatenate([owners[stays], new[comes]]),
    )


def _regions_of_objects(
    editor: LabelEditor,
    regions: np.ndarray,
    indices: tuple[np.ndarray, ...],
    present: np.ndarray,
    new: np.ndarray,
) -> dict[int, int]:
    """The region, after pixels change from `present` to `new`, of each object concerned.

    That of most of its pixels, the lower id on a tie, as in `measure`. Other pixels are read only
    of objects that do not change as a whole.
    """
    owners = editor.labels[indices]
    counts = counted(owners)
    ids = np.array(sorted(counts), dtype=np.int64)
    partly = [i for i, count in counts.items() if count < editor.index.count(i)]
    coordinates, their_owners = editor.pixels(partly)
    whole = regions[coordinates]
    n_classes = 1 + max(int(values.max(initial=0)) for values in (whole, present, new))
    of_objects = owners > 0
    owners, present, new = owners[of_objects], present[of_objects], new[of_objects]
    votes = _votes(ids, owners, new, n_classes)
    stays = _votes(ids, their_owners, whole, n_classes) - _votes(ids, owners, present, n_classes)
    at = np.searchsorted(ids, partly)
    votes[at] += stays[at]
    return dict(zip(ids.tolist(), votes.argmax(axis=1).tolist(), strict=True))


def _votes(ids: np.ndarray, owners: np.ndarray, classes: np.ndarray, n_classes: int) -> np.ndarray:
    """Pixels by object and class, int64 (ids, classes)."""
    number = np.searchsorted(ids, owners).astype(np.int64)
    votes = np.bincount(number * n_classes + classes, minlength=len(ids) * n_classes)
    return votes.reshape(len(ids), n_classes)


def _among(coordinates: tuple[np.ndarray, ...], pixels: tuple[np.ndarray, ...]) -> np.ndarray:
    """Which of the coordinates are among the pixels."""
    box = around_pixels(pixels)
    hit = np.zeros([part.stop - part.start for part in box], dtype=bool)
    hit[moved(pixels, box, -1)] = True
    found = inside(coordinates, box)
    found[found] = hit[moved((axis[found] for axis in coordinates), box, -1)]
    return found
