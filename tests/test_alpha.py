"""The fourth channel is alpha where the file says so; else channels are there to choose from."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import tifffile

from napari_coseg.core.errors import ImageError
from napari_coseg.core.types import Image
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.readers.registry import read_image
from napari_coseg.labels.measure.intensities import is_of_colours

STAINS = np.random.default_rng(0).integers(1, 255, (4, 20, 30), np.uint8)
STAINS[3] = 0
PIXELS = np.moveaxis(STAINS, 0, -1).copy()
TWO = np.stack([STAINS, STAINS])
RGB = {"photometric": "rgb"}
OME_AXES = {"ome": True, "photometric": "minisblack"}


def tiff(array: np.ndarray, **how):
    return lambda path: tifffile.imwrite(path, array, **how)


CHANNELS = [
    pytest.param("a.ome.tif", tiff(STAINS, metadata={"axes": "CYX"}, **OME_AXES), id="OME"),
    pytest.param("a.ome.tif", tiff(TWO, metadata={"axes": "ZCYX"}, **OME_AXES), id="OME stack"),
    pytest.param("a.tif", tiff(STAINS, imagej=True, metadata={"axes": "CYX"}), id="ImageJ"),
    pytest.param("a.tif", tiff(PIXELS, extrasamples=["unspecified"], **RGB), id="not said what"),
    pytest.param(
        "a.tif", tiff(PIXELS, photometric="minisblack", planarconfig="contig"), id="four greys"
    ),
    pytest.param("a.npy", lambda path: np.save(path, PIXELS), id="numpy"),
]
ALPHA = [
    pytest.param("a.tif", tiff(PIXELS, extrasamples=["unassalpha"], **RGB), id="alpha"),
    pytest.param("a.tif", tiff(PIXELS, extrasamples=["assocalpha"], **RGB), id="associated alpha"),
    pytest.param(
        "a.tif",
        tiff(STAINS, extrasamples=["unassalpha"], planarconfig="separate", **RGB),
        id="planes with alpha",
    ),
    pytest.param("a.png", lambda path: PIL.Image.fromarray(PIXELS).save(path), id="PNG"),
]


def shown(image: Image, **how) -> np.ndarray:
    return RgbSource(understand(image), **how).read(0, slice(0, 20), slice(0, 30))


@pytest.mark.filterwarnings("ignore:.*no slice spacing")
@pytest.mark.parametrize(("name", "save"), CHANNELS)
def test_four_channels_are_chosen_from(tmp_path, name, save) -> None:
    save(tmp_path / name)
    image = read_image(tmp_path / name)
    with pytest.raises(ImageError, match="has 4 channels; choose those to use"):
        shown(image)
    np.testing.assert_allclose(shown(image, channels=(0, 1, 2)), PIXELS[..., :3], atol=1)
    np.testing.assert_allclose(shown(image, channels=2)[..., 0], STAINS[2], atol=1)
    assert not is_of_colours(image)


@pytest.mark.parametrize(("name", "save"), ALPHA)
def test_what_the_file_calls_alpha_is_put_on_white(tmp_path, name, save) -> None:
    save(tmp_path / name)
    image = read_image(tmp_path / name)
    np.testing.assert_array_equal(shown(image), 255)
    np.testing.assert_allclose(shown(image, channels=(0, 1, 2)), PIXELS[..., :3], atol=1)


@pytest.mark.parametrize(
    ("array", "axes", "alpha"),
    [
        (PIXELS, None, True),
        (PIXELS, "YXC", True),
        (STAINS, "CYX", False),
        (TWO, "ZCYX", False),
        (PIXELS[..., :3], None, False),
        (STAINS[0], None, False),
    ],
)
def test_arrays_have_alpha_where_colours_lie_last(array, axes, alpha) -> None:
    assert understand(array, axes).has_alpha == alpha
