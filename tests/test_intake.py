"""How images of any kind are understood: axes, channels, intensities."""

from __future__ import annotations

import numpy as np
import pytest

from cases.stub_models import disc_picture
from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import RgbSource
from napari_coseg.inference import understand

RGB = disc_picture((64, 96), [(20, 20), (40, 60)])[0]
ALPHA = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
CLEAR = np.dstack([np.zeros_like(RGB), np.zeros(RGB.shape[:2], np.uint8)])

KINDS = [
    pytest.param(RGB, None, RGB, id="uint8"),
    pytest.param(RGB.astype(np.uint16), None, RGB, id="8 bits in 16"),
    pytest.param(RGB.astype(np.int64), None, RGB, id="int64 of 0..255"),
    pytest.param((RGB.astype(np.uint16) * 16 + 15), None, RGB, id="12 bits"),
    pytest.param(RGB.astype(np.uint16) * 257, None, RGB, id="16 bits"),
    pytest.param(RGB / 255.0, None, RGB, id="float of 0..1"),
    pytest.param((RGB / 255).astype(np.float16), None, RGB, id="half floats"),
    pytest.param(RGB.astype(np.float32), None, RGB, id="float of 0..255"),
    pytest.param(RGB[..., 1] > 128, None, (RGB[..., 1] > 128)[..., None] * 255, id="bool"),
    pytest.param(RGB[..., 1], None, RGB[..., 1:2], id="grey"),
    pytest.param(RGB[..., 1:2], "YXC", RGB[..., 1:2], id="one channel"),
    pytest.param(np.moveaxis(RGB, -1, 0), "CYX", RGB, id="channel first"),
    pytest.param(ALPHA, None, RGB, id="opaque alpha"),
    pytest.param(CLEAR, None, np.full_like(RGB, 255), id="transparent is white"),
    pytest.param(ALPHA.astype(np.uint16) * 257, None, RGB, id="16 bits with alpha"),
    pytest.param(ALPHA / 255, None, RGB, id="floats with alpha"),
    pytest.param(RGB[..., 1].tolist(), None, RGB[..., 1:2], id="nested lists"),
    pytest.param(np.zeros_like(RGB), None, np.zeros_like(RGB), id="black"),
    pytest.param(np.full(RGB.shape, 7.5e30), None, np.zeros_like(RGB), id="a huge constant"),
]


@pytest.mark.parametrize(("image", "axes", "expected"), KINDS)
def test_pixels_become_red_green_blue_of_0_to_255(image, axes, expected):
    source = RgbSource(understand(image, axes))
    shown = source.read(0, slice(0, 64), slice(0, 96))
    assert shown.dtype == np.float32
    np.testing.assert_allclose(shown, np.broadcast_to(expected, (64, 96, 3)), atol=1.1)


def test_signed_and_large_values_are_stretched_between_percentiles():
    values = np.linspace(-1000, 3000, 10_000).reshape(100, 100)
    for image in (values, values * 1e30, values.astype(np.int16)):
        shown = RgbSource(understand(image)).read(0, slice(0, 100), slice(0, 100))
        assert shown.min() == 0
        assert shown.max() == 255
        assert shown[50, 0, 0] == pytest.approx(127.5, abs=1)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(np.nan, [255, 255, 255]), (-np.inf, [255, 255, 255]), (np.inf, [255, 0, 0])],
    ids=["not a number counts as transparent", "minus infinity too", "infinity as opaque"],
)
def test_alpha_that_is_not_finite_leaves_colours(alpha: float, expected: list[int]) -> None:
    image = np.float32([[[1, 0, 0, 1], [1, 0, 0, alpha]]])
    shown = RgbSource(understand(image, "YXC")).read(0, slice(None), slice(None))
    np.testing.assert_array_equal(shown[0], [[255, 0, 0], expected])


@pytest.mark.parametrize("channel", range(3), ids=["red", "green", "blue"])
@pytest.mark.parametrize("side", [800, 1000], ids=["every second pixel", "every third pixel"])
def test_percentiles_are_those_of_all_colours(channel: int, side: int) -> None:
    image = np.zeros((side, side, 3), np.uint16)
    image[..., channel] = np.linspace(0, 1000, side)[:, None]
    shown = RgbSource(understand(image), stretch=True).read(0, slice(None), slice(None))
    assert shown[side // 2, 0, channel] == pytest.approx(127.5, abs=2)


def test_percentiles_are_found_between_values_that_are_not_finite() -> None:
    image = np.full((1000, 1000, 3), np.nan, np.float32)
    image[:, 1::3, 2] = np.linspace(-5, 5, 1000)[:, None]
    with pytest.warns(UserWarning, match="values are not finite"):
        shown = RgbSource(understand(image)).read(0, slice(None), slice(None))
    assert shown[500, 1, 2] == pytest.approx(127.5, abs=1)


CT = np.array([[-1500, -1000, 1000], [3000, 3500, -1000]], np.int16)


@pytest.mark.parametrize(
    ("image", "window", "expected"),
    [
        pytest.param(CT, (-1000, 3000), [[0, 0, 127.5], [255, 255, 0]], id="CT"),
        pytest.param(CT.astype(np.float32), (-1000, 1000), [[0, 0, 255], [255, 255, 0]], id="f"),
        pytest.param(np.uint8([[0, 100, 200]]), (100, 200), [[0, 0, 255]], id="8 bits"),
        pytest.param(np.float32([[np.nan, np.inf, 5]]), (0, 10), [[0, 255, 127.5]], id="holes"),
    ],
)
def test_a_window_says_what_is_black_and_white(image, window, expected) -> None:
    source = RgbSource(understand(image), window=window)
    found = source.read(0, slice(None), slice(None))
    np.testing.assert_allclose(found, np.repeat(np.array(expected)[..., None], 3, axis=-1))
    assert source.intensity.rule.startswith(f"window from {window[0]:g} to {window[1]:g}")


@pytest.mark.parametrize("window", [(3, 3), (5, 1), (0, float("nan")), (0, float("inf")), (1,)])
def test_an_empty_window_is_refused(window) -> None:
    with pytest.raises(ImageError, match="the lower end first"):
        RgbSource(understand(CT), window=window)


AXES = [
    pytest.param((20, 30), "YX", id="plane"),
    pytest.param((20, 30, 3), "YXC", id="colour"),
    pytest.param((20, 30, 4), "YXC", id="colour with alpha"),
    pytest.param((20, 30, 5), "ZYX", id="stack"),
    pytest.param((3, 20, 30), "ZYX", id="three slices, never channel first"),
    pytest.param((5, 20, 30, 3), "ZYXC", id="coloured stack"),
]


@pytest.mark.parametrize(("shape", "axes"), AXES)
def test_axes_are_guessed_by_the_written_rule(shape, axes):
    assert understand(np.zeros(shape)).axes == axes


def test_what_the_image_says_holds_unless_it_is_overridden():
    image = Image(np.zeros((4, 9, 9)), "CYX", (0.3, 0.4), name="slide 7")
    assert understand(image).pixel_size_um == (0.3, 0.4)
    assert understand(image, pixel_size_um=0.2).pixel_size_um == (0.2, 0.2)
    assert understand(image).name == "slide 7"
    assert understand(image, axes="ZYX").pixel_size_um is None, "nobody said how far slices are"
