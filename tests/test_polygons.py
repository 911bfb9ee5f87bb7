"""Which pixels lie inside an outline, against scikit-image's and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_coseg.errors import ImageError
from napari_coseg.polygons import inside


def ring(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([*corners, corners[0]], float)


def square(low: float, high: float) -> np.ndarray:
    return ring((low, low), (high, low), (high, high), (low, high))


@pytest.mark.parametrize(
    ("rings", "count"),
    [
        ([square(1, 4)], 9),
        ([square(1, 7), square(2, 5)], 36 - 9),
        ([square(0, 3), square(3, 6)], 18),
        ([square(-5, 3)], 9),
        ([square(-9, -5)], 0),
        ([square(1.4, 1.6)], 1),
        ([square(1.6, 2.4)], 0),
        ([ring((0, 0), (8, 8))], 0),
        ([square(1, 4)] * 3, 9),
    ],
    ids=[
        "a square",
        "with a hole",
        "two that touch",
        "partly beyond",
        "beyond",
        "around one centre",
        "between centres",
        "a line",
        "three times over",
    ],
)
def test_pixels_whose_centres_lie_inside(rings: list[np.ndarray], count: int) -> None:
    assert inside(rings, (8, 8)).sum() == count


@pytest.mark.parametrize("seed", range(6))
def test_as_scikit_image_draws_it(seed: int) -> None:
    from skimage.draw import polygon2mask

    corners = np.random.default_rng(seed).uniform(-4, 44, (3 + 4 * seed, 2))
    expected = polygon2mask((40, 36), corners[:, ::-1] - 0.5)
    np.testing.assert_array_equal(inside([ring(*corners)], (40, 36)), expected)


def test_more_turns_than_a_byte_counts_stay_odd() -> None:
    assert inside([square(0, 4)] * 257, (4, 4)).all()
    assert not inside([square(0, 4)] * 256, (4, 4)).any()


def test_an_outline_without_end_is_refused() -> None:
    with pytest.raises(ImageError, match="crosses more than 15 rows"):
        inside([square(0, 8)], (8, 8), max_crossings=15)
