"""Blocks share a plane out; resampled windows fit together; maps roll by."""

from __future__ import annotations

import numpy as np
import pytest

from napari_coseg.core.errors import SettingsError
from napari_coseg.labels.tiling.blocks import (
    RollingMaps,
    blend_row,
    blend_weights,
    cut_axis,
    cut_plane,
    pad_to,
)
from napari_coseg.labels.tiling.resample import resample_maps, source_range

CUTS = [
    # length, size, halo, number of windows
    pytest.param(1, 512, 64, 1, id="one pixel"),
    pytest.param(512, 512, 64, 1, id="exactly one tile"),
    pytest.param(513, 512, 64, 2, id="one pixel more"),
    pytest.param(1000, 512, 64, 3, id="a CoNSeP image"),
    pytest.param(1501, 64, 8, 31, id="many"),
    pytest.param(100, 17, 8, 84, id="a core of about one pixel"),
    pytest.param(100, 32, 0, 4, id="no halo"),
]


@pytest.mark.parametrize(("length", "size", "halo", "count"), CUTS)
def test_cores_share_the_axis_out_and_keep_their_halo(length, size, halo, count):
    spans = cut_axis(length, size, halo)
    assert len(spans) == count
    assert [s.core_start for s in spans] == [0, *(s.core_stop for s in spans[:-1])]
    assert spans[-1].core_stop == length
    for span in spans:
        assert span.stop - span.start == min(size, length)
        assert span.start == 0 or span.core_start - span.start >= halo
        assert span.stop == length or span.stop - span.core_stop >= halo
        assert span.core_start < span.core_stop


def test_a_tile_that_is_all_halo_is_refused():
    with pytest.raises(SettingsError, match="leaves nothing between two halos of 64"):
        cut_axis(1000, 128, 64)


@pytest.mark.parametrize(("length", "size", "halo", "count"), CUTS)
def test_blending_weights_sum_to_one_and_forget_the_outer_half_of_the_halo(
    length, size, halo, count
):
    spans = cut_axis(length, size, halo)
    total = np.zeros(length)
    for span, weights in zip(spans, blend_weights(spans, halo), strict=True):
        total[span.window] += weights
        assert span.start == 0 or not weights[: halo // 2].any()
        assert span.stop == length or not weights[weights.size - halo // 2 :].any()
    np.testing.assert_allclose(total, 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (37, 1501), (300, 200)])
def test_windows_blended_together_are_the_plane(shape):
    plane = np.random.default_rng(0).random((2, *shape)).astype(np.float16)
    grid = cut_plane(shape, (64, 64), 8)
    along_x = blend_weights([block.x for block in grid[0]], 8)
    along_y = blend_weights([row[0].y for row in grid], 8)
    whole = np.zeros((2, *shape), np.float32)
    for row, weight in zip(grid, along_y, strict=True):
        band = blend_row(row, [plane[(slice(None), *b.window)] for b in row], along_x)
        whole[:, row[0].y.window] += band * weight[:, None]
    np.testing.assert_array_equal(whole.astype(np.float16), plane)


def test_rows_that_passed_are_let_go_and_the_rest_stays_readable():
    rows = RollingMaps()
    for value in range(5):
        rows.append(np.full((1, 10, 4), value))
    rows.drop_before(25)
    assert len(rows._bands) == 3
    assert rows.read(slice(25, 41), slice(1, 3))[0, :, 0].tolist() == [2] * 5 + [3] * 10 + [4]


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (64, 3)])
def test_padding_mirrors_and_keeps_the_image_where_it_was(shape):
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    padded = pad_to(image, (64, 64))
    assert padded.shape == (64, 64)
    np.testing.assert_array_equal(padded[: shape[0], : shape[1]], image)
    assert set(np.unique(padded)) == set(np.unique(image))


GRIDS = [
    pytest.param((40, 60), (40, 60), id="the same"),
    pytest.param((40, 60), (80, 120), id="twice as fine"),
    pytest.param((40, 60), (13, 21), id="about a third"),
    pytest.param((40, 60), (2, 3), id="a twentieth"),
    pytest.param((1, 1), (7, 5), id="from one pixel"),
    pytest.param((37, 150), (1, 1), id="to one pixel"),
]


@pytest.mark.parametrize(("shape_in", "shape_out"), GRIDS)
def test_resampled_windows_equal_the_resampled_whole(shape_in, shape_out):
    maps = np.random.default_rng(1).random((2, *shape_in), dtype=np.float32)
    whole = resample_maps(maps, shape_in, shape_out, (0, shape_out[0]), (0, shape_out[1]))
    assert whole.shape == (2, *shape_out)
    for row in cut_plane(shape_out, (9, 9), 1):
        for block in row:
            rows, columns = ((s.start, s.stop) for s in block.window)
            y = slice(*source_range(shape_in[0], shape_out[0], *rows))
            x = slice(*source_range(shape_in[1], shape_out[1], *columns))
            part = resample_maps(maps[:, y, x], shape_in, shape_out, rows, columns)
            np.testing.assert_array_equal(part, whole[(slice(None), *block.window)])


@pytest.mark.parametrize(("shape_in", "shape_out"), GRIDS)
def test_resampling_agrees_with_torch(shape_in, shape_out):
    functional = pytest.importorskip("torch").nn.functional
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(2).random((2, *shape_in), dtype=np.float32)
    ours = resample_maps(maps, shape_in, shape_out, (0, shape_out[0]), (0, shape_out[1]))
    theirs = functional.interpolate(
        torch.from_numpy(maps)[None], size=shape_out, mode="bilinear", antialias=True
    )[0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)
