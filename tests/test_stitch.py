"""One object, one id, however it was cut."""

from __future__ import annotations

import numpy as np
import pytest

from napari_coseg.labels.tiling.blocks import cut_plane
from napari_coseg.labels.tiling.stitch import LabelCanvas, overlaps


def discs(shape, centres, radius):
    y, x = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for i, (cy, cx) in enumerate(centres, 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i
    return labels


def random_discs(shape, count, radius, seed=0):
    rng = np.random.default_rng(seed)
    return compact(discs(shape, rng.uniform((0, 0), shape, (count, 2)), radius))


def compact(labels):
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def same_partition(a, b):
    pairs = overlaps(a + 1, b + 1)
    return len(pairs.first) == len(np.unique(a)) == len(np.unique(b))


def stitched(labels, size, halo, min_area=0.0, shuffle=True):
    """Cut a label image, give each block ids of its own, put it together."""
    rng = np.random.default_rng(3)
    out = np.zeros(labels.shape, np.int32)
    canvas = LabelCanvas(cut_plane(labels.shape, (size, size), halo), out)
    for row in cut_plane(labels.shape, (size, size), halo):
        for block in row:
            own = compact(np.concatenate([[[0]], labels[block.window].reshape(1, -1)], axis=1))
            count = int(own.max())
            names = np.concatenate(
                [[0], rng.permutation(count) + 1 if shuffle else range(1, count + 1)]
            )
            window = names[own[0, 1:]].reshape(labels[block.window].shape).astype(np.int32)
            canvas.place(block, window, count)
    return out, *canvas.finish(min_area)


LABELS = [
    pytest.param(random_discs((300, 220), 120, 9), 64, 20, id="discs, some touching"),
    pytest.param(random_discs((37, 1501), 90, 6), 64, 16, id="a ribbon"),
    pytest.param(discs((260, 260), [(130, 130)], 110), 64, 12, id="one object larger than a block"),
    pytest.param(np.ones((1, 1), np.int32), 64, 8, id="one pixel"),
    pytest.param(np.zeros((150, 150), np.int32), 64, 8, id="nothing"),
    pytest.param(discs((128, 128), [(64, 64)], 10), 80, 16, id="on the corner of four blocks"),
    pytest.param(random_discs((200, 200), 60, 9), 512, 8, id="one block"),
]


@pytest.mark.parametrize(("labels", "size", "halo"), LABELS)
def test_reassembling_a_label_image_is_the_identity(labels, size, halo):
    out, _, count = stitched(labels, size, halo)
    assert count == len(np.unique(labels[labels > 0]))
    assert sorted(np.unique(out[out > 0])) == list(range(1, count + 1))
    assert same_partition(out, labels)


def test_touching_objects_on_a_seam_stay_two():
    labels = np.zeros((100, 100), np.int32)
    labels[40:60, 30:50], labels[40:60, 50:70] = 1, 2
    out, _, count = stitched(labels, 60, 10)
    assert count == 2
    assert same_partition(out, labels)


def test_small_objects_go_only_after_their_parts_were_joined():
    labels = np.zeros((100, 100), np.int32)
    labels[45:55, 45:55], labels[5:8, 5:8] = 1, 2
    out, final_ids, count = stitched(labels, 60, 15, min_area=60)
    assert count == 1
    assert (out > 0).sum() == 100
    assert set(np.unique(final_ids)) == {0, 1}


def test_more_than_65535_objects_keep_their_own_ids():
    labels = np.zeros((600, 600), np.int32)
    labels[::2, ::2] = np.arange(1, 90_001).reshape(300, 300)
    out, _, count = stitched(labels, 128, 8, shuffle=False)
    assert count == 90_000
    assert out.dtype == np.int32
    assert np.unique(out[::2, ::2]).size == 90_000


def test_the_larger_part_decides_the_class():
    grid = cut_plane((20, 40), (24, 24), 4)
    canvas = LabelCanvas(grid, np.zeros((20, 40), np.int32))
    for block, class_id in zip(grid[0], (1, 2), strict=True):
        window = np.zeros((20, 40), np.int32)
        window[5:10, 17:30] = 1
        ids, areas = canvas.place(block, window[block.window], 1)
        canvas.votes.add(ids, np.array([class_id]), np.array([0.8]), areas)
    final_ids, count = canvas.finish()
    classes, probabilities = canvas.votes.count(final_ids, count)
    assert classes.tolist() == [2]
    assert probabilities == pytest.approx([0.8 * 10 / 13])
