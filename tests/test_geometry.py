"""The geometry value: what it says, and what follows the pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_coseg.core.errors import ImageError
from napari_coseg.core.geometry import Geometry, ImageSource
from napari_coseg.core.types import Image, Instances, Prediction

TURN = np.deg2rad(30)
OBLIQUE = Geometry.from_parts(
    np.diag([2.0, 0.5, 0.25])
    @ np.array([[1, 0, 0], [0, np.cos(TURN), -np.sin(TURN)], [0, np.sin(TURN), np.cos(TURN)]]),
    [-30.0, 20.0, 10.0],
    unit="mm",
    space="patient",
    source=ImageSource(
        "ct.nii.gz", "bone", (-100.0, 300.0), ("the unit",), (2, 0, 1), (True, False, False)
    ),
)
PLANE = Geometry.from_spacing((0.5, 0.25), (100.0, -3.0), source=ImageSource("a.tif"))
BOTH = [pytest.param(OBLIQUE, id="oblique"), pytest.param(PLANE, id="plane")]


def test_from_a_spacing_it_is_plain() -> None:
    found = Geometry.from_spacing((2.0, 0.45, 0.3))
    assert (found.axes, found.unit, found.is_plain, found.is_known) == ("ZYX", "um", True, True)
    assert found.pixel_size_um == (2.0, 0.45, 0.3)
    np.testing.assert_allclose(found.world((1, 2, 3)), (2, 0.9, 0.9))


def test_millimetres_stay_and_pixel_sizes_are_in_micrometres() -> None:
    assert OBLIQUE.unit == "mm"
    found = Geometry.from_spacing((0.3, 0.3), unit="mm")
    assert (found.spacing, found.pixel_size_um) == ((0.3, 0.3), (300.0, 300.0))


def test_what_is_not_known_is_said() -> None:
    unknown = Geometry.unknown(2)
    assert (unknown.is_known, unknown.pixel_size_um, unknown.unit) == (False, None, "px")
    with pytest.raises(ImageError, match="not known"):
        _ = unknown.known_size_um
    sized = unknown.crop((10, 20)).with_pixel_size((0.5, 0.25), assumed="the size")
    np.testing.assert_allclose(sized.origin, (5, 5))
    assert (sized.unit, sized.source.assumed) == ("um", ("the size",))


@pytest.mark.parametrize("geometry", BOTH)
def test_indices_and_positions_are_inverse(geometry: Geometry) -> None:
    index = np.random.default_rng(0).normal(size=(5, geometry.ndim))
    np.testing.assert_allclose(geometry.index(geometry.world(index)), index)


@pytest.mark.parametrize("geometry", BOTH)
def test_every_pixel_stays_where_it_is(geometry: Geometry) -> None:
    """Of an array of positions itself, cropped, reversed, permuted and resampled."""
    shape = (3, 4, 6)[-geometry.ndim :]
    places = geometry.world(np.moveaxis(np.indices(shape), 0, -1))

    def check(found: Geometry, expected: np.ndarray) -> None:
        indices = np.moveaxis(np.indices(expected.shape[:-1]), 0, -1)
        np.testing.assert_allclose(found.world(indices), expected)

    check(geometry.crop((1,) * geometry.ndim), places[(slice(1, None),) * geometry.ndim])
    check(geometry.flipped([0], shape), places[::-1])
    order = [*range(1, geometry.ndim), 0]
    check(geometry.permuted(order), places.transpose(*order, geometry.ndim))
    stored, as_stored = geometry.as_stored(np.arange(np.prod(shape)).reshape(shape))
    check(as_stored, places.reshape(-1, geometry.ndim)[stored.ravel()].reshape(*stored.shape, -1))
    halves = places[..., ::2, :] + places[..., 1::2, :]
    check(geometry.resampled([*[1.0] * (geometry.ndim - 1), 2.0]), halves / 2)


def test_the_stored_order_is_undone() -> None:
    stored = np.zeros((3, 4, 5))
    geometry = Geometry.from_spacing((3.0, 2.0, 1.0))
    upright = geometry.permuted((1, 2, 0)).flipped([2], (4, 5, 3))
    array = stored.transpose(1, 2, 0)[..., ::-1]
    back, found = upright.as_stored(array)
    assert back.shape == stored.shape
    assert found == geometry


def test_conventions_of_other_programs() -> None:
    affine = np.diag([-0.5, 0.75, 2.0, 1.0])
    affine[:3, 3] = 10, 20, 30  # to the right, front, head
    found = Geometry.from_ras(affine)
    assert (found.unit, found.space) == ("mm", "patient")
    np.testing.assert_allclose(found.spacing, (2.0, 0.75, 0.5))
    np.testing.assert_allclose(found.world((0, 0, 0)), (30, -20, -10))  # head, back, left
    np.testing.assert_allclose(found.world((0, 0, 1)) - found.origin, (0, 0, 0.5))
    np.testing.assert_allclose(found.ras_affine, affine)


def test_along_its_own_axes_a_crop_lies_where_it_should() -> None:
    moved = OBLIQUE.crop((1, 2, 3)).origin_along_axes - OBLIQUE.origin_along_axes
    np.testing.assert_allclose(moved, np.multiply((1, 2, 3), OBLIQUE.spacing))
    np.testing.assert_allclose(PLANE.origin_along_axes, PLANE.origin)


def test_another_pixel_size_leaves_the_first_pixel() -> None:
    found = OBLIQUE.with_pixel_size((1000, 200, 200))
    assert found.unit == "mm"
    assert found.pixel_size_um == pytest.approx((1000, 200, 200))
    np.testing.assert_allclose(found.origin, OBLIQUE.origin)
    np.testing.assert_allclose(found.directions, OBLIQUE.directions)


def test_a_plane_becomes_a_stack_of_one_slice() -> None:
    found = PLANE.expanded(1000.0)
    assert (found.axes, found.spacing) == ("ZYX", (1000.0, 0.5, 0.25))
    np.testing.assert_allclose(found.origin, (0, *PLANE.origin))


@pytest.mark.parametrize("geometry", [*BOTH, pytest.param(Geometry.unknown(3), id="unknown")])
def test_it_survives_json(geometry: Geometry) -> None:
    text = json.dumps(geometry.as_json(), allow_nan=False)
    assert Geometry.from_json(json.loads(text)) == geometry


@pytest.mark.parametrize(
    "changes",
    [
        {"affine": [[1, 0], [0, 1]]},
        {"affine": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]},
        {"affine": [[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]]},
        {"affine": [[1, 0, 0], [0, 1, 0], [0, 1, 1]]},
        {"affine": [[1, 0, 0], [0, 1], [0, 0, 1]]},
        {"affine": "far away"},
        {"unit": "parsec"},
        {"space": None},
        {"source": [1]},
        {"source": {"axes": [0, 0]}},
        {"source": {"window": [1]}},
    ],
    ids=str,
)
def test_json_that_cannot_be_is_refused(changes: dict) -> None:
    with pytest.raises(ImageError):
        Geometry.from_json(PLANE.as_json() | changes)


# ---------------------------------------------------------------------------------------------
# Images and predictions carry it


def test_an_image_has_a_geometry_in_any_case() -> None:
    pixels = np.zeros((4, 6))
    assert Image(pixels, "YX").geometry == Geometry.unknown(2)
    assert Image(pixels, "YX", (0.5, 0.25)).geometry == Geometry.from_spacing((0.5, 0.25))
    assert Image(pixels, "YX", geometry=PLANE).pixel_size_um == (0.5, 0.25)
    typed = Image(pixels, "YX", (2.0, 1.0), geometry=PLANE).geometry
    assert typed.pixel_size_um == (2.0, 1.0)
    np.testing.assert_allclose(typed.origin, PLANE.origin)


@pytest.mark.parametrize("given", [{"pixel_size_um": (1.0, 1.0, 1.0)}, {"geometry": OBLIQUE}, {}])
def test_labels_need_a_size_of_their_axes(given: dict) -> None:
    labels = np.zeros((4, 6), np.int32)
    with pytest.raises(ImageError):
        Prediction(labels.astype(np.uint8), (), Instances(labels, None), **given)
