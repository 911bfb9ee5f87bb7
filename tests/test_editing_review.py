"""What is reviewed is never overwritten, and what is left comes in the order of doubt."""

from __future__ import annotations

import json

import numpy as np
import pytest

from cases.label_editors import plane, stack
from napari_coseg.core.errors import EditError
from napari_coseg.inference.splice import Objects, splice_objects
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import delete, merge, set_class
from napari_coseg.labels.editing.rerun import merge_prediction, merge_regions
from napari_coseg.labels.editing.review import BOTH, Reviewed, doubtful_first
from napari_coseg.labels.measure import object_table

SHAPES = [pytest.param((30, 40), id="plane"), pytest.param((3, 30, 40), id="stack")]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_marks_of_regions_come_back_as_they_were(shape, share):
    mask = np.random.default_rng(0).random(shape) < share
    marked = Reviewed(shape).with_area(np.nonzero(mask))
    np.testing.assert_array_equal(marked.objects.mask(), mask)
    labels = np.zeros(shape, np.int32)
    every = np.nonzero(np.ones(shape))
    np.testing.assert_array_equal(marked.protects(every, labels), mask.ravel())
    read = Reviewed.from_json(json.loads(json.dumps(marked.as_json())), shape)
    np.testing.assert_array_equal(read.objects.mask(), mask)
    np.testing.assert_array_equal(read.regions.mask(), mask)
    assert marked.without_area(every).is_empty


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_marks_come_and_go_piece_by_piece(shape, seed):
    """Against a mask of all pixels, with pieces that touch, overlap and reach the ends."""
    rng = np.random.default_rng(seed)
    mask, marked = np.zeros(shape, bool), Reviewed(shape)
    for _ in range(20):
        rows = slice(*np.sort(rng.integers(0, shape[-2] + 1, 2)).tolist())
        columns = slice(*np.sort(rng.integers(0, shape[-1] + 1, 2)).tolist())
        piece = np.zeros(shape, bool)
        piece[..., rows, columns] = True
        value = bool(rng.random() < 0.6)
        mask[piece] = value
        change = marked.with_area if value else marked.without_area
        marked = change(np.nonzero(piece))
        np.testing.assert_array_equal(marked.regions.mask(), mask)
        Reviewed.from_json(marked.as_json(), shape)  # in order, with gaps between
        box = (*(slice(1, 3) for _ in shape[:-2]), slice(4, 19), slice(7, 33))
        np.testing.assert_array_equal(marked.regions.mask(box), mask[box])


def test_reviewed_objects_are_protected_wherever_they_are():
    labels = np.array([[1, 1, 0, 2]])
    marked = Reviewed((1, 4)).with_objects([1, 7])
    assert marked.protects(np.nonzero(labels >= 0), labels).tolist() == [True, True, False, False]
    assert marked.without_objects([1]).ids == {7}
    assert marked.among([1, 2]).ids == {1}


@pytest.mark.parametrize("target", BOTH)
def test_an_area_counts_for_what_was_checked_in_it(target):
    shape, (other,) = (6, 8), set(BOTH) - {target}
    mask = np.zeros(shape, bool)
    mask[2:4, 1:5] = True
    marked = Reviewed(shape).with_area(np.nonzero(mask), [target])
    np.testing.assert_array_equal(marked.area(target).mask(), mask)
    assert not marked.area(other)
    read = Reviewed.from_json(json.loads(json.dumps(marked.as_json())), shape)
    np.testing.assert_array_equal(read.area(target).mask(), mask)
    assert not read.area(other)
    both = marked.with_area(np.nonzero(mask))
    assert both.without_area(np.nonzero(mask), [target]).area(other).mask()[mask].all()
    protected = marked.protects(np.nonzero(mask), np.zeros(shape, np.int32))
    assert protected.all() == protected.any() == (target == "objects")


def test_marks_kept_before_areas_had_kinds_count_for_both():
    read = Reviewed.from_json({"shape": [2, 4], "ids": [3], "runs": [[1, 3]]}, (2, 4))
    assert read.objects.runs.tolist() == read.regions.runs.tolist() == [[1, 3]]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"shape": [4, 5], "ids": [], "runs": []}, id="another shape"),
        pytest.param({"shape": [4, 4], "ids": ["x"], "runs": []}, id="ids in words"),
        pytest.param({"shape": [4, 4], "ids": [], "runs": [[1, 2, 3]]}, id="odd runs"),
        pytest.param({"shape": [4, 4], "ids": [], "runs": [[0, 17]]}, id="past the end"),
        pytest.param({"shape": [4, 4], "ids": [], "runs": [[5, 7], [6, 9]]}, id="overlapping"),
        pytest.param({"shape": [4, 4], "ids": [], "runs": [[-3, 7]]}, id="before the beginning"),
        pytest.param({"shape": [4, 4], "ids": [], "runs": [[0, 1 << 90]]}, id="over 64 bits"),
        pytest.param(
            {"shape": [4, 4], "ids": [], "runs": [], "region_runs": [[0, 17]]}, id="regions past it"
        ),
    ],
)
def test_marks_that_cannot_be_right_are_refused(broken):
    with pytest.raises(EditError):
        Reviewed.from_json(broken, (4, 4))


# ---------------------------------------------------------------------------------------------
# Order of doubt


def test_the_least_sure_come_first_and_the_reviewed_not_at_all():
    editor = plane()
    table = editor.table.assign(class_probability=np.linspace(0.9, 0.1, len(editor.table)))
    table.loc[0, "class_probability"] = np.nan
    ids = table["id"].tolist()
    queue = doubtful_first(table)
    assert queue.ids.tolist() == [*ids[:0:-1], ids[0]]
    seen = Reviewed(editor.labels.shape).with_objects(ids[-2:])
    queue = doubtful_first(table, seen)
    assert (queue.left, queue.total) == (len(ids) - 2, len(ids))
    assert queue.ids[0] == ids[-3]


def test_a_reviewed_region_reviews_what_lies_in_it():
    editor = plane()
    half = np.zeros(editor.labels.shape, bool)
    half[:, :80] = True
    queue = doubtful_first(editor.table, Reviewed(half.shape).with_area(np.nonzero(half)))
    left = editor.rows(queue.ids)
    assert (left["centroid_x"] >= 79.5).all()
    assert len(left) == (editor.table["centroid_x"] >= 79.5).sum()


def test_a_class_given_by_hand_leaves_no_doubt():
    editor = plane()
    first = int(doubtful_first(editor.table).ids[0])
    editor.apply(set_class(editor, [first], 1))
    assert doubtful_first(editor.table).ids[-1] == first


# ---------------------------------------------------------------------------------------------
# A new run


@pytest.mark.parametrize("make", [plane, stack])
def test_a_new_run_overwrites_nothing_that_is_reviewed(make):
    editor, new = make(0), make(1)
    before, rows = editor.labels.copy(), editor.table.set_index("id")
    region = np.zeros(before.shape, bool)
    region[..., 30:60, 40:80] = True
    marks = [int(i) for i in editor.index.ids[:4]]
    reviewed = Reviewed(before.shape).with_objects(marks).with_area(np.nonzero(region))
    editor.apply(merge_prediction(editor, new.labels, new.table, reviewed))
    kept = sorted(set(marks) | set(np.unique(before[region])) - {0})
    np.testing.assert_array_equal(editor.labels[region], before[region])
    for object_id in kept:
        np.testing.assert_array_equal(editor.labels == object_id, before == object_id)
    after = editor.table.set_index("id")
    assert after.loc[kept].equals(rows.loc[kept])


def taken_by_a_merge(new, free):
    editor = LabelEditor.of_labels(np.where(free, 0, 5).astype(np.int32), (1.0, 1.0))
    table = object_table(new, pixel_size_um=(1, 1))
    editor.apply(merge_prediction(editor, new, table, Reviewed(new.shape).with_objects([5])))
    return np.where(free, editor.labels > 0, 0)


def taken_by_a_refinement(new, free):
    table = object_table(new, pixel_size_um=(1, 1))
    nothing, whole = np.zeros_like(new), (slice(0, new.shape[0]), slice(0, new.shape[1]))
    now, found = Objects.of(nothing, table), Objects.of(new, table)
    return splice_objects(now, found, whole, whole, ~free).labels > 0


@pytest.mark.parametrize("take", [taken_by_a_merge, taken_by_a_refinement])
@pytest.mark.parametrize(
    ("free", "expected"),
    [("1111", "1111"), ("1110", "1110"), ("1100", "0000"), ("1000", "0000"), ("0000", "0000")],
)
def test_a_new_object_is_taken_where_more_than_half_of_it_is_free(take, free, expected):
    new = np.zeros((3, 8), np.int32)
    new[1, 2:6] = 1
    is_free = np.ones(new.shape, bool)
    is_free[1, 2:6] = [digit == "1" for digit in free]
    assert "".join(str(int(one)) for one in take(new, is_free)[1, 2:6]) == expected


def test_without_marks_a_new_run_is_taken_whole():
    editor, new = plane(0), plane(1)
    editor.apply(merge_prediction(editor, new.labels, new.table, Reviewed(new.labels.shape)))
    np.testing.assert_array_equal(editor.labels > 0, new.labels > 0)
    pairs = np.unique(np.stack([editor.labels.ravel(), new.labels.ravel()]), axis=1)
    assert pairs.shape[1] == len(editor.index) + 1 == len(new.index) + 1
    ours, theirs = editor.table.set_index("id"), new.table.set_index("id")
    columns = ["class_id", "class_probability", "area_um2", "bbox_x0"]
    for here, there in pairs.T[1:].tolist():
        assert ours.loc[here, columns].equals(theirs.loc[there, columns])


def test_what_a_new_run_finds_again_keeps_its_id_and_its_pixels():
    editor, new = plane(0), plane(0)
    new.apply(delete(new, [3]))
    new.apply(merge(new, [10, 11]))
    new.apply(set_class(new, [20], 3 - int(new.rows([20])["class_id"][0])))
    edit = merge_prediction(editor, new.labels, new.table, Reviewed(new.labels.shape))
    touched = {*edit.removed, *edit.added, *edit.changed}
    assert {3, 20} <= touched <= {3, 10, 11, 20, *edit.added}
    assert set(np.unique(editor.labels[edit.indices])) <= {0, 3, 10, 11}


def test_new_regions_stop_at_reviewed_ones():
    editor = plane()
    before, new = editor.regions.copy(), np.full_like(editor.regions, 1)
    seen = np.zeros(before.shape, bool)
    seen[50:90] = True
    editor.apply(merge_regions(editor, new, Reviewed(before.shape).with_area(np.nonzero(seen))))
    np.testing.assert_array_equal(editor.regions[seen], before[seen])
    assert (editor.regions[~seen] == 1).all()


def test_a_new_run_changes_what_was_not_checked_in_an_area():
    """Objects are taken where only the regions are reviewed, and the other way round."""
    seen = np.nonzero(np.ones(plane().labels.shape))
    editor, new = plane(0), plane(1)
    marks = Reviewed(editor.labels.shape).with_area(seen, ["regions"])
    editor.apply(merge_prediction(editor, new.labels, new.table, marks))
    np.testing.assert_array_equal(editor.labels > 0, new.labels > 0)
    assert merge_regions(editor, np.full_like(editor.regions, 1), marks).is_empty
    marks = Reviewed(editor.labels.shape).with_area(seen, ["objects"])
    editor.apply(merge_regions(editor, np.full_like(editor.regions, 1), marks))
    assert (editor.regions == 1).all()
    assert merge_prediction(editor, plane(0).labels, plane(0).table, marks).is_empty


OTHERS = {
    "labels": lambda editor, marks: merge_prediction(
        editor, editor.labels[1:], editor.table, marks
    ),
    "regions": lambda editor, marks: merge_regions(editor, editor.regions[1:], marks),
    "table": lambda editor, marks: merge_prediction(editor, editor.labels, editor.table[1:], marks),
}


@pytest.mark.parametrize("take", OTHERS.values(), ids=OTHERS)
def test_a_run_of_another_image_is_refused(take):
    editor = plane()
    marks = Reviewed(editor.labels.shape)
    with pytest.raises(EditError):
        take(editor, marks)
