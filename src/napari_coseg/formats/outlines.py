"""From label images to polygons along the edges of pixels, and back. Exact in both directions.

Positions are continuous, as QuPath counts them: pixel i of an axis spans i to i + 1, so that a
single pixel (y, x) is the square from (x, y) to (x + 1, y + 1). A pixel belongs to a polygon where
its centre lies inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_coseg.labels.polygons import inside


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a label whose pixels hang together by their sides.

    Parameters
    ----------
    label
        The value of its pixels.
    rings
        int64, (N, 2) each: x and y of the corners, the first again at the end. The shell first,
        then the holes. Shells have a positive area in (x, y) (RFC 7946, section 3.1.6), holes a
        negative one. No ring meets itself; rings share single corners at most, so that the polygon
        is valid in the sense of OGC Simple Features.
    """

    label: int
    rings: tuple[np.ndarray, ...]


def trace(labels: np.ndarray) -> list[Piece]:
    """Every piece of every label of (Y, X) whole numbers, by label; 0 is background.

    Pixels that touch at a corner only are two pieces; background that touches at a corner only is
    two holes, or a hole and the outside.
    """
    from skimage.measure import label

    parts = np.pad(label(labels, background=0, connectivity=1), 1)
    pixel, side, following = _edges(parts)
    if not len(pixel):
        return []
    order, ends = _walk(following)
    pixel, side = pixel[order], side[order]
    width = parts.shape[1]
    # Edges end at the right corner for top and right, at the lower for right and bottom.
    x = pixel % width - 1 + np.isin(side, (0, 1))
    y = pixel // width - 1 + np.isin(side, (1, 2))
    corners = np.stack([x, y], axis=1)
    starts = np.concatenate([[0], ends[:-1]])
    part = parts.ravel()[pixel[starts]]
    turns = side != side[_next_in_ring(starts, ends)]
    first_y, first_x = np.divmod(pixel[starts], width)
    values = labels[first_y - 1, first_x - 1]
    rings: dict[int, list[np.ndarray]] = {}
    value_of: dict[int, int] = {}
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        ring = corners[start:end][turns[start:end]]
        rings.setdefault(int(part[i]), []).append(np.concatenate([ring, ring[:1]]))
        value_of[int(part[i])] = int(values[i])
    pieces = [Piece(value_of[key], tuple(found)) for key, found in rings.items()]
    return sorted(pieces, key=lambda piece: piece.label)


def _edges(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sides of pixels that bound a part: pixel (flat), side, and the number of the edge after it.

    Sides are 0 top, 1 right, 2 bottom, 3 left; edges are walked with the pixel on the right hand
    (on the screen), and are in the order of their pixels.
    """
    width = parts.shape[1]
    flat = parts.ravel()
    ahead = np.array([1, width, -1, -width])
    beyond = np.array([-width, 1, width, -1])
    core = parts[1:-1, 1:-1]
    around = (parts[:-2, 1:-1], parts[1:-1, 2:], parts[2:, 1:-1], parts[1:-1, :-2])
    places = [np.nonzero((core != other) & (core > 0)) for other in around]
    keys = np.concatenate([((y + 1) * width + x + 1) * 4 + s for s, (y, x) in enumerate(places)])
    keys.sort()
    pixel, side = keys // 4, keys % 4
    mine, straight = flat[pixel], pixel + ahead[side]
    corner = straight + beyond[side]
    # Left round the pixel across the corner, so that rings part where the background meets itself
    # at a corner only; else straight on; else right, round the pixel's own corner.
    to_left, on = flat[corner] == mine, flat[straight] == mine
    next_pixel = np.where(to_left, corner, np.where(on, straight, pixel))
    next_side = (side + np.where(to_left, 3, np.where(on, 0, 1))) % 4
    return pixel, side, np.searchsorted(keys, next_pixel * 4 + next_side)


def _walk(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges ring after ring, and where each ring ends. Rings begin at their first edge."""
    after = following.tolist()
    seen = bytearray(len(after))
    order: list[int] = []
    ends: list[int] = []
    for first in range(len(after)):
        edge = first
        while not seen[edge]:
            seen[edge] = 1
            order.append(edge)
            edge = after[edge]
        if not ends or len(order) > ends[-1]:
            ends.append(len(order))
    return np.array(order), np.array(ends)


def _next_in_ring(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    places = np.arange(1, int(ends[-1]) + 1)
    places[ends - 1] = starts
    return places


def paint(labels: np.ndarray, rings: Sequence[np.ndarray], value: int) -> bool:
    """Set the pixels of (Y, X) `labels` that lie in an odd number of `rings` to `value`.

    Returns whether there are such pixels.

    Parts beyond the image are cut off. Rings are (N, 2) x and y, closed; any finite numbers.

    Raises
    ------
    ImageError
        Where the rings have more edges than an outline of pixels can have.
    """
    corners = np.concatenate(list(rings))
    extent = np.array(labels.shape[::-1])
    low = np.clip(np.floor(corners.min(axis=0)), 0, extent).astype(np.int64)
    high = np.clip(np.ceil(corners.max(axis=0)), 0, extent).astype(np.int64)
    width, height = (int(n) for n in high - low)
    if not (width and height):
        return False
    within = inside([ring - low for ring in rings], (height, width))
    labels[low[1] : high[1], low[0] : high[0]][within] = value
    return bool(within.any())
