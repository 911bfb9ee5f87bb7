"""Surfaces of objects as meshes: STL for printing and planning, PLY with an id at each face."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from napari_coseg.core.errors import OutputError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.geometry import UNITS_UM, Geometry
from napari_coseg.core.types import Image, Prediction

HEADER_BYTES = 80
_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_VERTEX = np.dtype([("xyz", "<f4", 3)])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3), ("object", "<i4")])
_LEVEL = 0.5


def write_stl(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """All objects in one binary STL, in mm.

    Corners are in the world, as `surface_mm` gives them; normals point out of the objects. Raises
    `OutputError` as `surfaces` does.
    """
    faces = [corners[triangles] for _, corners, triangles in surfaces(prediction)]
    triangles = np.concatenate(faces)
    with atomic_write(paths[0], overwrite) as partial, partial.open("wb") as file:
        _write_stl(file, triangles, _note(prediction))


def write_ply(prediction: Prediction, image: Image, paths: list[Path], overwrite: bool) -> None:
    """All objects in one binary PLY, in mm; a face has the id of its object as ``object``."""
    vertices, faces, count = [], [], 0
    for object_id, corners, triangles in surfaces(prediction):
        vertices.append(corners)
        face = np.zeros(len(triangles), _PLY_FACE)
        face["count"], face["corners"], face["object"] = 3, triangles + count, object_id
        faces.append(face)
        count += len(corners)
    points = np.zeros(count, _PLY_VERTEX)
    points["xyz"] = np.concatenate(vertices)
    found = np.concatenate(faces)
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment {_note(prediction)}\n"
        f"element vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(found)}\nproperty list uchar int vertex_indices\n"
        "property int object\nend_header\n"
    )
    with atomic_write(paths[0], overwrite) as partial, partial.open("wb") as file:
        file.write(header.encode())
        file.write(points.tobytes())
        file.write(found.tobytes())


def surfaces(prediction: Prediction) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Id, corners and triangles of each object, as `surface_mm` gives them.

    Raises
    ------
    OutputError
        For a plane, and where there is no object.
    """
    labels = prediction.instances.labels
    if labels.ndim != 3:
        raise OutputError(
            f"labels of shape {labels.shape} have no surface; give a volume (Z, Y, X)"
        )
    table = prediction.instances.table
    if not len(table):
        raise OutputError("there is no object, so there is no surface; segment or paint some first")
    to_mm = world_mm(prediction.geometry)
    bounds = table[[f"bbox_{axis}{end}" for end in "01" for axis in "zyx"]].to_numpy(int)
    for object_id, row in zip(table["id"].tolist(), bounds.tolist(), strict=True):
        box = tuple(slice(low, high) for low, high in zip(row[:3], row[3:], strict=True))
        corners, triangles = surface_mm(labels[box] == object_id, row[:3], to_mm)
        yield int(object_id), corners, triangles


def world_mm(geometry: Geometry) -> Callable[[np.ndarray], np.ndarray]:
    """From index positions (n, 3) z, y, x to (n, 3) x, y, z in mm.

    Volumes of a patient: to the left, to the back, to the head, as in DICOM and in the files that
    3D Slicer reads as LPS. Others: along the image's axes. Raises `OutputError` without a unit.
    """
    if geometry.unit not in UNITS_UM:
        raise OutputError("the voxel size is not known, and surfaces are in mm; give it first")
    mm = UNITS_UM[geometry.unit] / 1000

    def convert(index: np.ndarray) -> np.ndarray:
        return np.asarray(geometry.world(index))[:, ::-1] * mm

    return convert


def surface_mm(
    mask: np.ndarray, first: list[int], to_mm: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface of one object by marching cubes (Lewiner et al. 2003).

    Parameters
    ----------
    mask
        bool (Z, Y, X).
    first
        Index z, y, x of its first voxel in the volume.
    to_mm
        From index positions to x, y, z in mm.

    Returns
    -------
    corners : float32 (n, 3)
        x, y, z in mm, halfway between voxels inside and outside.
    triangles : int64 (m, 3)
        Of corners, anticlockwise seen from outside.
    """
    from skimage.measure import marching_cubes

    padded = np.pad(mask, 1).astype(np.float32)
    index, triangles, _, _ = marching_cubes(padded, _LEVEL, allow_degenerate=False)
    corners = to_mm(index.astype(float) - 1 + np.asarray(first)).astype(np.float32)
    triangles = triangles.astype(np.int64)
    if _volume(corners, triangles) < 0:  # the axes are mirrored against each other
        triangles = triangles[:, ::-1]
    return corners, triangles


def _volume(corners: np.ndarray, triangles: np.ndarray) -> float:
    """Volume within a closed surface; below 0 where its triangles face inwards."""
    a, b, c = (corners[triangles[:, side]].astype(float) - corners[0] for side in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def _note(prediction: Prediction) -> str:
    """What 3D Slicer reads of where surfaces lie; it takes those without a note as LPS too."""
    is_patient = prediction.geometry.space == "patient"
    return "in millimetres. SPACE=LPS" if is_patient else "in millimetres"


def _write_stl(file: BinaryIO, triangles: np.ndarray, note: str) -> None:
    faces = np.zeros(len(triangles), _FACE)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    faces["normal"] = normals / np.where(lengths > 0, lengths, 1)
    faces["corners"] = triangles
    file.write(f"binary STL {note}".encode().ljust(HEADER_BYTES))
    file.write(struct.pack("<I", len(faces)))
    file.write(faces.tobytes())
