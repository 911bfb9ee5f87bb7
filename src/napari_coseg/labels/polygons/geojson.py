"""Parts that the GeoJSON readers (datasets, results from QuPath) share: file, features, rings.

Each reader passes the error class that its users expect, and the largest file that it reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from napari_coseg.core.errors import CosegError
from napari_coseg.labels.polygons import LARGEST_COORDINATE


def read_json(
    path: Path, max_bytes: int, error: type[CosegError], *, not_a_number: bool = False
) -> Any:
    """The content of a JSON file, which may come from anyone.

    Parsed JSON takes about twenty times the size of the file, which `max_bytes` limits.
    Not-a-number and infinity, which are not JSON, are refused, unless `not_a_number`: QuPath writes
    them for measurements that have no value.

    Raises
    ------
    CosegError
        Of the class `error`: where the file cannot be read, is too large or is not JSON.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            most = max_bytes / 2**20
            raise error(f"{path} has {size / 2**20:.0f} MiB; at most {most:.0f} are read")
        constants = None if not_a_number else _refuse
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=constants)
    except OSError as cause:
        raise error(f"cannot read the outlines {path}: {cause}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not GeoJSON: {cause}") from cause


def features_of(content: Any, path: Path, error: type[CosegError]) -> list[Any]:
    """The features of a collection, or of a bare list of them; `path` is for the message."""
    features = content.get("features") if isinstance(content, dict) else content
    if not isinstance(features, list):
        raise error(f"{path} has no list of GeoJSON features")
    return features


def rings_of(geometry: Any) -> tuple[np.ndarray, ...]:
    """Outer and inner rings of a Polygon or MultiPolygon, all together.

    Returns
    -------
    tuple of np.ndarray
        float64, (N, 2) each: x and y of the corners, the first again at the end.

    Raises
    ------
    ValueError, TypeError, KeyError
        Where it is neither, has no ring, or a ring is not a list of three or more finite positions
        within `napari_coseg.labels.polygons.LARGEST_COORDINATE`.
    """
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"its type is {kind!r:.40}")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    rings = tuple(_ring(ring) for polygon in polygons for ring in polygon)
    if not rings:
        raise ValueError("it has no ring")
    return rings


def box_area(rings: Sequence[np.ndarray]) -> float:
    """Area of the rings' bounding box in pixels; smaller outlines are painted over larger ones."""
    corners = np.concatenate(rings)
    return float(np.prod(corners.max(axis=0) - corners.min(axis=0)))


def _ring(positions: Any) -> np.ndarray:
    ring = np.asarray(positions)  # raises ValueError where positions differ in length
    if ring.dtype.kind not in "iuf" or ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError("a ring is not a list of [x, y]")
    if len(ring) < 3:
        raise ValueError(f"a ring has {len(ring)} corners")
    ring = ring[:, :2].astype(np.float64)
    if not np.isfinite(ring).all():
        raise ValueError("a ring has a number that is not finite")
    if np.abs(ring).max() > LARGEST_COORDINATE:
        raise ValueError(f"a ring has a corner at {np.abs(ring).max():g}, beyond any image")
    return ring if (ring[0] == ring[-1]).all() else np.vstack([ring, ring[:1]])


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
