"""Corrections in a volume: drawn in a plane of any axis, they change what is seen there, wholly."""

from __future__ import annotations

import numpy as np
import pytest

from cases.label_editors import is_connected, volume
from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.drawing import Plane, ids_inside_polygon, ids_under_stroke
from napari_coseg.labels.editing.interpolate import interpolate
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import add_polygon, fill_holes, smooth
from napari_coseg.labels.editing.regions import fill_region, set_region
from napari_coseg.labels.editing.split import split_along

AXES = pytest.mark.parametrize("axis", [0, 1, 2], ids=["axial", "coronal", "sagittal"])


def of(labels: np.ndarray) -> LabelEditor:
    return LabelEditor.of_labels(labels, (1.0,) * 3)


def through_first(editor: LabelEditor, axis: int) -> tuple[Plane, np.ndarray]:
    """The plane through the middle of object 1 along an axis, and its centre in that plane."""
    centre = np.array([size // 4 for size in editor.labels.shape])
    return Plane(axis, int(centre[axis])), np.delete(centre, axis).astype(float)


def ring(centre: np.ndarray, radius: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return centre + radius * np.stack([np.sin(angle), np.cos(angle)], axis=1)


@AXES
@pytest.mark.parametrize("across", [0, 1])
def test_a_line_splits_the_object_seen_and_not_the_one_behind_it(axis, across):
    editor = volume()
    plane, centre = through_first(editor, axis)
    step = np.eye(2)[across]
    before = editor.labels.copy()
    edit = split_along(editor, [centre - 9 * step, centre + 9 * step], plane=plane)
    assert (edit.changed, edit.added) == ((1,), (9,))
    editor.apply(edit)
    np.testing.assert_array_equal(np.where(editor.labels == 9, 1, editor.labels), before)
    assert abs(editor.index.count(9) / (before == 1).sum() - 0.5) < 0.1
    seen = plane.of(editor.labels)
    side = (*centre.astype(int),)
    offset = np.eye(2, dtype=int)[1 - across] * 4
    assert {int(seen[tuple(side + sign * offset)]) for sign in (-1, 1)} == {1, 9}


@AXES
def test_a_cut_goes_on_where_the_object_is_wider_than_the_line(axis):
    """The line crosses a cap of the ball, which is wider in the planes behind."""
    editor = volume()
    plane, centre = through_first(editor, axis)
    plane, across = plane._replace(at=plane.at - 6), np.array([0, 5])
    edit = split_along(editor, [centre - across, centre + across], plane=plane)
    editor.apply(edit)
    assert edit.added == (9,)
    assert is_connected(editor.labels == 1) and is_connected(editor.labels == 9)


def test_a_line_that_only_touches_an_object_does_not_cut_it_where_it_is_not_seen():
    labels = np.zeros((9, 20, 20), np.int32)
    labels[:, 5:15, 5:15] = 1
    labels[4, :, 12:] = 0  # in the slice on screen the line runs beside the object
    with pytest.raises(EditError, match="splits no object"):
        split_along(of(labels), [(2, 13), (18, 13)], plane=Plane(0, 4))


def test_a_bend_under_the_line_stays_with_what_is_seen():
    """A hook whose tip lies under the line in other slices is cut in two, not in three."""
    labels = np.zeros((12, 12, 30), np.int32)
    labels[:4, 4:8, 2:20] = 1
    labels[:, 4:8, 16:20] = 1
    labels[9:, 4:8, 6:20] = 1  # back over the line
    editor = of(labels)
    edit = split_along(editor, [(2, 10), (10, 10)], plane=Plane(0, 1))
    assert edit.added == (2,)


@AXES
def test_strokes_and_outlines_see_one_plane(axis):
    editor = volume()
    plane, centre = through_first(editor, axis)
    along = np.delete(np.array(editor.labels.shape), axis) / 2 * (1, 0)
    step = int(np.prod((2,) * 3) / 2 ** (1 + (1 if axis == 0 else 0)))  # of the axis drawn along
    assert ids_under_stroke(editor, [centre, centre + along], 1, plane) == [1, 1 + step]
    for by in ("centroid", "area"):
        assert ids_inside_polygon(editor, ring(centre, 9), by=by, plane=plane) == [1]
    between = plane._replace(at=editor.labels.shape[axis] // 2)
    assert ids_under_stroke(editor, [centre, centre + along], 1, between) == []
    assert ids_inside_polygon(editor, ring(centre, 9), plane=between) == []


def test_a_lasso_goes_by_the_section_and_not_by_the_whole_object():
    """A slanted object has its centroid elsewhere."""
    labels = np.zeros((9, 10, 60), np.int32)
    for z in range(9):
        labels[z, 3:7, 6 * z : 6 * z + 6] = 1
    editor = of(labels)
    assert ids_inside_polygon(editor, ring(np.array([4.5, 2.5]), 6), plane=Plane(0, 0)) == [1]
    assert ids_inside_polygon(editor, ring(np.array([4.5, 26.5]), 6), plane=Plane(0, 0)) == []


@AXES
def test_outlines_add_objects_and_regions_in_the_plane(axis):
    editor = volume()
    plane, centre = through_first(editor, axis)
    plane = plane._replace(at=editor.labels.shape[axis] // 2)
    edit = add_polygon(editor, ring(centre, 6), plane=plane)
    assert set(edit.indices[axis]) == {plane.at}
    assert len(edit.new_values) == pytest.approx(np.pi * 36, rel=0.1)
    editor.apply(set_region(editor, ring(centre, 6), 3, plane))
    changed = np.argwhere(plane.of(editor.regions) == 3)
    assert np.abs(changed - centre).max() <= 6
    at = [*centre.astype(int)]
    at.insert(axis, plane.at)
    filled = fill_region(editor, at, 1, axis)
    assert set(filled.indices[axis]) == {plane.at}
    assert len(filled.new_values) == len(changed)


@pytest.mark.parametrize("plane", [None, Plane(0, 36), Plane(1, -1), Plane(3, 0)])
def test_a_plane_that_is_not_there_is_refused(plane):
    with pytest.raises(EditError, match="not in the stack"):
        split_along(volume(), [(0, 0), (9, 9)], plane=plane)


# ---------------------------------------------------------------------------------------------
# Between slices, and in three dimensions


@AXES
def test_a_ball_drawn_in_some_planes_is_filled_between_them(axis):
    labels = volume().labels
    truth = labels == 1
    plane = through_first(of(labels), axis)[0]
    editor = of(labels)
    for offset in (-5, -4, -2, -1, 1, 2, 4, 5):
        section = plane._replace(at=plane.at + offset).of(labels)
        section[section == 1] = 0
    editor = of(labels)
    editor.apply(interpolate(editor, [1], axis))
    found = editor.labels == 1
    assert (found & truth).sum() / (found | truth).sum() > 0.9
    with pytest.raises(EditError, match="no gap"):
        interpolate(editor, [1], axis)


def test_a_slanted_object_stays_whole_between_sections_far_apart():
    labels = np.zeros((11, 20, 60), np.int32)
    labels[0, 6:14, 4:12] = labels[10, 6:14, 44:52] = 1
    labels[5, 6:14, 26:28] = 2
    editor = of(labels)
    editor.apply(interpolate(editor, [1]))
    areas = (editor.labels == 1).sum(axis=(1, 2))
    np.testing.assert_array_equal(areas[[1, 2, 3, 4, 6, 7, 8, 9]], 64)
    assert areas[5] == 48, "the other object stays"
    assert is_connected(editor.labels == 1)


@pytest.mark.parametrize(
    ("spacing_z", "keeps_bump"), [(1.0, False), (9.0, True)], ids=["isotropic", "thick slices"]
)
def test_smoothing_goes_through_slices_as_far_as_they_are_near(spacing_z, keeps_bump):
    labels = np.zeros((20, 40, 40), np.int32)
    labels[5:15, 10:30, 10:30] = 1
    labels[15:17, 18:22, 18:22] = 1  # a bump that no slice shows as one
    editor = LabelEditor.of_labels(labels, (spacing_z, 1.0, 1.0))
    editor.apply(smooth(editor, [1], 3))
    assert bool(editor.labels[16, 20, 20]) is keeps_bump
    assert (editor.labels[5:15, 15:25, 15:25] == 1).all()


def test_holes_are_those_that_are_closed_in_three_dimensions():
    labels = np.zeros((9, 9, 9), np.int32)
    labels[1:8, 1:8, 1:8] = 1
    labels[4, 4, 4] = 0
    labels[1:4, 2, 2] = 0  # a channel to the outside
    editor = of(labels)
    edit = fill_holes(editor, [1])
    assert [int(axis[0]) for axis in edit.indices] == [4, 4, 4]
    assert len(edit.new_values) == 1
