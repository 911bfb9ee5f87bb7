"""Which pixels lie inside an outline, against scikit-image's and by hand; outlines of GeoJSON."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_coseg.core.errors import CosegError, DatasetError, ImageError
from napari_coseg.labels.polygons import inside
from napari_coseg.labels.polygons.geojson import box_area, features_of, read_json, rings_of


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


@pytest.mark.parametrize("far", [1e308, -1e308, 2.0**40, float("nan")])
def test_an_outline_beyond_any_image_is_refused(far: float) -> None:
    with pytest.raises(ImageError, match="corners beyond"):
        inside([ring((0, 0), (4, far), (far, 4), (-far, -far))], (8, 8))


CORNERS = [[0, 0], [4, 0], [4, 2]]
CLOSED = [*CORNERS, [0, 0]]
HOLE = [[1, 0.5], [2, 0.5], [2, 1], [1, 0.5]]


@pytest.mark.parametrize(
    ("kind", "coordinates", "rings"),
    [
        ("Polygon", [CLOSED], [CLOSED]),
        ("Polygon", [CORNERS], [CLOSED]),
        ("Polygon", [CLOSED, HOLE], [CLOSED, HOLE]),
        ("MultiPolygon", [[CLOSED], [HOLE]], [CLOSED, HOLE]),
        ("Polygon", [[[*corner, 7] for corner in CLOSED]], [CLOSED]),
    ],
    ids=["closed", "open", "with a hole", "two pieces", "with heights"],
)
def test_rings_of_geometries(kind: str, coordinates: list, rings: list) -> None:
    found = rings_of({"type": kind, "coordinates": coordinates})
    assert [ring.tolist() for ring in found] == rings
    assert box_area(found) == 8


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "its type is 'Point'"),
        ({"type": "Polygon", "coordinates": []}, "no ring"),
        ({"type": "MultiPolygon", "coordinates": [[]]}, "no ring"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}, "2 corners"),
        ({"type": "Polygon", "coordinates": [[1, 2, 3]]}, "not a list of"),
        ({"type": "Polygon", "coordinates": [[["1", "2"]] * 4]}, "not a list of"),
        ({"type": "Polygon", "coordinates": [[[0, float("inf")]] * 4]}, "not finite"),
        ({"type": "Polygon", "coordinates": [[[0, 1e308]] * 4]}, "beyond any image"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_no_outline_is_refused(geometry: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rings_of(geometry)


@pytest.mark.parametrize("error", [DatasetError, ImageError])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read"),
        ("{", "not GeoJSON"),
        ("[NaN]", "NaN is not a JSON number"),
        ("[" * 99_999, "not GeoJSON"),
        ("[" + " " * 2**20 + "]", "has 1 MiB; at most 0 are"),
        ('{"features": 3}', "no list"),
        ("3", "no list"),
    ],
    ids=["missing", "cut", "NaN", "deep", "large", "no features", "a number"],
)
def test_files_are_refused_as_each_reader_does(
    tmp_path: Path, error: type[CosegError], text: str | None, message: str
) -> None:
    path = tmp_path / "a.geojson"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=message):
        features_of(read_json(path, 200_000, error), path, error)
