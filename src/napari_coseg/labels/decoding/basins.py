"""Basins: groups of pixels that follow the horizontal and vertical maps to one centre.

1. Every pixel of the mask steps to the neighbour that lies towards its centre, not across a sharp
   border, until it stays: the pixels that end in one place are a basin (`find_basins`).
2. Noise leaves an object in several basins, which are joined where the maps are smooth across their
   border. Within an object the horizontal map rises to the right and does not change downwards (the
   vertical map likewise); between two objects it drops, or jumps (`join_basins`).
3. Basins that are still too small join the neighbour across their weakest border, or are removed.

All measurements are local, so an object does not depend on the rest of the image. Every pixel is
visited a fixed number of times; only neighbouring basins are compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A diagonal step stands for directions between 22.5 and 67.5 degrees.
_STEEP = float(np.tan(np.radians(67.5)))
_MAX_DOUBLINGS = 14
# How far from a border the maps are compared: a fraction of the smaller region's size (the root of
# its area). Maps of networks are blurred over several pixels.
_DEPTH = 0.25
_MAX_DEPTH_PX = 8
# No step crosses a larger drop and jump between two pixels. Borders in blurred maps are lower, but
# there the steps lead apart anyway.
_BARRIER = 0.25


class Basins(NamedTuple):
    """B basins of the F pixels of a mask.

    of_pixel  int32 (F,): the basin 0..B-1 of each pixel, in reading order
    areas     (B,) in pixels
    field     the maps they come from
    """

    of_pixel: np.ndarray
    areas: np.ndarray
    field: _Field


def find_basins(mask: np.ndarray, hv: np.ndarray, border_threshold: float) -> Basins:
    """Follow the maps from every pixel of the mask.

    Parameters
    ----------
    mask
        bool (Y, X), with at least one pixel.
    hv
        float32 (2, Y, X), -1..1: horizontal, vertical (see `hover_targets`).
    border_threshold
        Drop or jump of the maps from which two neighbouring pixels belong to two objects, even if
        both are centres.
    """
    field = _Field.of(mask, hv)
    step = _steps(field)
    end = step
    for _ in range(_MAX_DOUBLINGS):  # each round doubles the number of steps
        further = end[end]
        if np.array_equal(further, end):
            break
        end = further
    is_root = np.zeros(len(end), dtype=bool)
    is_root[end] = True
    basin = (np.cumsum(is_root, dtype=np.int32) - 1)[end]
    # A centre may have several pixels: in a cycle that noise makes, and side by side without a
    # border between them (in the middle of an even width).
    roots = np.flatnonzero(is_root)
    near, far = _side_by_side(field, roots, is_root, border_threshold)
    first, second = np.append(roots, near), np.append(step[roots], far)
    of_pixel = _linked(len(roots), basin[first], basin[second])[basin]
    return Basins(of_pixel, np.bincount(of_pixel), field)


def join_basins(basins: Basins, border_threshold: float, min_area_px: int) -> np.ndarray:
    """Join basins that belong to one object.

    In each round a region joins the one across its weakest border, and borders are measured again,
    until all that remain separate two objects; then regions that are too small join across any
    border. Small ones join first, so that a speck between two objects does not connect them.

    Parameters
    ----------
    basins
        From `find_basins`.
    border_threshold
        Borders from this strength on separate two objects, unless one is too small.
    min_area_px
        Smaller regions join any neighbour; those without one are removed.

    Returns
    -------
    np.ndarray
        int32 (B,): the object 1..N of each basin, 0 where it is removed.
    """
    areas, region = basins.areas, np.arange(len(basins.areas), dtype=np.int32)
    edges = [_Edges.of(basins, axis) for axis in (0, 1)]
    stages = ((min_area_px, border_threshold), (np.inf, border_threshold), (min_area_px, np.inf))
    for area_limit, strength_limit in stages:
        while True:
            pairs, strength = _borders(basins.field, edges, areas)
            may_join = areas < area_limit
            weak = (strength < strength_limit) & may_join[pairs].any(axis=1)
            if not weak.any():
                break
            number = _joined_over_weakest(pairs[weak], strength[weak], may_join)
            areas = np.bincount(number, areas)
            region = number[region]
            edges = [along.renumbered(number) for along in edges]
    kept = areas >= min_area_px
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[region]


class _Field(NamedTuple):
    """The maps on the F pixels of the mask. Flat indices are those of the padded image.

    pixel     (F,) flat index of each pixel of the mask, in reading order
    position  flat image: number 0..F-1 of each pixel, -1 outside the mask
    maps      two flat images, float32: horizontal, vertical
    strides   what to add to a flat index to go one pixel right, one pixel down
    """

    pixel: np.ndarray
    position: np.ndarray
    maps: tuple[np.ndarray, np.ndarray]
    strides: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray, hv: np.ndarray) -> _Field:
        # Padded, so that no step and no comparison across a border wraps into another row.
        rim = _MAX_DEPTH_PX + 1
        pixel = np.flatnonzero(np.pad(mask, rim))
        horizontal, vertical = (np.pad(one, rim, mode="edge").reshape(-1) for one in hv)
        position = np.full(len(horizontal), -1, dtype=np.int32)
        position[pixel] = np.arange(len(pixel), dtype=np.int32)
        return cls(pixel, position, (horizontal, vertical), (1, mask.shape[1] + 2 * rim))


def _side_by_side(
    field: _Field, roots: np.ndarray, is_root: np.ndarray, border_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of roots that share an edge without a border between them."""
    near, far = [], []
    for axis, stride in enumerate(field.strides):
        pixel = field.pixel[roots]
        beyond = field.position[pixel + stride]
        rising, constant = (m[pixel] - m[pixel + stride] for m in field.maps[:: 1 - 2 * axis])
        smooth = (rising + np.abs(constant)) / 2 < border_threshold
        linked = smooth & (beyond >= 0) & is_root[beyond]
        near.append(roots[linked])
        far.append(beyond[linked])
    return np.concatenate(near), np.concatenate(far)


def _steps(field: _Field) -> np.ndarray:
    """int32 (F,): the pixel one step towards the centre; itself where none is nearer."""
    (x_move, x_size), (y_move, y_size) = (
        _moves(field, values, stride)
        for values, stride in zip(field.maps, field.strides, strict=True)
    )
    mostly_x = (x_size > _STEEP * y_size) & (x_move != 0)
    mostly_y = (y_size > _STEEP * x_size) & (y_move != 0)
    # The best of eight directions; if that leaves the object, along one axis, then the other.
    choices = ((~mostly_y, ~mostly_x), (x_size > y_size, x_size <= y_size))
    target = np.arange(len(field.pixel), dtype=np.int32)
    left = np.flatnonzero((x_move != 0) | (y_move != 0))
    for along_x, along_y in (*choices, choices[1][::-1]):
        x, y = x_move[left] * along_x[left], y_move[left] * along_y[left]
        pixel = field.pixel[left]
        barred = _barred(field, pixel, x, y)
        target[left[~barred]] = field.position[(pixel + x + y)[~barred]]
        left = left[barred]
    return target


def _barred(field: _Field, pixel: np.ndarray, x_move: np.ndarray, y_move: np.ndarray) -> np.ndarray:
    """Which steps would leave the mask, or enter another object, where a map falls or jumps."""
    target = pixel + x_move + y_move
    parted = np.zeros(len(pixel), dtype=np.float32)
    for values, move in zip(field.maps, (x_move, y_move), strict=True):
        rise = values[target] - values[pixel]
        parted += np.where(move == 0, np.abs(rise), np.maximum(-np.sign(move) * rise, 0))
    return (field.position[target] < 0) | (parted > 2 * _BARRIER)


def _moves(field: _Field, values: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """(F,) step of the flat index towards the centre along one axis, and the distance to it."""
    here = values[field.pixel]
    move = np.where(here > 0, np.int32(-stride), np.int32(stride))
    there = values[field.pixel + move]
    # The centre is between two pixels of opposite sign: the nearer one stays. At a border between
    # two objects signs are opposite too, but there the steps lead apart.
    arrived = (here * there <= 0) & (np.abs(here) <= np.abs(there))
    move[arrived | (field.position[field.pixel + move] < 0)] = 0
    return move, np.abs(here)


class _Edges(NamedTuple):
    """Edges along one axis between pixels of two regions.

    axis       0: from left to right, 1: downwards
    pixel      (E,) flat index of the first pixel
    near, far  (E,) the regions of the first and of the next pixel
    """

    axis: int
    pixel: np.ndarray
    near: np.ndarray
    far: np.ndarray

    @classmethod
    def of(cls, basins: Basins, axis: int) -> _Edges:
        field, of_pixel = basins.field, basins.of_pixel
        beyond = field.position[field.pixel + field.strides[axis]]
        inside = np.flatnonzero(beyond >= 0)
        first = inside[of_pixel[inside] != of_pixel[beyond[inside]]]
        return cls(axis, field.pixel[first], of_pixel[first], of_pixel[beyond[first]])

    def renumbered(self, number: np.ndarray) -> _Edges:
        """The edges that remain when region i becomes part of region ``number[i]``."""
        near, far = number[self.near], number[self.far]
        left = near != far
        return _Edges(self.axis, self.pixel[left], near[left], far[left])


def _borders(
    field: _Field, edges: list[_Edges], areas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbouring regions (P, 2), the lower first, and the strength of their border (P,).

    Strength is the mean, over the edges between them, of the drop of the map that rises within an
    object along the edge's axis, plus the size of the mean jump of the other map, which is constant
    there. About 1 between objects in sharp maps, 0 or less within one.
    """
    sums = np.concatenate([_drops_and_jumps(field, along, areas) for along in edges])
    near = np.concatenate([along.near for along in edges]).astype(np.int64)
    far = np.concatenate([along.far for along in edges])
    key, pair = np.unique(
        np.minimum(near, far) * len(areas) + np.maximum(near, far), return_inverse=True
    )
    drop, horizontal, vertical = (np.bincount(pair, one, len(key)) for one in sums.T)
    length = np.bincount(pair, minlength=len(key))
    return (
        np.stack(np.divmod(key, len(areas)), axis=1),
        (drop + np.hypot(horizontal, vertical)) / length,
    )


def _drops_and_jumps(field: _Field, edges: _Edges, areas: np.ndarray) -> np.ndarray:
    """(E, 3): drop, and jump of the horizontal and the vertical map away from the lower region.

    Each is the mean of two differences: of the pixels at the edge, and of pixels deeper inside.
    """
    smaller = np.minimum(areas[edges.near], areas[edges.far])
    depth = np.minimum(np.rint(_DEPTH * np.sqrt(smaller)).astype(np.int64), _MAX_DEPTH_PX)
    stride = field.strides[edges.axis]
    before, after = edges.pixel - depth * stride, edges.pixel + (depth + 1) * stride
    falls = [
        (m[edges.pixel] - m[edges.pixel + stride] + m[before] - m[after]) / 4 for m in field.maps
    ]
    found = np.zeros((len(edges.pixel), 3))
    found[:, 0] = falls[edges.axis]
    found[:, 2 - edges.axis] = np.where(edges.near < edges.far, -1, 1) * falls[1 - edges.axis]
    return found


def _joined_over_weakest(
    pairs: np.ndarray, strength: np.ndarray, may_join: np.ndarray
) -> np.ndarray:
    """New numbers (B,) after each region that may join has joined across its weakest border."""
    region, neighbour = np.concatenate([pairs, pairs[:, ::-1]]).T
    strength = np.tile(strength, 2)
    ready = np.flatnonzero(may_join[region])
    order = ready[np.lexsort((strength[ready], region[ready]))]
    chosen = order[np.diff(region[order], prepend=-1) > 0]
    return _linked(len(may_join), region[chosen], neighbour[chosen])


def _linked(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int32 (count,): numbers 0.. of the groups connected by links from `first` to `second`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1]
