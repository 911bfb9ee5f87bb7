"""GeoJSON as versions of QuPath write it: what can be read is read, what is not is reported."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from napari_coseg.formats.read_geojson import read_geojson

SHAPE = (100, 120)
NAN = float("nan")


def square(x: float, y: float, side: float = 10) -> dict:
    far = (x + side, y + side)
    ring = [[x, y], [far[0], y], list(far), [x, far[1]], [x, y]]
    return {"type": "Polygon", "coordinates": [ring]}


def feature(geometry, kind: str = "detection", **properties) -> dict:
    properties = ({"objectType": kind} if kind else {}) | properties
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def read(folder, features, shape=SHAPE):
    """The prediction, and what was reported."""
    path = folder / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter("always")
        found = read_geojson(path, shape=shape, pixel_size_um=(1.0,) * len(shape))
    return found, " ".join(str(one.message) for one in reported)


ONE = feature(square(40, 40))
IN_SLICE_2 = {**square(10, 10), "plane": {"c": -1, "z": 2, "t": 0}}

LEFT_OUT = [
    pytest.param([ONE, ONE], "1 of 2 detections became objects; 1 covered", id="twice"),
    pytest.param([feature(square(500, 500)), ONE], "1 outside the image", id="outside"),
    pytest.param([feature(square(-30, 5)), ONE], "1 outside the image", id="left of the image"),
    pytest.param([feature(square(10.1, 10.1, 0.2)), ONE], "1 too small", id="below a pixel"),
    pytest.param([feature(IN_SLICE_2), ONE], "1 in slices that the image", id="another slice"),
    pytest.param(
        [feature(square(500, 0)), feature(square(0, 500)), feature(IN_SLICE_2), ONE],
        "1 of 4 detections became objects; 2 outside the image, 1 in slices",
        id="several",
    ),
    pytest.param(
        [feature(square(500, 0), "annotation"), ONE],
        "0 of 1 annotations became regions; 1 outside",
        id="a region",
    ),
    pytest.param([feature(None), ONE], "1 of 2 features", id="no geometry"),
]


@pytest.mark.parametrize(("features", "message"), LEFT_OUT)
def test_features_that_leave_no_pixel_are_told(tmp_path, features, message) -> None:
    found, reported = read(tmp_path, features)
    assert found.instances.table["area_um2"].tolist() == [100]
    assert message in reported


def old(name: str, x: float) -> dict:
    return {"type": "Feature", "id": name, "geometry": square(x, 10), "properties": {}}


COLLECTION = {
    "type": "GeometryCollection",
    "geometries": [square(0, 0), {"type": "Point", "coordinates": [50, 50]}, square(20, 0)],
}
OURS = {"metadata": {"label": "7", "region": "gland"}, "classification": {"name": "epithelial"}}
READ = [
    pytest.param(
        [feature(square(0, 0, 40), "annotation", childObjects=[ONE, feature(square(5, 5))])],
        [100, 100],
        id="children among the properties",
    ),
    pytest.param(
        [feature(square(0, 0, 40), "annotation") | {"childObjects": [ONE]}], [100], id="children"
    ),
    pytest.param(
        [old(f"Path{kind}Object", 30 * n) for n, kind in enumerate(("Detection", "Cell", "Tile"))],
        [100, 100, 100],
        id="QuPath 0.2",
    ),
    pytest.param([feature(square(0, 0), "", object_type="cell")], [100], id="QuPath 0.3"),
    pytest.param([feature(square(0, 0), "CELL")], [100], id="capitals"),
    pytest.param([feature(COLLECTION)], [200], id="a collection"),
    pytest.param(
        [feature(square(0, 0), measurements={"Area": NAN, "Class probability": NAN})],
        [100],
        id="measurements without a value",
    ),
    pytest.param(
        [feature(square(0, 0), measurements=[{"name": "Area", "value": NAN}])],
        [100],
        id="measurements as a list",
    ),
    pytest.param(
        [feature(square(0, 0), "annotation", **OURS)], [100], id="an edited object of ours"
    ),
    pytest.param(
        [
            feature(square(0, 0), **OURS),
            feature(square(20, 0), "annotation", classification={"name": "epithelial"}),
            feature(square(40, 0), "annotation", classification={"name": "gland"}),
        ],
        [100, 100],
        id="an edited object that has our class alone",
    ),
]


@pytest.mark.parametrize(("features", "areas"), READ)
def test_what_versions_of_qupath_write_is_read(tmp_path, features, areas) -> None:
    found, _ = read(tmp_path, features)
    assert found.instances.table["area_um2"].tolist() == areas


@pytest.mark.parametrize(
    ("said", "name", "color"),
    [
        ("Tumor", "Tumor", (255, 0, 0)),
        ({"name": "Tumor", "color": [1, 2, 3, 128]}, "Tumor", (1, 2, 3)),
        ({"name": "Tumor", "color": [1, 2, 3]}, "Tumor", (1, 2, 3)),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", (200, 0, 0)),
        ({"name": "Tumor", "color": None}, "Tumor", (255, 0, 0)),
        ({"names": ["Tumor", "Positive"]}, "Tumor: Positive", (255, 0, 0)),
    ],
)
def test_classes_as_versions_of_qupath_write_them(tmp_path, said, name, color) -> None:
    found, reported = read(tmp_path, [feature(square(0, 0), classification=said)])
    assert [(one.name, one.color) for one in found.instances.classes] == [(name, color)]
    assert found.instances.table["class"].tolist() == [name]
    assert not reported


def test_a_single_feature_is_a_file(tmp_path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps(ONE))
    found = read_geojson(tmp_path / "a.geojson", shape=SHAPE, pixel_size_um=(1, 1))
    assert np.count_nonzero(found.instances.labels) == 100


def test_nothing_is_told_where_all_is_seen(tmp_path) -> None:
    inner = feature(square(42, 42, 3))
    assert read(tmp_path, [ONE, inner, feature(square(0, 0, 90), "annotation")])[1] == ""
