"""Surfaces as STL and PLY: closed, in world mm, on the side where the object lies."""

from __future__ import annotations

import numpy as np
import pytest

from cases.placed_volumes import rotation
from napari_coseg.core.errors import OutputError, SettingsError
from napari_coseg.core.geometry import Geometry
from napari_coseg.formats.registry import export
from napari_coseg.labels.measure import labelled

SPACING = (0.8, 0.5, 0.4)
ABOUT = {"unit": "mm", "space": "patient"}


def phantom() -> np.ndarray:
    """No side like another: a long arm along x, a shorter one along y, the shortest along z."""
    labels = np.zeros((12, 16, 24), np.int32)
    labels[2:5, 3:6, 4:20] = labels[2:5, 3:13, 4:7] = labels[2:9, 3:6, 4:7] = 7
    labels[9:11, 12:15, 20:23] = 70_000
    return labels


PLACES = {
    "upright": np.diag(SPACING),
    "from right to left reversed": np.diag(SPACING) @ np.diag([1, 1, -1.0]),
    "head first": np.diag(SPACING) @ np.diag([-1.0, 1, 1]),
    "front to back reversed": np.diag(SPACING) @ np.diag([1, -1.0, 1]),
    "tilted": rotation((10, 25, -40)) @ np.diag(SPACING),
    "axes swapped": np.diag(SPACING)[[2, 0, 1]],
}


def read_stl(path) -> np.ndarray:
    """Triangles (n, 3, 3), by the 50 bytes of each."""
    content = path.read_bytes()
    count = int.from_bytes(content[80:84], "little")
    assert len(content) == 84 + 50 * count
    body = np.frombuffer(content[84:], np.uint8).reshape(count, 50)[:, :48]
    return np.ascontiguousarray(body).view("<f4").reshape(count, 4, 3)


def read_ply(path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles (n, 3, 3) and the object of each."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    counts = [int(line.split()[2]) for line in head.decode().splitlines() if "element" in line]
    points = np.frombuffer(body[: 12 * counts[0]], "<f4").reshape(-1, 3)
    faces = np.frombuffer(body[12 * counts[0] :], np.uint8).reshape(counts[1], 17)
    assert (faces[:, 0] == 3).all()
    numbers = np.ascontiguousarray(faces[:, 1:]).view("<i4")
    return points[numbers[:, :3]], numbers[:, 3]


def solid(triangles: np.ndarray) -> tuple[float, np.ndarray]:
    """Volume within, above 0 where triangles face outwards, and centre of mass."""
    a, b, c = np.moveaxis(triangles.astype(float), 1, 0)
    parts = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    return parts.sum(), ((a + b + c) / 4 * parts[:, None]).sum(axis=0) / parts.sum()


@pytest.mark.parametrize("linear", PLACES.values(), ids=PLACES)
def test_a_surface_encloses_its_object_where_it_lies_in_the_patient(tmp_path, linear):
    labels = phantom()
    geometry = Geometry.from_parts(linear, (5.0, -20.0, 30.0), **ABOUT)
    prediction = labelled(labels, geometry=geometry)
    stl, ply = export(prediction, None, tmp_path, ["stl", "ply"], name="jaw")
    triangles, owners = read_ply(ply)
    assert sorted(set(owners.tolist())) == [7, 70_000]
    found = read_stl(stl)
    np.testing.assert_array_equal(found[:, 1:], triangles)
    for object_id in (7, 70_000):
        index = np.argwhere(labels == object_id)
        world = (index @ np.asarray(linear).T + (5.0, -20.0, 30.0))[:, ::-1]  # x, y, z in mm
        volume, centre = solid(triangles[owners == object_id])
        # Marching cubes bevels edges, so that the solid is smaller than its voxels.
        assert 0.7 < volume / (len(index) * abs(np.linalg.det(linear))) < 1
        assert np.abs(centre - world.mean(axis=0)).max() < 0.3
        reach = np.abs(linear).sum(axis=1)[::-1] / 2
        corners = triangles[owners == object_id].reshape(-1, 3)
        assert (np.abs(corners.min(axis=0) - world.min(axis=0)) <= reach + 1e-4).all()
        assert (np.abs(corners.max(axis=0) - world.max(axis=0)) <= reach + 1e-4).all()
    across = np.cross(found[:, 2] - found[:, 1], found[:, 3] - found[:, 1])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 0], across, atol=1e-3)
    assert b"SPACE=LPS" in stl.read_bytes()[:80]


@pytest.mark.parametrize("linear", PLACES.values(), ids=PLACES)
def test_a_surface_is_closed(tmp_path, linear):
    """Every edge belongs to two triangles that run along it in opposite directions."""
    geometry = Geometry.from_parts(linear, (0.0, 0.0, 0.0), **ABOUT)
    (path,) = export(labelled(phantom(), geometry=geometry), None, tmp_path, ["stl"], name="jaw")
    corners = read_stl(path)[:, 1:]
    _, number = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    faces = number.reshape(-1, 3)
    edges = [tuple(edge) for shift in range(3) for edge in np.roll(faces, shift, 1)[:, :2].tolist()]
    assert len(set(edges)) == len(edges)
    assert set(edges) == {edge[::-1] for edge in edges}


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        pytest.param(np.ones((4, 5), int), SettingsError, "are of volumes", id="a plane"),
        pytest.param(np.zeros((3, 4, 5), int), OutputError, "no object", id="nothing"),
    ],
)
def test_what_has_no_surface_is_refused_before_anything_is_written(
    tmp_path, labels, error, message
):
    found = labelled(labels, pixel_size_um=(1.0,) * labels.ndim)
    with pytest.raises(error, match=message):
        export(found, None, tmp_path / "out", ["stl"], name="a")
    assert not list(tmp_path.glob("out/*"))
