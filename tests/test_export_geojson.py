"""GeoJSON: what QuPath expects, outlines along pixels, and the same labels read back."""

from __future__ import annotations

import json
import uuid

import numpy as np
import pandas as pd
import pytest
import shapely

from cases.export_cases import (
    DIAGONAL,
    HOLE_AT_A_CORNER,
    HOLES,
    IDS_OVER_65535,
    PLANES,
    STACK,
    TOUCHING,
    TYPES,
    drawn,
    grey,
    noise,
    prediction,
)
from napari_coseg.core.errors import ImageError
from napari_coseg.formats.geojson import HEADER, measurements
from napari_coseg.formats.outlines import paint, trace
from napari_coseg.formats.read_geojson import read_geojson
from napari_coseg.formats.registry import export


def written(folder, found, name="a", **options):
    labels = found.instances.labels
    return export(found, grey(labels, name), folder, ["geojson"], **options)[0]


def contents(folder, found, **options):
    return json.loads(written(folder, found, **options).read_text("utf-8"))


def features(content, kind):
    return [f for f in content["features"] if f["properties"]["objectType"] == kind]


@pytest.mark.parametrize("labels", [*PLANES, IDS_OVER_65535, STACK])
def test_the_same_labels_classes_and_table_are_read_back(tmp_path, labels):
    found = prediction(labels, model="m")
    back = read_geojson(written(tmp_path, found))
    np.testing.assert_array_equal(back.instances.labels, labels)
    np.testing.assert_array_equal(back.semantic, found.semantic)
    assert back.instances.labels.dtype == np.int32
    assert back.semantic.dtype == np.uint8
    assert back.semantic_classes == found.semantic_classes
    assert back.instances.classes == found.instances.classes
    assert back.pixel_size_um == found.pixel_size_um
    assert back.provenance == {"model": "m"}
    pd.testing.assert_frame_equal(back.instances.table, found.instances.table, check_dtype=False)


@pytest.mark.parametrize("labels", PLANES)
def test_polygons_are_valid_and_as_large_as_their_pixels(labels):
    pieces = trace(labels)
    for label in np.unique(labels[labels > 0]):
        mine = [piece for piece in pieces if piece.label == label]
        polygons = [shapely.Polygon(piece.rings[0], piece.rings[1:]) for piece in mine]
        assert all(polygon.is_valid for polygon in polygons)
        assert shapely.MultiPolygon(polygons).is_valid
        assert sum(polygon.area for polygon in polygons) == np.count_nonzero(labels == label)
        rings = [shapely.LinearRing(ring) for piece in mine for ring in piece.rings]
        outer = [number == 0 for piece in mine for number in range(len(piece.rings))]
        assert [ring.is_ccw for ring in rings] == outer, "RFC 7946: shells one way, holes the other"
        assert all(len(r.coords) == len(r.simplify(0).coords) for r in rings), "corners only"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        pytest.param(drawn("1"), [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]], id="a pixel"),
        pytest.param(
            drawn("....", ".11.", "...."), [[[1, 1], [3, 1], [3, 2], [1, 2], [1, 1]]], id="two"
        ),
    ],
)
def test_outlines_run_along_the_edges_of_pixels(labels, expected):
    (piece,) = trace(labels)
    ring = piece.rings[0].tolist()
    assert {tuple(p) for p in ring} == {tuple(p) for p in expected[0]}
    assert ring[0] == ring[-1] and len(ring) == len(expected[0])


@pytest.mark.parametrize(
    ("labels", "polygons", "rings"),
    [
        pytest.param(HOLES, 1, 3, id="holes"),
        pytest.param(HOLE_AT_A_CORNER, 1, 2, id="hole at a corner"),
        pytest.param(DIAGONAL, 4, 4, id="corners only"),
    ],
)
def test_pieces_and_their_rings(labels, polygons, rings):
    pieces = [piece for piece in trace(labels) if piece.label == 1]
    assert len(pieces) == polygons
    assert sum(len(piece.rings) for piece in pieces) == rings


def test_every_feature_is_as_qupath_expects(tmp_path):
    content = contents(tmp_path, prediction(HOLES, semantic=np.ones(HOLES.shape, np.uint8)))
    assert content["type"] == "FeatureCollection"
    assert {f["type"] for f in content["features"]} == {"Feature"}
    ids = [f["id"] for f in content["features"]]
    assert all(str(uuid.UUID(text)) == text for text in ids) and len(set(ids)) == len(ids)
    (region,) = features(content, "annotation")
    assert region["properties"]["classification"] == {"name": "gland", "color": [0, 200, 0]}
    assert region["properties"]["measurements"] == {"Area µm^2": HOLES.size * 0.125}
    first, second = features(content, "detection")
    assert first["properties"] == {
        "objectType": "detection",
        "classification": {"name": "epithelial", "color": [255, 0, 0]},
        "measurements": {
            "Area µm^2": np.count_nonzero(HOLES == 1) * 0.125,
            "Class probability": 0.5,
        },
        "metadata": {"label": "1", "region": "gland"},
    }
    assert first["geometry"]["type"] == "Polygon"
    assert second["properties"]["classification"]["name"] == "naïve, µ"
    positions = np.concatenate([np.array(ring) for ring in first["geometry"]["coordinates"]])
    assert positions.dtype.kind == "i"


def test_an_object_in_pieces_is_one_feature(tmp_path):
    content = contents(tmp_path, prediction(DIAGONAL))
    kinds = [f["geometry"]["type"] for f in features(content, "detection")]
    assert kinds == ["MultiPolygon", "MultiPolygon"]


def test_untyped_objects_have_no_classification(tmp_path):
    content = contents(tmp_path, prediction(TOUCHING, classes=()))
    assert not any("classification" in f["properties"] for f in features(content, "detection"))


def test_written_again_an_object_has_the_same_id(tmp_path):
    found = prediction(TOUCHING)
    first, again = (contents(tmp_path, found, overwrite=True) for _ in range(2))
    other = contents(tmp_path, found, name="b")
    assert first == again
    ids, others = ({f["id"] for f in content["features"]} for content in (first, other))
    assert not ids & others, "another image's objects have other ids"


def test_slices_of_a_stack_are_planes_of_qupath(tmp_path):
    labels = np.stack([TOUCHING * 0, TOUCHING])
    content = contents(tmp_path, prediction(labels, semantic=(labels * 0).astype(np.uint8)))
    assert {f["geometry"]["plane"]["z"] for f in content["features"]} == {1}
    assert content["features"][0]["geometry"]["plane"] == {"c": -1, "z": 1, "t": 0}


def test_a_part_of_an_image_lies_where_it_lies_in_the_whole(tmp_path):
    path = written(tmp_path, prediction(TOUCHING, region_offset=[100, 200]))
    content = json.loads(path.read_text("utf-8"))
    corners = np.concatenate(
        [np.array(f["geometry"]["coordinates"][0]) for f in features(content, "detection")]
    )
    assert corners.min(axis=0).tolist() == [200, 100]
    np.testing.assert_array_equal(read_geojson(path).instances.labels, TOUCHING)


def as_qupath_writes_it(path):
    """QuPath keeps the features alone, with coordinates of two decimals, in an order of its own."""
    content = json.loads(path.read_text("utf-8"))
    del content[HEADER]
    content["features"].reverse()
    path.write_text(json.dumps(content), "utf-8")


def test_what_qupath_kept_gives_the_same_objects_given_shape_and_pixel_size(tmp_path):
    labels = noise((30, 40))
    found = prediction(labels)
    path = written(tmp_path, found)
    as_qupath_writes_it(path)
    back = read_geojson(path, shape=labels.shape, pixel_size_um=found.pixel_size_um)
    np.testing.assert_array_equal(back.instances.labels, labels)
    assert {entry.name for entry in back.instances.classes} == {entry.name for entry in TYPES}
    assert back.instances.table["class"].tolist() == found.instances.table["class"].tolist()


def edited(tmp_path, **changes):
    found = prediction(drawn("11", "11"), semantic=np.zeros((2, 2), np.uint8))
    content = contents(tmp_path, found)
    feature = content["features"][0]
    for key, value in changes.items():
        place = feature
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    path = tmp_path / "edited.geojson"
    return content, path


def test_copies_and_new_objects_get_ids_of_their_own(tmp_path):
    content, path = edited(tmp_path)
    content[HEADER]["shape"] = [2, 9]
    for left in (3, 6):
        copy = json.loads(json.dumps(content["features"][0]))
        ring = copy["geometry"]["coordinates"][0]
        copy["geometry"]["coordinates"] = [[[x + left, y] for x, y in ring]]
        copy["properties"].pop("metadata" if left == 6 else "name", None)
        content["features"].append(copy)
    path.write_text(json.dumps(content))
    labels = read_geojson(path).instances.labels
    assert labels[0].tolist() == [1, 1, 0, 2, 2, 0, 3, 3, 0]


def test_an_outline_within_another_is_seen_whatever_the_order(tmp_path):
    content, path = edited(tmp_path)
    content[HEADER]["shape"] = [9, 9]
    small, large = (
        {"type": "Feature", "geometry": geometry, "properties": {"objectType": "detection"}}
        for geometry in (
            {"type": "Polygon", "coordinates": [[[3, 3], [5, 3], [5, 5], [3, 5], [3, 3]]]},
            {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]},
        )
    )
    path.write_text(json.dumps(content | {"features": [small, large]}))
    labels = read_geojson(path).instances.labels
    assert labels[4, 4] == 1 and labels[0, 0] == 2
    assert np.count_nonzero(labels == 1) == 4


@pytest.mark.parametrize(
    ("ring", "expected"),
    [
        pytest.param([[0.2, 0.2], [1.8, 0.2], [1.8, 1.8], [0.2, 1.8]], 4, id="not closed"),
        pytest.param([[0, 0], [4, 0], [0, 4], [0, 0]], 6, id="slanted"),
        pytest.param([[-9, -9], [99, -9], [99, 99], [-9, 99], [-9, -9]], 16, id="beyond the image"),
        pytest.param([[50, 50], [60, 50], [60, 60], [50, 50]], 0, id="outside"),
        pytest.param([[1, 1], [1, 1], [1, 1]], 0, id="no area"),
    ],
)
def test_pixels_whose_centre_lies_inside_are_painted(ring, expected):
    labels = np.zeros((4, 4), np.int32)
    ring = np.array(ring, float)
    paint(labels, [np.concatenate([ring, ring[:1]])], 1)
    assert np.count_nonzero(labels) == pytest.approx(expected, abs=0)


def test_points_and_lines_are_left_out_and_told(tmp_path):
    content, path = edited(tmp_path)
    point = {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]}}
    content["features"].append(point)
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1 of 2 features are points or lines"):
        assert read_geojson(path).instances.labels.max() == 1


BROKEN = [
    pytest.param("{", "not GeoJSON", id="no JSON"),
    pytest.param('{"a": NaN}', "no list of GeoJSON features", id="NaN"),
    pytest.param("{}", "no list of GeoJSON features", id="no features"),
    pytest.param("[1]", "feature 0", id="no feature"),
    pytest.param('{"features": []}', "does not say a shape", id="neither shape nor outlines"),
    pytest.param('{"features": [], "napari_coseg": {}}', "says of itself", id="bad header"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_broken_files_are_refused_with_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "a.geojson"
    path.write_text(text)
    with pytest.raises(ImageError, match=message):
        read_geojson(path)


CHANGES = [
    pytest.param({"geometry__coordinates": [[[0, 0], [1, "a"], [1, 1]]]}, "ring", id="text"),
    pytest.param({"geometry__coordinates": [[[0, 0]]]}, "ring", id="short ring"),
    pytest.param({"geometry__coordinates": []}, "no ring", id="no ring"),
    pytest.param({"properties__metadata": {"label": "999999999"}}, "ids up to", id="huge id"),
    pytest.param(
        {"properties__classification": {"name": "a", "color": [0, 0, 999]}}, "colour", id="colour"
    ),
    pytest.param({"properties": 3}, "feature 0", id="properties"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_broken_features_are_named(tmp_path, changes, message):
    content, path = edited(tmp_path, **changes)
    path.write_text(json.dumps(content))
    with pytest.raises(ImageError, match=message):
        read_geojson(path)


def test_a_file_that_claims_to_be_huge_is_refused_before_memory_is_taken(tmp_path):
    content, path = edited(tmp_path)
    content[HEADER]["shape"] = [10**6, 10**6]
    path.write_text(json.dumps(content))
    with pytest.raises(ImageError, match="at most"):
        read_geojson(path)


def test_columns_become_measurements_with_units():
    row = {"id": 3, "area_um2": 1.0, "mean_hematoxylin": 0.25, "nearest_um": 4, "class": "x"}
    row |= {"centroid_y": 2.0, "class_probability": float("nan"), "volume_um3": 8.0}
    assert measurements(row) == {
        "Mean hematoxylin": 0.25,
        "Nearest µm": 4.0,
        "Volume µm^3": 8.0,
    }
