"""Outlines of GeoJSON files, as QuPath and PUMA write them, and label images of them.

Positions are continuous: pixel i of an axis spans i to i + 1, so that an image of 1024 pixels ends
at 1024.0. A pixel belongs to an outline where its centre lies inside; outlines that share an edge
share no pixel and leave none out. Where a ring lies inside another, it is a hole.
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
"""Largest file read. Parsed, JSON takes some twenty times its size."""

MAX_CROSSINGS = 8_000_000
"""Most edges of one outline met, added up over the rows of the image: its height in pixels, walked
round once, is some ten thousand for a large region."""


@dataclass(frozen=True, eq=False)
class Outline:
    """One annotated thing, of one or more pieces.

    Parameters
    ----------
    name
        Its class, as the file calls it.
    rings
        float64, (N, 2) each: x and y of the corners, the first again at the end.
    """

    name: str
    rings: tuple[np.ndarray, ...]

    @property
    def area(self) -> float:
        """Square pixels of the bounding box."""
        return box_area(self.rings)


def read_outlines(path: Path) -> tuple[Outline, ...]:
    """Every Polygon and MultiPolygon of a file, in its order.

    Their class is ``properties.classification.name``. Anything that is not so raises
    `DatasetError` with the number of the feature, counted from 0.
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
    """Paint each outline with its value on zeros of `shape` (Y, X).

    Where outlines overlap, the one with the smaller bounding box is seen, whatever their order, so
    that an outline within another does not vanish. The parts beyond the image are cut off; an
    outline farther from it than the image is wide raises `DatasetError`.
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
