"""Read outlines of GeoJSON files (QuPath, PUMA) and rasterise them to label images.

Positions are continuous: pixel i of an axis spans i to i + 1, so that an image of 1024 pixels ends
at 1024.0. A pixel belongs to an outline if its centre lies inside; outlines that share an edge
neither overlap nor leave a gap. A ring inside another is a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import DatasetError, ImageError
from napari_coseg.labels.polygons import inside
from napari_coseg.labels.polygons.geojson import box_area, features_of, read_json, rings_of

MAX_BYTES = 64 * 2**20
"""Largest file read; parsed JSON takes about twenty times its size."""

MAX_CROSSINGS = 8_000_000
"""Most edge crossings of one outline, summed over the image rows; a large region has about ten
thousand."""


@dataclass(frozen=True, eq=False)
class Outline:
    """An annotation of one or more rings.

    Parameters
    ----------
    name
        Class name in the file.
    rings
        float64, (N, 2) each: x and y of the vertices; the last equals the first.
    """

    name: str
    rings: tuple[np.ndarray, ...]

    @property
    def area(self) -> float:
        """Area of the bounding box in pixels."""
        return box_area(self.rings)


def read_outlines(path: Path) -> tuple[Outline, ...]:
    """Read every Polygon and MultiPolygon of a file, in file order.

    The class is ``properties.classification.name``. Any other feature raises a `DatasetError` with
    its number, counted from 0.
    """
    content = read_json(path, MAX_BYTES, DatasetError)
    features = features_of(content, path, DatasetError)
    outlines = []
    for number, feature in enumerate(features):
        try:
            outlines.append(_outline(feature))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatasetError(
                f"feature {number} of {path} is not a Polygon or MultiPolygon with a "
                f"properties.classification.name: {error}"
            ) from error
    return tuple(outlines)


def draw(
    outlines: Sequence[Outline],
    values: Sequence[int],
    shape: tuple[int, int],
    dtype: type[np.generic],
) -> np.ndarray:
    """Rasterise each outline with its value on zeros of `shape` (Y, X).

    Where outlines overlap, the one with the smaller bounding box wins, whatever their order. Parts
    outside the image are clipped; an outline farther away than the image is wide raises
    `DatasetError`.
    """
    labels = np.zeros(shape, dtype)
    for i in sorted(range(len(outlines)), key=lambda i: -outlines[i].area):
        _paint(labels, outlines[i], values[i])
    return labels


def _paint(labels: np.ndarray, outline: Outline, value: int) -> None:
    extent = np.array(labels.shape[::-1])
    corners = np.concatenate(outline.rings)
    if (corners < -extent).any() or (corners > 2 * extent).any():
        raise DatasetError(
            f"an outline of {outline.name!r} spans {corners.min(axis=0)} to {corners.max(axis=0)} "
            f"(x, y), far from its image of {extent} pixels; they do not belong together"
        )
    start = np.clip(np.floor(corners.min(axis=0)), 0, extent).astype(int)
    stop = np.clip(np.ceil(corners.max(axis=0)), 0, extent).astype(int)
    width, height = stop - start
    try:
        within = inside([ring - start for ring in outline.rings], (height, width), MAX_CROSSINGS)
    except ImageError as error:
        raise DatasetError(f"outline of {outline.name!r}: {error}") from error
    labels[start[1] : stop[1], start[0] : stop[0]][within] = value


def _outline(feature: Any) -> Outline:
    name = feature["properties"]["classification"]["name"]
    if not isinstance(name, str):
        raise TypeError(f"its name is {name!r:.40}")
    return Outline(name, rings_of(feature["geometry"]))
