"""Datasets read the same values as prediction, find every file, and tell what cannot be meant."""

from __future__ import annotations

import json

import numpy as np
import PIL.Image
import pytest
import tifffile

from napari_coseg.core.errors import CosegError, DatasetError
from napari_coseg.datasets.files import image_named, images_in, read_labels, read_rgb
from napari_coseg.datasets.folder import Folder
from napari_coseg.datasets.nnunet_json import read_description
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.images.readers.registry import read_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (20, 30, 3), np.uint8)
GREY = RGB[..., 0]
CLEAR = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
CLEAR[:, 10:] = 0
MASK = GREY > 99
TURNED = {"extratags": [(274, "H", 1, 3, True)]}
WHITE = {"photometric": "miniswhite"}


def tiff(array: np.ndarray, **how):
    return lambda path: tifffile.imwrite(path, array, **how)


FIRST = {"ome": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}}
IMAGES = [
    pytest.param("a.ome.tif", tiff(RGB.transpose(2, 0, 1), **FIRST), RGB, id="channels first"),
    pytest.param("a.tif", tiff(RGB, photometric="rgb", **TURNED), RGB, id="orientation"),
    pytest.param("a.tif", tiff(GREY, **WHITE), 255 - GREY, id="white is zero"),
    pytest.param(
        "a.tif", tiff(GREY.astype(np.uint16) * 257, **WHITE), 255 - GREY, id="16 bits, white is 0"
    ),
    pytest.param("a.tif", tiff(GREY.astype(np.uint16) * 257), GREY, id="16 bits"),
    pytest.param(
        "a.png",
        lambda path: PIL.Image.fromarray(CLEAR).save(path),
        np.where(CLEAR[..., 3:] > 0, RGB, 255),
        id="transparent is white",
    ),
    pytest.param("a.png", lambda path: PIL.Image.fromarray(GREY).save(path), GREY, id="grey"),
    pytest.param("a.bmp", lambda path: PIL.Image.fromarray(RGB).save(path), RGB, id="colours"),
]


@pytest.mark.parametrize(("name", "save", "expected"), IMAGES)
def test_images_are_learnt_from_as_they_are_segmented(tmp_path, name, save, expected) -> None:
    save(tmp_path / name)
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
    learnt = read_rgb(tmp_path / name)
    assert learnt.dtype == np.uint8
    np.testing.assert_array_equal(learnt, expected)
    source = RgbSource(understand(read_image(tmp_path / name)))
    np.testing.assert_allclose(source.read(0, slice(0, 20), slice(0, 30)), learnt, atol=0.51)


REFUSED = [
    pytest.param(tiff(np.stack([GREY] * 5), photometric="minisblack"), "5 slices", id="stack"),
    pytest.param(tiff(np.stack([GREY] * 4), **FIRST), "4 channels", id="four stains"),
    pytest.param(tiff(np.stack([GREY] * 2), **FIRST), "2 channels", id="two stains"),
]


@pytest.mark.filterwarnings("ignore:.*no slice spacing")
@pytest.mark.parametrize(("save", "message"), REFUSED)
def test_what_is_no_picture_is_refused(tmp_path, save, message) -> None:
    save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match=rf"cannot read the image .*a\.tif.*{message}"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("array", "how"),
    [
        (MASK, {}),
        (MASK.astype(np.uint8), WHITE),
        (MASK.astype(np.uint16) * 300, WHITE | TURNED),
        (MASK.astype(np.int32) * 70_000, TURNED),
    ],
    ids=["boolean", "white is zero", "16 bits", "32 bits"],
)
def test_labels_are_read_as_stored(tmp_path, array, how) -> None:
    tifffile.imwrite(tmp_path / "a.tif", array, **how)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif"), array)


def folder_of(root, image="a.png", labels="a.png", values=None, **described):
    for name in ("images", "objects"):
        (root / name).mkdir(exist_ok=True)
    description = {"pixel_size_um": 0.5} | described
    (root / "dataset.json").write_text(json.dumps(description))
    PIL.Image.fromarray(RGB).save(root / "images" / image)
    values = MASK.astype(np.uint8) if values is None else values
    PIL.Image.fromarray(values).save(root / "objects" / labels)
    return root


@pytest.mark.parametrize("image", ["a.png", "a.PNG", "a.Tif", "a.TIFF"])
@pytest.mark.parametrize("labels", ["a.png", "a.PNG", "a.TIF"])
def test_files_are_found_whatever_the_case_of_their_suffix(tmp_path, image, labels) -> None:
    dataset = Folder.open(folder_of(tmp_path, image, labels))
    assert dataset.names("all") == ("a",)
    sample = dataset.load("all", "a")
    np.testing.assert_array_equal(sample.image, RGB)
    np.testing.assert_array_equal(sample.instances, MASK)
    assert dataset.check().problems == ()


@pytest.mark.parametrize("place", ["images", "objects"])
@pytest.mark.parametrize("second", ["a.tif", "a.bmp"])
def test_two_files_of_a_name_are_refused(tmp_path, place, second) -> None:
    dataset = Folder.open(folder_of(tmp_path))
    PIL.Image.fromarray(GREY).save(tmp_path / place / second)
    with pytest.raises(DatasetError, match=r"have the same name; remove or rename"):
        image_named(tmp_path / place, "a")
    with pytest.raises(DatasetError, match=r"have the same name; remove or rename"):
        images_in(tmp_path / place)
    assert any("have the same name" in problem for problem in dataset.check().problems)


@pytest.mark.parametrize(
    ("values", "reported"),
    [
        (MASK.astype(np.uint8) * 255, True),
        (MASK.astype(np.uint8), False),
        (np.where(MASK, 255, 7).astype(np.uint8), False),
    ],
    ids=["mask", "one object", "two objects"],
)
def test_a_mask_in_place_of_objects_is_told(tmp_path, values, reported) -> None:
    problems = Folder.open(folder_of(tmp_path, values=values)).check().problems
    assert any("0 and 255 alone" in problem for problem in problems) == reported


def entry(number: int, name: str) -> dict:
    return {"id": number, "name": name, "color": [1, 2, 3]}


@pytest.mark.parametrize("key", ["semantic_classes", "instance_classes"])
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([entry(1, "a"), entry(1, "b")], "the id 1 is given to two"),
        ([entry(1, "a"), entry(2, "a")], "the name a is given to two"),
    ],
)
def test_classes_given_twice_are_refused(tmp_path, key, classes, message) -> None:
    with pytest.raises(CosegError, match=message):
        Folder.open(folder_of(tmp_path, **{key: classes}))


@pytest.mark.parametrize(
    "labels",
    ['{"background": 0, "a": 1, "a": 2}', '{"a": 1, "b": 1}', '{"1": "a", "2": "a"}'],
    ids=["a name in version 2", "a number", "a name in version 1"],
)
def test_labels_given_twice_are_refused_in_nnunet(tmp_path, labels) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(f'{{"channel_names": {{"0": "CT"}}, "labels": {labels}}}')
    with pytest.raises(DatasetError, match=r"twice|one name|one number"):
        read_description(path)
