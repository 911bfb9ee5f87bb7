"""Network maps to regions and objects."""

from __future__ import annotations

import numpy as np
import pytest

from napari_coseg.decoding.semantic import decode_semantic, remove_small_regions
from napari_coseg.errors import ImageError


def picture(text: str) -> np.ndarray:
    """Rows apart by a space; ``.`` is 0."""
    rows = [[0 if c == "." else int(c) for c in line] for line in text.split()]
    return np.array(rows, dtype=np.uint8)


# probabilities of each channel at one pixel, the class it gets
PIXELS = {
    "no class": ([0.2], 0),
    "one class from a half on": ([0.5, 0.5], 1),
    "one class below a half": ([0.51, 0.49], 0),
    "likeliest": ([0.2, 0.3, 0.5], 2),
    "a tie with background is background": ([0.4, 0.4, 0.2], 0),
    "a tie goes to the lower id": ([0.2, 0.4, 0.4], 1),
}


@pytest.mark.parametrize("channels, class_id", PIXELS.values(), ids=PIXELS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)], ids=["2D", "3D"])
def test_decode_semantic(channels: list[float], class_id: int, shape: tuple[int, ...]) -> None:
    probability = np.empty((len(channels), *shape), dtype=np.float32)
    probability[:] = np.reshape(channels, (-1, *[1] * len(shape)))
    labels = decode_semantic(probability)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.full(shape, class_id))


def test_class_255_is_not_wrapped() -> None:
    probability = np.zeros((256, 1, 1), dtype=np.float32)
    probability[255] = 1
    assert decode_semantic(probability) == 255


@pytest.mark.parametrize("channels", [0, 257])
def test_channels_that_cannot_be_numbered_are_refused(channels: int) -> None:
    with pytest.raises(ImageError, match=f"{channels} channels"):
        decode_semantic(np.zeros((channels, 1, 1), dtype=np.float32))


# before, smallest area, smallest hole, after
REGIONS = {
    "a speck goes": ("1.22 ..22", 2, 0, "..22 ..22"),
    "an area of the bound stays": ("1.22 ..22", 1, 0, "1.22 ..22"),
    "corners do not join": ("1.. .1. ..1", 2, 0, "... ... ..."),
    "classes are apart": ("112 112", 3, 0, "11. 11."),
    "a hole is filled": ("111 1.1 111", 0, 2, "111 111 111"),
    "a hole of the bound stays": ("1111 1..1 1111", 0, 2, "1111 1..1 1111"),
    "a bay at the border is no hole": ("111 1.1 1.1", 0, 9, "111 1.1 1.1"),
    "a hole takes its commonest neighbour": ("1122 1..2 1222", 0, 9, "1122 1222 1222"),
    "of equal neighbours the lower id": ("112 1.2 122", 0, 9, "112 112 122"),
    "an island becomes its surroundings": ("111 121 111", 2, 2, "111 111 111"),
    "a large island stays": ("1111 1221 1111", 2, 9, "1111 1221 1111"),
    "two holes, two classes": ("11122 1.12. 11122", 0, 2, "11122 1112. 11122"),
    "background alone": ("...", 5, 5, "..."),
}


@pytest.mark.parametrize("before, min_area, min_hole, after", REGIONS.values(), ids=REGIONS)
def test_remove_small_regions(before: str, min_area: int, min_hole: int, after: str) -> None:
    labels = picture(before)
    cleaned = remove_small_regions(labels, min_area, min_hole)
    np.testing.assert_array_equal(cleaned, picture(after))
    assert cleaned.dtype == labels.dtype
    np.testing.assert_array_equal(labels, picture(before))


def test_regions_of_a_stack_join_along_z() -> None:
    stack = np.zeros((3, 3, 3), dtype=np.uint8)
    stack[:, 1, 1] = 1
    np.testing.assert_array_equal(remove_small_regions(stack, 3, 0), stack)
    assert not remove_small_regions(stack, 4, 0).any()


def test_an_image_without_pixels_stays_so() -> None:
    assert remove_small_regions(np.zeros((0, 4), dtype=np.uint8), 5, 5).shape == (0, 4)
