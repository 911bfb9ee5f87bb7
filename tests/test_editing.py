"""Whatever is done, in whatever order, is undone and redone bit by bit, and all keeps in step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from cases.label_editors import is_connected, measured_anew, plane, stack
from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.add_mask import add_mask
from napari_coseg.labels.editing.drawing import Plane, ids_inside_polygon, ids_under_stroke
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.index import ObjectIndex
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import (
    add_polygon,
    delete,
    fill_holes,
    merge,
    painted,
    set_class,
    smooth,
)
from napari_coseg.labels.editing.regions import (
    clean_regions,
    fill_region,
    painted_regions,
    set_region,
)
from napari_coseg.labels.editing.rerun import merge_prediction, merge_regions
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.labels.editing.split import split_along, split_at

Rng = np.random.Generator
DESKS = [pytest.param(plane, id="plane"), pytest.param(stack, id="stack")]


# ---------------------------------------------------------------------------------------------
# Actions with arguments drawn by chance; the property tests below run them all


def _some(editor: LabelEditor, rng: Rng, count: int) -> list[int]:
    ids = editor.index.ids
    return rng.choice(ids, min(count, len(ids)), replace=False).tolist()


def _z(editor: LabelEditor) -> int | None:
    return 1 if editor.labels.ndim == 3 else None


def _plane(editor: LabelEditor) -> Plane | None:
    return Plane(0, 1) if editor.labels.ndim == 3 else None


def _at(editor: LabelEditor, yx: tuple[int, int]) -> tuple[int, ...]:
    return (1, *yx) if editor.labels.ndim == 3 else yx


def _blob(editor: LabelEditor, rng: Rng) -> np.ndarray:
    middle = rng.uniform(0, editor.labels.shape[-1], 2)
    angle = np.linspace(0, 6, 9)
    radius = rng.uniform(4, 25, 9)
    return middle + np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def _brush(image: np.ndarray, editor: LabelEditor, rng: Rng, value: int) -> list:
    """Paint two overlapping squares, as napari does; gives the atoms of its history."""
    atoms = []
    for corner in ((5, 5), (8, 9)):
        at = (1, slice(None), slice(None))[3 - image.ndim :] if image.ndim == 3 else ()
        window = np.zeros(image.shape, bool)
        window[(*at[:1], slice(corner[0], corner[0] + 12), slice(corner[1], corner[1] + 12))] = True
        indices = np.nonzero(window & (image != value))
        atoms.append((indices, image[indices].copy(), value))
        image[indices] = value
        value += 1
    return atoms


def _merge_by_stroke(editor: LabelEditor, rng: Rng) -> Edit:
    ends = rng.uniform(0, editor.labels.shape[-1], (2, 2))
    ids = ids_under_stroke(editor, ends, 5, _plane(editor))
    return merge(editor, ids if len(ids) > 1 else _some(editor, rng, 2))


def _split_along(editor: LabelEditor, rng: Rng) -> Edit:
    (object_id,) = _some(editor, rng, 1)
    *slices, rows, columns = editor.index.box(object_id)
    y = (rows.start + rows.stop) // 2
    line = [(y, columns.start - 1), (y, columns.stop)]
    plane = Plane(0, slices[0].start) if slices else None
    return split_along(editor, line, min_piece_px=1, plane=plane)


def _split_at(editor: LabelEditor, rng: Rng) -> Edit:
    (object_id,) = _some(editor, rng, 1)
    pixels = np.argwhere(editor.labels == object_id)
    return split_at(editor, pixels[rng.choice(len(pixels), 3, replace=False)].tolist())


def _painted(editor: LabelEditor, rng: Rng) -> Edit:
    before = editor.labels.copy()
    edit = painted(editor, _brush(editor.labels, editor, rng, int(editor.index.ids[0])))
    editor.labels[...] = before
    return edit


def _painted_regions(editor: LabelEditor, rng: Rng) -> Edit:
    before = editor.regions.copy()
    edit = painted_regions(editor, _brush(editor.regions, editor, rng, 2))
    editor.regions[...] = before
    return edit


def _new_run(editor: LabelEditor, rng: Rng) -> Edit:
    new = (plane if editor.labels.ndim == 2 else stack)(int(rng.integers(9)))
    reviewed = Reviewed(editor.labels.shape).with_objects(_some(editor, rng, 3))
    return merge_prediction(editor, new.labels, new.table, reviewed)


def _new_regions(editor: LabelEditor, rng: Rng) -> Edit:
    new = np.roll(editor.regions, 15, axis=-1)
    return merge_regions(editor, new, Reviewed(editor.labels.shape))


ACTIONS: dict[str, Callable[[LabelEditor, Rng], Edit]] = {
    "merge": _merge_by_stroke,
    "merge far apart": lambda editor, rng: merge(editor, _some(editor, rng, 3)),
    "split along": _split_along,
    "split at": _split_at,
    "delete": lambda editor, rng: delete(editor, _some(editor, rng, 4)),
    "delete all": lambda editor, rng: delete(editor, editor.index.ids),
    "class of a lasso": lambda editor, rng: set_class(
        editor, ids_inside_polygon(editor, _blob(editor, rng)) or _some(editor, rng, 2), 2
    ),
    "no class": lambda editor, rng: set_class(editor, _some(editor, rng, 2), 0),
    "fill": lambda editor, rng: fill_holes(editor, _some(editor, rng, 5)),
    "median": lambda editor, rng: smooth(editor, _some(editor, rng, 5), 2),
    "open": lambda editor, rng: smooth(editor, _some(editor, rng, 5), 2.5, "open"),
    "close": lambda editor, rng: smooth(editor, _some(editor, rng, 5), 3, "close"),
    "add": lambda editor, rng: add_polygon(
        editor, _blob(editor, rng), class_id=1, plane=_plane(editor)
    ),
    "extend": lambda editor, rng: add_polygon(
        editor, _blob(editor, rng), extend=_some(editor, rng, 1)[0], plane=_plane(editor)
    ),
    "mask": lambda editor, rng: add_mask(
        editor, rng.random((30, 25)) < 0.8, (40, 30), clicks=[(41, 33)], z=_z(editor), class_id=2
    ),
    "brush": _painted,
    "region lasso": lambda editor, rng: set_region(editor, _blob(editor, rng), 3, _plane(editor)),
    "region bucket": lambda editor, rng: fill_region(
        editor, _at(editor, tuple(rng.integers(0, 90, 2).tolist())), 1
    ),
    "region cleaning": lambda editor, rng: clean_regions(editor, 200, 200),
    "region brush": _painted_regions,
    "new run": _new_run,
    "new regions": _new_regions,
}


def state(editor: LabelEditor) -> tuple:
    boxes = [editor.index.box(int(i)) for i in editor.index.ids]
    counts = [editor.index.count(int(i)) for i in editor.index.ids]
    return editor.labels.copy(), editor.regions.copy(), editor.table.copy(), boxes, counts


def assert_same(one: tuple, other: tuple) -> None:
    for ours, theirs in zip(one[:2], other[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    pd.testing.assert_frame_equal(one[2], other[2], check_exact=True)
    assert one[3:] == other[3:]


def assert_in_step(editor: LabelEditor) -> None:
    """Table and index are what looking at every pixel gives, bit by bit."""
    pd.testing.assert_frame_equal(editor.table, measured_anew(editor), check_exact=True)
    anew = ObjectIndex.of(editor.labels)
    assert anew.ids.tolist() == editor.index.ids.tolist()
    for object_id in anew.ids.tolist():
        assert anew.box(object_id) == editor.index.box(object_id)
        assert anew.count(object_id) == editor.index.count(object_id)


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_made_taken_back_and_made_again_exactly(make, action):
    editor, rng = make(), np.random.default_rng(5)
    before = state(editor)
    edit = ACTIONS[action](editor, rng)
    assert_same(before, state(editor))  # asking changes nothing
    editor.apply(edit)
    after = state(editor)
    assert_in_step(editor)
    editor.revert(edit)
    assert_same(before, state(editor))
    editor.apply(edit)
    assert_same(after, state(editor))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("seed", range(4))
def test_a_long_day_is_taken_back_exactly(make, seed):
    editor, rng = make(seed), np.random.default_rng(seed)
    states, edits = [state(editor)], []
    for _ in range(12):
        action = rng.choice([name for name in ACTIONS if name != "delete all"])
        try:
            edit = ACTIONS[action](editor, rng)
        except EditError:  # nothing to split there, say
            continue
        editor.apply(edit)
        edits.append(edit)
        states.append(state(editor))
    assert_in_step(editor)
    for step in reversed(range(len(edits))):
        editor.revert(edits[step])
        assert_same(states[step], state(editor))
    for step, edit in enumerate(edits):
        editor.apply(edit)
        assert_same(states[step + 1], state(editor))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_edit_holds_only_what_changes(make, action):
    editor = make()
    edit = ACTIONS[action](editor, np.random.default_rng(6))
    image = editor.labels if edit.target == "objects" else editor.regions
    indices, old, new = edit.history_item()
    assert (old != new).all()
    assert (old == image[indices]).all()
    flat = np.ravel_multi_index(indices, image.shape)
    assert len(np.unique(flat)) == len(flat)
    assert edit.mask(image.shape).sum() == len(flat)
    assert old.dtype == new.dtype == image.dtype


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("how", [_split_along, _split_at], ids=["along", "at"])
@pytest.mark.parametrize("seed", range(8))
def test_splitting_loses_nothing_and_leaves_connected_pieces(make, how, seed):
    editor = make(seed)
    before = editor.labels.copy()
    edit = how(editor, np.random.default_rng(seed))
    editor.apply(edit)
    assert edit.added
    assert not edit.removed
    np.testing.assert_array_equal(editor.labels > 0, before > 0)
    for object_id in (*edit.added, *edit.changed):
        assert is_connected(editor.labels == object_id)
        assert len(np.unique(before[editor.labels == object_id])) == 1
    whose = edit.new_rows.set_index("id")[["class_id", "class_probability"]]
    for kind in whose.itertuples(index=False):
        assert tuple(kind) in set(edit.old_rows[list(whose)].itertuples(index=False, name=None))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_of_merged_objects_the_largest_stays(make, count):
    editor = make()
    ids = _some(editor, np.random.default_rng(1), count)
    before = editor.labels.copy()
    edit = merge(editor, ids)
    editor.apply(edit)
    (target,) = edit.changed
    assert sorted((*edit.removed, target)) == sorted(ids)
    sizes = np.bincount(before.ravel())
    assert sizes[target] == max(sizes[i] for i in ids)
    np.testing.assert_array_equal(editor.labels == target, np.isin(before, ids))


def test_new_ids_never_come_to_mean_two_objects():
    editor = plane()
    edit = add_polygon(editor, [(0, 0), (0, 150), (150, 0)])
    editor.apply(edit)
    editor.revert(edit)
    again = add_polygon(editor, [(100, 100), (100, 150), (150, 150)])
    assert edit.added[0] < again.added[0]


@pytest.mark.parametrize("make", DESKS)
def test_an_edit_is_one_step_of_naparis_own_undo(make):
    layers = pytest.importorskip("napari.layers")
    editor = make()
    layer = layers.Labels(editor.labels)
    assert layer.data is editor.labels
    before = state(editor)
    edit = merge(editor, _some(editor, np.random.default_rng(2), 3))
    layer._save_history(edit.history_item())
    editor.apply(edit)
    after = state(editor)
    layer.undo()
    np.testing.assert_array_equal(editor.labels, before[0])
    editor.revert(edit)  # table and index follow; the pixels are there already
    assert_same(before, state(editor))
    layer.redo()
    editor.apply(edit)
    assert_same(after, state(editor))
