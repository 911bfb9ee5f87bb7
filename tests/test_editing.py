"""Whatever is done, in whatever order, is undone and redone bit by bit, and all keeps in step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from editing_desks import is_connected, measured_anew, plane, stack
from napari_coseg.editing.add_mask import add_mask
from napari_coseg.editing.desk import Desk
from napari_coseg.editing.drawing import ids_inside_polygon, ids_under_stroke
from napari_coseg.editing.edit import Edit
from napari_coseg.editing.index import ObjectIndex
from napari_coseg.editing.objects import (
    add_polygon,
    delete,
    fill_holes,
    merge,
    painted,
    set_class,
    smooth,
)
from napari_coseg.editing.regions import clean_regions, fill_region, painted_regions, set_region
from napari_coseg.editing.rerun import merge_prediction, merge_regions
from napari_coseg.editing.review import Reviewed
from napari_coseg.editing.split import split_along, split_at
from napari_coseg.errors import EditError

Rng = np.random.Generator
DESKS = [pytest.param(plane, id="plane"), pytest.param(stack, id="stack")]


# ---------------------------------------------------------------------------------------------
# Actions with arguments drawn by chance; the property tests below run them all


def _some(desk: Desk, rng: Rng, count: int) -> list[int]:
    ids = desk.index.ids
    return rng.choice(ids, min(count, len(ids)), replace=False).tolist()


def _z(desk: Desk) -> int | None:
    return 1 if desk.labels.ndim == 3 else None


def _at(desk: Desk, yx: tuple[int, int]) -> tuple[int, ...]:
    return (1, *yx) if desk.labels.ndim == 3 else yx


def _blob(desk: Desk, rng: Rng) -> np.ndarray:
    middle = rng.uniform(0, desk.labels.shape[-1], 2)
    angle = np.linspace(0, 6, 9)
    radius = rng.uniform(4, 25, 9)
    return middle + np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)


def _brush(image: np.ndarray, desk: Desk, rng: Rng, value: int) -> list:
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


def _merge_by_stroke(desk: Desk, rng: Rng) -> Edit:
    ends = rng.uniform(0, desk.labels.shape[-1], (2, 2))
    ids = ids_under_stroke(desk, ends, 5, _z(desk))
    return merge(desk, ids if len(ids) > 1 else _some(desk, rng, 2))


def _split_along(desk: Desk, rng: Rng) -> Edit:
    (object_id,) = _some(desk, rng, 1)
    rows, columns = desk.index.box(object_id)[-2:]
    y = (rows.start + rows.stop) // 2
    return split_along(desk, [(y, columns.start - 1), (y, columns.stop)], min_piece_px=1)


def _split_at(desk: Desk, rng: Rng) -> Edit:
    (object_id,) = _some(desk, rng, 1)
    pixels = np.argwhere(desk.labels == object_id)
    return split_at(desk, pixels[rng.choice(len(pixels), 3, replace=False)].tolist())


def _painted(desk: Desk, rng: Rng) -> Edit:
    before = desk.labels.copy()
    edit = painted(desk, _brush(desk.labels, desk, rng, int(desk.index.ids[0])))
    desk.labels[...] = before
    return edit


def _painted_regions(desk: Desk, rng: Rng) -> Edit:
    before = desk.regions.copy()
    edit = painted_regions(desk, _brush(desk.regions, desk, rng, 2))
    desk.regions[...] = before
    return edit


def _new_run(desk: Desk, rng: Rng) -> Edit:
    new = (plane if desk.labels.ndim == 2 else stack)(int(rng.integers(9)))
    reviewed = Reviewed(desk.labels.shape).with_objects(_some(desk, rng, 3))
    return merge_prediction(desk, new.labels, new.table, reviewed)


def _new_regions(desk: Desk, rng: Rng) -> Edit:
    new = np.roll(desk.regions, 15, axis=-1)
    return merge_regions(desk, new, Reviewed(desk.labels.shape))


ACTIONS: dict[str, Callable[[Desk, Rng], Edit]] = {
    "merge": _merge_by_stroke,
    "merge far apart": lambda desk, rng: merge(desk, _some(desk, rng, 3)),
    "split along": _split_along,
    "split at": _split_at,
    "delete": lambda desk, rng: delete(desk, _some(desk, rng, 4)),
    "delete all": lambda desk, rng: delete(desk, desk.index.ids),
    "class of a lasso": lambda desk, rng: set_class(
        desk, ids_inside_polygon(desk, _blob(desk, rng)) or _some(desk, rng, 2), 2
    ),
    "no class": lambda desk, rng: set_class(desk, _some(desk, rng, 2), 0),
    "fill": lambda desk, rng: fill_holes(desk, _some(desk, rng, 5)),
    "median": lambda desk, rng: smooth(desk, _some(desk, rng, 5), 2),
    "open": lambda desk, rng: smooth(desk, _some(desk, rng, 5), 2.5, "open"),
    "close": lambda desk, rng: smooth(desk, _some(desk, rng, 5), 3, "close"),
    "add": lambda desk, rng: add_polygon(desk, _blob(desk, rng), class_id=1, z=_z(desk)),
    "extend": lambda desk, rng: add_polygon(
        desk, _blob(desk, rng), extend=_some(desk, rng, 1)[0], z=_z(desk)
    ),
    "mask": lambda desk, rng: add_mask(
        desk, rng.random((30, 25)) < 0.8, (40, 30), clicks=[(41, 33)], z=_z(desk), class_id=2
    ),
    "brush": _painted,
    "region lasso": lambda desk, rng: set_region(desk, _blob(desk, rng), 3, _z(desk)),
    "region bucket": lambda desk, rng: fill_region(
        desk, _at(desk, tuple(rng.integers(0, 90, 2).tolist())), 1
    ),
    "region cleaning": lambda desk, rng: clean_regions(desk, 200, 200),
    "region brush": _painted_regions,
    "new run": _new_run,
    "new regions": _new_regions,
}


def state(desk: Desk) -> tuple:
    boxes = [desk.index.box(int(i)) for i in desk.index.ids]
    counts = [desk.index.count(int(i)) for i in desk.index.ids]
    return desk.labels.copy(), desk.regions.copy(), desk.table.copy(), boxes, counts


def assert_same(one: tuple, other: tuple) -> None:
    for ours, theirs in zip(one[:2], other[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    pd.testing.assert_frame_equal(one[2], other[2], check_exact=True)
    assert one[3:] == other[3:]


def assert_in_step(desk: Desk) -> None:
    """Table and index are what looking at every pixel gives, bit by bit."""
    pd.testing.assert_frame_equal(desk.table, measured_anew(desk), check_exact=True)
    anew = ObjectIndex.of(desk.labels)
    assert anew.ids.tolist() == desk.index.ids.tolist()
    for object_id in anew.ids.tolist():
        assert anew.box(object_id) == desk.index.box(object_id)
        assert anew.count(object_id) == desk.index.count(object_id)


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_made_taken_back_and_made_again_exactly(make, action):
    desk, rng = make(), np.random.default_rng(5)
    before = state(desk)
    edit = ACTIONS[action](desk, rng)
    assert_same(before, state(desk))  # asking changes nothing
    desk.apply(edit)
    after = state(desk)
    assert_in_step(desk)
    desk.revert(edit)
    assert_same(before, state(desk))
    desk.apply(edit)
    assert_same(after, state(desk))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("seed", range(4))
def test_a_long_day_is_taken_back_exactly(make, seed):
    desk, rng = make(seed), np.random.default_rng(seed)
    states, edits = [state(desk)], []
    for _ in range(12):
        action = rng.choice([name for name in ACTIONS if name != "delete all"])
        try:
            edit = ACTIONS[action](desk, rng)
        except EditError:  # nothing to split there, say
            continue
        desk.apply(edit)
        edits.append(edit)
        states.append(state(desk))
    assert_in_step(desk)
    for step in reversed(range(len(edits))):
        desk.revert(edits[step])
        assert_same(states[step], state(desk))
    for step, edit in enumerate(edits):
        desk.apply(edit)
        assert_same(states[step + 1], state(desk))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("action", ACTIONS)
def test_an_edit_holds_only_what_changes(make, action):
    desk = make()
    edit = ACTIONS[action](desk, np.random.default_rng(6))
    image = desk.labels if edit.target == "objects" else desk.regions
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
    desk = make(seed)
    before = desk.labels.copy()
    edit = how(desk, np.random.default_rng(seed))
    desk.apply(edit)
    assert edit.added
    assert not edit.removed
    np.testing.assert_array_equal(desk.labels > 0, before > 0)
    for object_id in (*edit.added, *edit.changed):
        assert is_connected(desk.labels == object_id)
        assert len(np.unique(before[desk.labels == object_id])) == 1
    whose = edit.new_rows.set_index("id")[["class_id", "class_probability"]]
    for kind in whose.itertuples(index=False):
        assert tuple(kind) in set(edit.old_rows[list(whose)].itertuples(index=False, name=None))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("count", [2, 3, 7])
def test_of_merged_objects_the_largest_stays(make, count):
    desk = make()
    ids = _some(desk, np.random.default_rng(1), count)
    before = desk.labels.copy()
    edit = merge(desk, ids)
    desk.apply(edit)
    (target,) = edit.changed
    assert sorted((*edit.removed, target)) == sorted(ids)
    sizes = np.bincount(before.ravel())
    assert sizes[target] == max(sizes[i] for i in ids)
    np.testing.assert_array_equal(desk.labels == target, np.isin(before, ids))


def test_new_ids_never_come_to_mean_two_objects():
    desk = plane()
    edit = add_polygon(desk, [(0, 0), (0, 150), (150, 0)])
    desk.apply(edit)
    desk.revert(edit)
    again = add_polygon(desk, [(100, 100), (100, 150), (150, 150)])
    assert edit.added[0] < again.added[0]


@pytest.mark.parametrize("make", DESKS)
def test_an_edit_is_one_step_of_naparis_own_undo(make):
    layers = pytest.importorskip("napari.layers")
    desk = make()
    layer = layers.Labels(desk.labels)
    assert layer.data is desk.labels
    before = state(desk)
    edit = merge(desk, _some(desk, np.random.default_rng(2), 3))
    layer._save_history(edit.history_item())
    desk.apply(edit)
    after = state(desk)
    layer.undo()
    np.testing.assert_array_equal(desk.labels, before[0])
    desk.revert(edit)  # table and index follow; the pixels are there already
    assert_same(before, state(desk))
    layer.redo()
    desk.apply(edit)
    assert_same(after, state(desk))
