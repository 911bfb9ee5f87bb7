"""Distances of outlines: hand-computed, against brute force and against other libraries."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from napari_coseg.core.errors import ImageError
from napari_coseg.labels.metrics.surface import (
    HausdorffDistance,
    boundary,
    hausdorff,
    hausdorff_by_class,
    hausdorff_distance,
    spacing_at_1024,
    surface_distances,
)

NAN, INF = float("nan"), float("inf")


def row(text: str) -> np.ndarray:
    """``"11.2"`` is the image [[1, 1, 0, 2]]."""
    return np.array([[0 if c == "." else int(c) for c in text]])


# truth, prediction, spacing, Hausdorff distance. In one row every pixel is boundary.
ROWS = {
    "same": ("11..", "11..", None, 0),
    "one pixel longer": ("11..", "111.", None, 1),
    "a stray pixel far off": ("11.....", "11....1", None, 5),
    "from truth to prediction": ("1.....1", "1......", None, 6),
    "in micrometres": ("1....1", "1.....", 0.25, 1.25),
    "spacing an axis": ("1....1", "1.....", (7, 0.5), 2.5),
    "any id is inside": ("12..", "99..", None, 0),
    "nothing predicted": ("11..", "....", None, INF),
    "nothing there": ("....", "11..", None, INF),
    "both empty": ("....", "....", None, NAN),
}


@pytest.mark.parametrize("truth, prediction, spacing, expected", ROWS.values(), ids=ROWS)
def test_distance(truth: str, prediction: str, spacing, expected: float) -> None:
    there = hausdorff_distance(row(truth), row(prediction), spacing)
    back = hausdorff_distance(row(prediction), row(truth), spacing)
    assert (there, back) == pytest.approx((expected, expected), nan_ok=True)


@pytest.mark.parametrize("shape", [(512, 256), (128, 1024), (1024, 1024)], ids=str)
def test_distance_at_1024_is_that_of_masks_enlarged_to_it(shape: tuple[int, int]) -> None:
    y, x = np.ogrid[: shape[0], : shape[1]]
    truth = (y > shape[0] * 0.2) & (y < shape[0] * 0.5) & (x < shape[1] * 0.6)
    prediction = (y > shape[0] * 0.3) & (x > shape[1] * 0.1) & (x < shape[1] * 0.9)
    enlarged = [np.kron(mask, np.ones([1024 // n for n in shape])) for mask in (truth, prediction)]
    steps = spacing_at_1024(shape)
    # An outline runs through the middle of its pixels: it may stand half a pixel off, twice.
    found = hausdorff_distance(truth, prediction, steps)
    assert found == pytest.approx(hausdorff_distance(*enlarged), abs=np.hypot(*steps))


def test_empty_masks_have_no_percentile_either() -> None:
    nothing, something = row("..."), row(".1.")
    assert hausdorff(nothing, something) == HausdorffDistance(INF, INF)
    assert isnan(hausdorff(nothing, nothing).percentile_95)


def test_percentile_is_the_larger_of_both_directions() -> None:
    truth = np.ones((1, 101))
    prediction = truth.copy()
    prediction[0, 81:] = 0  # 20 of 101 pixels of the truth are 1 to 20 away; none the other way
    assert hausdorff(truth, prediction) == HausdorffDistance(20, pytest.approx(15))
    assert hausdorff_distance(truth, prediction, percentile=80) == pytest.approx(0)
    with pytest.raises(ValueError, match="0 to 100"):
        hausdorff_distance(truth, prediction, percentile=101)


def test_boundary_is_what_touches_the_outside_or_the_end_of_the_image() -> None:
    mask = np.zeros((6, 6), int)
    mask[1:5, 2:] = 3
    drawn = ["......", "..####", "..#..#", "..#..#", "..####", "......"]
    assert ["".join(".#"[int(x)] for x in line) for line in boundary(mask)] == drawn


def test_outlines_are_compared_and_not_whole_masks() -> None:
    outer = np.ones((11, 11))
    inner = np.zeros((11, 11))
    inner[5, 5] = 1
    there, back = surface_distances(outer, inner)
    assert len(there) == 40 and there.max() == pytest.approx(np.hypot(5, 5))
    assert back.tolist() == [5.0]  # and not 0, though the pixel lies inside


def test_slices_count_as_far_apart_as_they_are() -> None:
    truth, prediction = np.zeros((5, 8, 8)), np.zeros((5, 8, 8))
    truth[1:3, 2:6, 2:6] = 1
    prediction[1:4, 2:6, 2:5] = 1
    assert hausdorff_distance(truth, prediction, (3, 0.5, 0.5)) == pytest.approx(3)
    assert hausdorff_distance(truth, prediction, (0.1, 0.5, 0.5)) == pytest.approx(0.5)


def blobs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """A random mask of a few smooth blobs."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return (smooth > np.quantile(smooth, 0.7)).astype(np.uint8)


def brute_force(truth: np.ndarray, prediction: np.ndarray, spacing, percentile: float) -> float:
    """All distances between pixels of which one neighbour across a side is outside."""
    points = []
    for mask in (truth, prediction):
        padded = np.pad(mask, 1)
        inner = [np.roll(padded, step, axis) for axis in range(mask.ndim) for step in (-1, 1)]
        points.append(np.argwhere(padded & ~np.all(inner, axis=0)) * np.asarray(spacing))
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    return max(np.percentile(between.min(axis=k), percentile) for k in (0, 1))


CASES = {
    "2D": ((24, 31), (1.0, 1.0)),
    "2D spaced": ((24, 31), (0.5, 2.0)),
    "3D": ((7, 12, 9), (3.0, 1.0, 2.0)),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape, spacing", CASES.values(), ids=CASES)
def test_equals_brute_force(shape, spacing, seed: int) -> None:
    truth, prediction = blobs(seed, shape), blobs(seed + 50, shape)
    found = hausdorff(truth, prediction, spacing)
    assert found.largest == pytest.approx(brute_force(truth, prediction, spacing, 100))
    assert found.percentile_95 == pytest.approx(brute_force(truth, prediction, spacing, 95))
    assert found.percentile_95 <= found.largest


@pytest.mark.parametrize("shape", [(60, 80), (12, 20, 16)], ids=["2D", "3D"])
def test_equals_scikit_image_on_boundaries(shape) -> None:
    from skimage.metrics import hausdorff_distance as theirs

    truth, prediction = blobs(0, shape), blobs(1, shape)
    expected = theirs(boundary(truth), boundary(prediction))
    assert hausdorff_distance(truth, prediction) == pytest.approx(expected)


@pytest.mark.parametrize("percentile", [None, 95], ids=["HD", "HD95"])
@pytest.mark.parametrize("shape, spacing", CASES.values(), ids=CASES)
def test_equals_monai(shape, spacing, percentile) -> None:
    monai = pytest.importorskip("monai.metrics", reason="monai is not installed")
    torch = pytest.importorskip("torch")
    truth, prediction = blobs(2, shape), blobs(3, shape)
    expected = monai.compute_hausdorff_distance(
        torch.tensor(prediction)[None, None],
        torch.tensor(truth)[None, None],
        include_background=True,
        percentile=percentile,
        spacing=list(spacing),
    )
    found = hausdorff_distance(truth, prediction, spacing, percentile or 100)
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert found > 0


def test_by_class() -> None:
    found = hausdorff_by_class(row("1122..."), row("1.22..2"), (1, 2, 3), spacing=2)
    assert found[1] == HausdorffDistance(2, pytest.approx(1.9))
    assert found[2].largest == 6
    assert isnan(found[3].largest)


REFUSED = {
    "other shape": (row("111"), None, "one pixel grid"),
    "too many spacings": (row("11"), (1, 1, 1), "each of the 2 axes"),
    "spacing of 0": (row("11"), (1, 0), "positive"),
    "spacing not known": (row("11"), NAN, "positive"),
}


@pytest.mark.parametrize("prediction, spacing, message", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(prediction: np.ndarray, spacing, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        hausdorff(row("11"), prediction, spacing)
