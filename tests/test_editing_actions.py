"""What each correction of objects and regions does, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from cases.label_editors import CLASSES, REGIONS, plane, stack
from napari_coseg.core.errors import EditError
from napari_coseg.core.types import Instances, Prediction
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
from napari_coseg.labels.editing.add import grow
from napari_coseg.labels.editing.drawing import (
    Plane,
    cut_pixels,
    ids_inside_polygon,
    ids_under_stroke,
    polygon_pixels,
    stroke_pixels,
)
from napari_coseg.labels.editing.index import ObjectIndex
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import (
    add_polygon,
    delete,
    fill_holes,
    merge,
    set_class,
    smooth,
)
from napari_coseg.labels.editing.regions import clean_regions, fill_region, set_region
from napari_coseg.labels.editing.review import Reviewed
from napari_coseg.labels.editing.split import split_along, split_at

SQUARE = [(20, 20), (20, 40), (40, 40), (40, 20)]


def picture(*rows: str) -> np.ndarray:
    return np.array([[int(value) for value in row] for row in rows], np.int32)


def on(labels: np.ndarray, regions: np.ndarray | None = None) -> LabelEditor:
    return LabelEditor.of_labels(
        labels.copy(), (1.0,) * labels.ndim, regions, classes=CLASSES, region_classes=REGIONS
    )


def after(editor: LabelEditor, edit) -> np.ndarray:
    editor.apply(edit)
    return editor.labels if edit.target == "objects" else editor.regions


# ---------------------------------------------------------------------------------------------
# Drawings


@pytest.mark.parametrize(
    "outline",
    [
        pytest.param([(2.5, 3.1), (2.9, 30.2), (25.7, 17.3)], id="triangle"),
        pytest.param([(-9.3, -4.1), (20.2, 50.3), (44.9, 7.7)], id="reaching out"),
        pytest.param(np.random.default_rng(0).uniform(0, 40, (30, 2)), id="crossing itself"),
        pytest.param([(100.1, 100), (100.2, 120.3), (120.7, 110)], id="outside"),
    ],
)
def test_an_outline_is_filled_as_scikit_image_does(outline):
    from skimage.draw import polygon

    ours, theirs = np.zeros((2, 40, 36), bool)
    ours[polygon_pixels(outline, ours.shape)] = True
    corners = np.asarray(outline)
    theirs[polygon(corners[:, 0], corners[:, 1], theirs.shape)] = True
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("seed", range(5))
def test_no_diagonal_neighbours_meet_across_a_cut(seed):
    from scipy.ndimage import label

    inner = np.random.default_rng(seed).uniform(5, 55, (6, 2))
    line = [(-1, inner[0][1]), *inner, (60, inner[-1][1])]
    left = np.ones((60, 60), bool)
    left[cut_pixels(line, left.shape)] = False
    assert label(left, np.ones((3, 3)))[1] >= 2


def test_a_stroke_is_as_wide_as_its_brush():
    y, x = stroke_pixels([(10, 5), (10, 30)], 7, (40, 40))
    assert (y.min(), y.max(), x.min(), x.max()) == (7, 13, 2, 33)


def test_a_stroke_touches_what_lies_under_it():
    editor = on(picture("1100220", "1100220", "0000000", "3300440"))
    assert ids_under_stroke(editor, [(0, 0), (0, 6)]) == [1, 2]
    assert ids_under_stroke(editor, [(2, 3)], 1) == []
    assert ids_under_stroke(editor, [(2, 3)], 3) == [2, 4]
    assert ids_under_stroke(editor, [(2, 3)], 5) == [1, 2, 3, 4]
    assert ids_under_stroke(editor, [(-50, -50), (-40, -40)]) == []


@pytest.mark.parametrize(
    ("by", "share", "expected"),
    [("centroid", 0.5, [1, 2]), ("area", 0.5, [1, 2]), ("area", 0.1, [1, 2, 3]), ("area", 1, [1])],
)
def test_a_lasso_takes_objects_by_centroid_or_by_area(by, share, expected):
    labels = np.zeros((60, 60), np.int32)
    labels[22:30, 22:30], labels[30:38, 34:44], labels[36:50, 25:35] = 1, 2, 3
    assert ids_inside_polygon(on(labels), SQUARE, by=by, min_share=share) == expected


def test_a_lasso_in_a_slice_takes_objects_of_this_slice():
    labels = np.zeros((3, 60, 60), np.int32)
    labels[0, 25:35, 25:35], labels[1:, 25:35, 25:35] = 1, 2
    for by in ("centroid", "area"):
        assert ids_inside_polygon(on(labels), SQUARE, by=by, plane=Plane(0, 2)) == [2]
        assert ids_inside_polygon(on(labels), SQUARE, by=by) == [1, 2]


# ---------------------------------------------------------------------------------------------
# Objects


def test_ids_may_be_large_and_far_apart():
    labels = np.zeros((9, 9), np.int32)
    labels[1:3, 1:4], labels[5:8, 5:7] = 7, 2_000_000_000
    index = ObjectIndex.of(labels)
    assert index.ids.tolist() == [7, 2_000_000_000]
    assert index.box(2_000_000_000) == (slice(5, 8), slice(5, 7))
    assert (index.count(7), index.count(8)) == (6, 0)


def test_a_merged_object_has_the_class_of_most_of_its_area():
    editor = on(picture("1112", "1113"))
    editor.apply(set_class(editor, [1, 3], 2))
    editor.apply(set_class(editor, [2], 1))
    editor.table["class_probability"] = [0.8, 0.1, 0.4]
    editor.apply(merge(editor, [1, 2, 3]))
    (row,) = editor.table.to_dict("records")
    assert (row["id"], row["class_id"], row["class"]) == (1, 2, "lymphocyte")
    assert row["class_probability"] == pytest.approx((6 * 0.8 + 0.4) / 7)


def test_the_pixels_of_a_cut_go_to_the_nearest_piece_and_specks_with_them():
    editor = on(picture("1111111", "1111111", "1111111"))
    edit = split_along(editor, [(-1, 3), (3, 3)], min_piece_px=1)
    found = after(editor, edit)
    assert edit.added == (2,)
    assert sorted(np.bincount(found.ravel())[1:]) in ([9, 12], [10, 11])
    editor = on(picture("1111111", "1111111", "1111111"))
    with pytest.raises(EditError, match="splits no object"):
        split_along(editor, [(-1, 5), (1, 6), (1, 8)], min_piece_px=4)


def test_a_line_parts_all_that_it_crosses_from_side_to_side():
    editor = on(picture("1110222", "1110222", "1110222", "3333333"))
    edit = split_along(editor, [(1, -1), (1, 9)], min_piece_px=1)
    assert sorted(edit.old_rows["id"]) == [1, 2]
    assert split_along(editor, [(1, -1), (1, 9)], [2], 1).old_rows["id"].tolist() == [2]


def test_clicks_part_a_dumbbell_at_its_neck():
    y, x = np.mgrid[:40, :80]
    left, right = (y - 20) ** 2 + (x - 20) ** 2 < 225, (y - 20) ** 2 + (x - 52) ** 2 < 324
    editor = on((left | right).astype(np.int32))
    found = after(editor, split_at(editor, [(26, 16), (12, 57)]))
    border = np.flatnonzero(np.diff((found[20] == found[26, 16]).astype(int)) < 0)
    assert abs(border[0] - 34.5) <= 2


def test_what_an_object_encloses_becomes_its_own_but_for_other_objects():
    editor = on(picture("11111", "10021", "10001", "11111"))
    np.testing.assert_array_equal(
        after(editor, fill_holes(editor, [1])), picture("11111", "11121", "11111", "11111")
    )
    assert fill_holes(editor, [1]).is_empty


@pytest.mark.parametrize(
    ("how", "has_spike", "has_notch"),
    [("median", False, False), ("open", False, True), ("close", True, False)],
)
def test_smoothing_takes_spikes_and_fills_notches(how, has_spike, has_notch):
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 10:30] = 1
    labels[4:10, 20] = 1
    labels[25:30, 15] = 0
    editor = on(labels)
    found = after(editor, smooth(editor, [1], 3, how))
    assert bool(found[6, 20]) is has_spike
    assert bool(found[27, 15] == 0) is has_notch


def test_smoothing_keeps_both_parts_of_what_was_merged_across_a_gap():
    labels = np.zeros((40, 40), np.int32)
    labels[4:16, 4:16], labels[22:38, 22:38] = 1, 1
    editor = on(labels)
    assert (after(editor, smooth(editor, [1], 2, "open"))[6:14, 6:14] == 1).all()


@pytest.mark.parametrize("how", ["median", "open", "close"])
def test_smoothing_leaves_straight_sides_at_the_border_and_small_objects(how):
    labels = np.zeros((40, 40), np.int32)
    labels[:, :20], labels[30, 30] = 1, 2
    editor = on(labels)
    found = after(editor, smooth(editor, [1, 2], 4, how))
    assert found[30, 30] == 2
    np.testing.assert_array_equal(found[8:32, :20], 1)
    np.testing.assert_array_equal(found[8:29, 20:], 0)


def test_a_painted_outline_takes_the_largest_free_piece():
    labels = np.zeros((60, 60), np.int32)
    labels[:, 24:26] = 5
    editor = on(labels)
    edit = add_polygon(editor, SQUARE, class_id=2)
    found = after(editor, edit)
    assert edit.added == (6,)
    assert edit.new_rows["class_probability"].tolist() == [1.0]
    assert (found[20:40, 24:26] == 5).all()
    assert not (found[:, :24] == 6).any()


REFUSED = {
    "nothing chosen": lambda editor: delete(editor, []),
    "no such object": lambda editor: delete(editor, [999]),
    "one to merge": lambda editor: merge(editor, [1]),
    "no such class": lambda editor: set_class(editor, [1], 9),
    "no such class to add": lambda editor: add_polygon(
        editor, [(0, 6), (4, 6), (4, 9)], class_id=9
    ),
    "one click": lambda editor: split_at(editor, [(1, 1)]),
    "clicks on background": lambda editor: split_at(editor, [(0, 8), (1, 8)]),
    "clicks on two objects": lambda editor: split_at(editor, [(0, 0), (8, 8)]),
    "click outside": lambda editor: split_at(editor, [(0, 0), (80, 8)]),
    "click nowhere": lambda editor: split_at(editor, [(0, 0), (np.nan, 8)]),
    "a line of one point": lambda editor: split_along(editor, [(1, 1)]),
    "an outline of two points": lambda editor: add_polygon(editor, [(1, 1), (2, 2)]),
    "no free pixel inside": lambda editor: add_polygon(editor, [(0, 0), (0, 2), (2, 2), (2, 0)]),
    "a radius of nothing": lambda editor: smooth(editor, [1], 0),
    "another way to smooth": lambda editor: smooth(editor, [1], 2, "harder"),
    "no regions": lambda editor: set_region(editor, SQUARE, 0),
    "another lasso": lambda editor: ids_inside_polygon(editor, SQUARE, by="luck"),
}


@pytest.mark.parametrize("action", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_said(action):
    labels = np.zeros((10, 10), np.int32)
    labels[:5, :5], labels[6:, 6:] = 1, 2
    with pytest.raises(EditError):
        action(on(labels))


def test_labels_of_8_bits_run_out_of_ids():
    editor = on(np.full((4, 4), 255, np.uint8))
    with pytest.raises(EditError, match="cannot hold the id 256"):
        split_along(editor, [(2, -1), (2, 5)])


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((np.zeros((4, 4)), (1, 1)), id="labels with fractions"),
        pytest.param((np.zeros((4, 4), np.uint64), (1, 1)), id="labels of 64 bits without a sign"),
        pytest.param((np.full((4, 4), -1), (1, 1)), id="labels below 0"),
        pytest.param((np.zeros(4, int), (1,)), id="a line of labels"),
        pytest.param((np.zeros((4, 4), int), (1, 1, 1)), id="a pixel size too many"),
        pytest.param((np.zeros((4, 4), int), (1, 1), np.zeros((5, 4))), id="regions too large"),
    ],
)
def test_an_editor_refuses_what_does_not_belong_together(arguments):
    with pytest.raises(EditError):
        LabelEditor.of_labels(*arguments)


def test_an_editor_refuses_the_table_of_other_labels():
    objects = Instances(np.eye(4, dtype=int), plane().table)
    with pytest.raises(EditError, match="measure the labels"):
        LabelEditor(Prediction(None, (), objects, (1, 1)))


def test_an_edit_of_other_labels_is_refused_and_changes_nothing():
    editor = on(picture("1122", "1122"))
    edit = delete(editor, [1])
    editor.labels[0, 0] = 2  # painted behind the editor's back
    before, table = editor.labels.copy(), editor.table
    with pytest.raises(EditError, match="changed since"):
        editor.apply(edit)
    np.testing.assert_array_equal(editor.labels, before)
    assert editor.table is table


def test_an_editor_edits_the_labels_of_its_prediction_and_gives_it_a_new_table():
    given = plane().prediction
    editor = LabelEditor(given)
    editor.apply(delete(editor, editor.index.ids))
    assert not given.instances.labels.any()
    assert editor.labels is given.instances.labels
    assert len(editor.table) == 0 < len(given.instances.table)


# ---------------------------------------------------------------------------------------------
# Grown from a click


def halved(maps: np.ndarray) -> np.ndarray:
    """The maps on a grid of half as many pixels a side, as networks see images."""
    *rest, height, width = maps.shape
    return maps.reshape(*rest, height // 2, 2, width // 2, 2).mean((-3, -1))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize(
    ("shrunk", "at_least"), [(np.copy, 0.95), (halved, 0.8)], ids=["same grid", "half"]
)
@pytest.mark.parametrize("make", [plane, stack])
def test_what_was_deleted_grows_back_from_a_click(make, shrunk, at_least):
    editor = make()
    truth = editor.labels.copy()
    plane_of = truth if truth.ndim == 2 else truth[1]
    hv = shrunk(horizontal_vertical_maps(plane_of))
    probability = shrunk((plane_of > 0).astype(np.float32))
    types = np.stack([1 - probability, 0.3 * probability, 0.7 * probability])
    sizes = np.bincount(plane_of.ravel())
    for object_id in np.argsort(sizes[1:])[-3:] + 1:
        pixels = np.argwhere(truth == object_id)
        pixels = pixels[pixels[:, 0] == 1] if truth.ndim == 3 else pixels
        click = pixels[np.linalg.norm(pixels - pixels.mean(axis=0), axis=1).argmin()]
        editor.apply(delete(editor, [object_id]))
        edit = grow(editor, click, probability, hv, class_probability=types)
        editor.apply(edit)
        found = editor.labels if truth.ndim == 2 else editor.labels[1]
        assert iou(found == edit.added[0], plane_of == object_id) >= at_least
        assert edit.new_rows["class_id"].tolist() == [2]
        others = (truth > 0) & (truth != object_id)
        assert not np.isin(editor.labels[others], edit.added).any()


def test_what_the_model_doubts_grows_only_from_a_click():
    editor = plane()
    probability = (editor.labels > 0) * np.float32(0.2)
    hv = horizontal_vertical_maps(editor.labels)
    pixels = np.argwhere(editor.labels == 5)
    editor.apply(delete(editor, [5]))
    edit = grow(editor, pixels[len(pixels) // 2], probability, hv)
    assert len(edit.new_values) >= 0.9 * len(pixels)


def _region_reviewed(editor: LabelEditor) -> Reviewed:
    return Reviewed(editor.labels.shape).with_area(np.nonzero(np.ones(editor.labels.shape)))


@pytest.mark.parametrize(
    ("click", "sure", "reviewed", "message"),
    [
        pytest.param((5, 5), 1, False, "object 1 is already there", id="on an object"),
        pytest.param((15, 15), 0.01, False, "finds no object", id="on what the model sees not"),
        pytest.param((15, 15), np.nan, False, "finds no object", id="on no number"),
        pytest.param((15, 15), 1, True, "reviewed", id="in a reviewed region"),
    ],
)
def test_nothing_grows(click, sure, reviewed, message):
    labels = np.zeros((20, 20), np.int32)
    labels[:9, :9] = 1
    editor = on(labels)
    maps = np.full((20, 20), sure, np.float32), np.zeros((2, 20, 20), np.float32)
    with pytest.raises(EditError, match=message):
        grow(editor, click, *maps, reviewed=_region_reviewed(editor) if reviewed else None)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(EditError, match="do not fit"):
        grow(plane(), (0, 0), np.ones((8, 8)), np.ones((2, 8, 9)))


# ---------------------------------------------------------------------------------------------
# Regions


def test_a_region_takes_its_objects_along():
    labels = np.zeros((60, 60), np.int32)
    labels[25:30, 25:30], labels[50:55, 50:55] = 1, 2
    editor = on(labels, np.zeros((60, 60), np.uint8))
    edit = set_region(editor, SQUARE, 3)
    editor.apply(edit)
    assert edit.changed == (1,)
    assert editor.table["region"].tolist() == ["fat", "background"]


def test_a_bucket_fills_a_piece_however_far_it_reaches():
    regions = np.zeros((40, 1900), np.uint8)
    regions[10:12], regions[12:30, 1890:], regions[20:30, :5] = 1, 1, 1
    editor = on(np.zeros(regions.shape, np.int32), regions)
    found = after(editor, fill_region(editor, (11, 3), 3))
    assert (found == 3).sum() == 2 * 1900 + 18 * 10
    assert (found[20:30, :5] == 1).all()


def test_specks_and_holes_are_measured_in_um2_and_previewed():
    regions = np.zeros((30, 30), np.uint8)
    regions[5:20, 5:20], regions[10:12, 10:12], regions[25, 25] = 1, 0, 3
    editor = LabelEditor.of_labels(
        np.zeros((30, 30), np.int32), (0.5, 0.5), regions.copy(), region_classes=REGIONS
    )
    edit = clean_regions(editor, min_area_um2=0.5, min_hole_um2=1.25)
    expected = np.zeros(regions.shape, bool)
    expected[10:12, 10:12] = expected[25, 25] = True
    np.testing.assert_array_equal(edit.mask(regions.shape), expected)
    assert clean_regions(editor, min_area_um2=0.25, min_hole_um2=1.0).is_empty
    assert fill_region(editor, (25, 25), 3).is_empty
