"""Label images to horizontal and vertical maps."""

from __future__ import annotations

import numpy as np
import pytest

from cases.synthetic import nuclei
from napari_coseg.core.errors import ImageError
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps


def brute_force(labels: np.ndarray) -> np.ndarray:
    maps = np.zeros((2, *labels.shape))
    for i in np.unique(labels[labels > 0]):
        for channel, position in zip(maps, np.nonzero(labels == i)[::-1], strict=True):
            offset = position - position.mean()
            if position.min() != position.max():
                offset[offset < 0] /= -offset.min()
                offset[offset > 0] /= offset.max()
                channel[labels == i] = offset
    return maps


HAND_COMPUTED = {
    "three pixels in a row": ([[0, 5, 5, 5, 0]], [[0, -1, 0, 1, 0]], [[0, 0, 0, 0, 0]]),
    "three pixels in a column": ([[7], [7], [7]], [[0], [0], [0]], [[-1], [0], [1]]),
    "one pixel": ([[0, 1]], [[0, 0]], [[0, 0]]),
    "two neighbours": ([[1, 1, 2, 2]], [[-1, 1, -1, 1]], [[0, 0, 0, 0]]),
    # centre of mass at x = 0.75: the left side reaches 0.75, the right side 1.25
    "each side on its own": (
        [[3, 3, 3], [3, 0, 0]],
        [[-1, 0.2, 1], [-1, 0, 0]],
        [[-1, -1, -1], [1, 0, 0]],
    ),
    "two pieces of one id": ([[4, 0, 4]], [[-1, 0, 1]], [[0, 0, 0]]),
    "no object": ([[0, 0]], [[0, 0]], [[0, 0]]),
}


@pytest.mark.parametrize("labels, horizontal, vertical", HAND_COMPUTED.values(), ids=HAND_COMPUTED)
def test_hand_computed(labels: list, horizontal: list, vertical: list) -> None:
    maps = horizontal_vertical_maps(np.array(labels))
    np.testing.assert_allclose(maps, [horizontal, vertical], atol=1e-7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_equals_brute_force_on_noise(dtype: type) -> None:
    labels = np.random.default_rng(1).integers(0, 9, (23, 31)).astype(dtype)
    np.testing.assert_allclose(horizontal_vertical_maps(labels), brute_force(labels), atol=1e-6)


def test_every_nucleus_reaches_both_ends_exactly() -> None:
    labels = nuclei(256, 60)
    maps = horizontal_vertical_maps(labels)
    assert maps.dtype == np.float32 and maps.shape == (2, 256, 256)
    for i in range(1, labels.max() + 1):
        inside = maps[:, labels == i]
        assert inside.min(axis=1).tolist() == [-1, -1]
        assert inside.max(axis=1).tolist() == [1, 1]
    assert not maps[:, labels == 0].any()


def test_ids_do_not_matter() -> None:
    labels = nuclei(128, 16)
    ids = np.random.default_rng(0).choice(2**31 - 1, labels.max() + 1, replace=False)
    ids[0] = 0
    ids[1] = 2**31 - 1
    large = ids[labels].astype(np.int32)
    np.testing.assert_array_equal(horizontal_vertical_maps(large), horizontal_vertical_maps(labels))


def test_far_from_the_origin_a_column_is_zero_without_a_warning() -> None:
    labels = np.zeros((9, 5003), dtype=np.int32)
    labels[2:9, 5001] = 1
    with np.errstate(all="raise"):
        maps = horizontal_vertical_maps(labels)
    assert not maps[0].any()
    assert maps[1, [2, 8], 5001].tolist() == [-1, 1]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1)], ids=str)
def test_empty_images_are_allowed(shape: tuple[int, int]) -> None:
    assert horizontal_vertical_maps(np.zeros(shape, dtype=np.int32)).shape == (2, *shape)


def test_a_view_is_read_as_it_lies() -> None:
    labels = nuclei(64, 9)
    np.testing.assert_array_equal(
        horizontal_vertical_maps(labels.T)[::-1],
        np.swapaxes(horizontal_vertical_maps(labels), 1, 2),
    )


@pytest.mark.parametrize(
    "labels, says",
    [
        (np.zeros((2, 2, 2), dtype=int), r"\(2, 2, 2\)"),
        (np.zeros((2, 2)), "float64"),
        (np.array([[-1, 0]]), "id -1"),
    ],
    ids=["three axes", "not integers", "negative id"],
)
def test_refused(labels: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        horizontal_vertical_maps(labels)
