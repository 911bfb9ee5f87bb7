"""Basins: the pixels that the horizontal and vertical maps lead to one place, and how they join.

1. Every pixel of the mask steps to the neighbour that lies towards its centre, not across a sharp
   border, until it stays: the pixels that end in one place are a basin (`find_basins`).
2. Noise leaves an object in several basins, which are joined where the maps run on smoothly across
   their border. Within an object the horizontal map rises to the right and does not change
   downwards (the vertical map likewise); between two objects it drops, or jumps (`join_basins`).
3. What is still too small joins the neighbour behind its weakest border, or goes.

Nothing is measured on the whole image, so that an object does not depend on what else is in it.
Every pixel is visited a fixed number of times; only neighbouring basins are compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A diagonal step stands for directions between 22.5 and 67.5 degrees.
_STEEP = float(np.tan(np.radians(67.5)))
_MAX_DOUBLINGS = 14
_JOIN_ROUNDS = 3
# No step leads over a larger drop and jump between two pixels than this. Borders in blurred maps
# are lower, but there the steps lead apart anyway.
_BARRIER = 0.25


class Basins(NamedTuple):
    """B basins of the F pixels of a mask.

    of_pixel  int32 (F,): the basin 0..B-1 of each pixel, in reading order
    areas     (B,) in pixels
    borders   between basins that share an edge
    """

    of_pixel: np.ndarray
    areas: np.ndarray
    borders: _Borders


def find_basins(mask: np.ndarray, hv: np.ndarray, border_threshold: float) -> Basins:
    """Follow the maps from every pixel of the mask.

    Parameters
    ----------
    mask
        bool (Y, X), with at least one pixel.
    hv
        float32 (2, Y, X), -1..1: horizontal, vertical (see `hover_targets`).
    border_threshold
        Drop or jump of the maps from which two neighbouring pixels are of two objects, even where
        both are centres.
    """
    field = _Field.of(mask, hv)
    step = _steps(field)
    end = step
    for _ in range(_MAX_DOUBLINGS):  # each round doubles the steps already taken
        further = end[end]
        if np.array_equal(further, end):
            break
        end = further
    is_root = np.zeros(len(end), dtype=bool)
    is_root[end] = True
    basin = (np.cumsum(is_root, dtype=np.int32) - 1)[end]
    # One centre may be several pixels: where noise leads them round in a circle, and where they lie
    # side by side without a border between them (as at the middle of an even width).
    roots = np.flatnonzero(is_root)
    near, far = _side_by_side(field, roots, is_root, border_threshold)
    first, second = np.append(roots, near), np.append(step[roots], far)
    of_pixel = _linked(len(roots), basin[first], basin[second])[basin]
    return Basins(of_pixel, np.bincount(of_pixel), _Borders.of(field, of_pixel))


def join_basins(basins: Basins, border_threshold: float, min_area_px: int) -> np.ndarray:
    """Join what belongs to one object.

    In each round a region joins the one behind its weakest border. Small ones go first, and borders
    are measured again, so that a speck between two objects does not bring them together.

    Parameters
    ----------
    basins
        From `find_basins`.
    border_threshold
        Borders from this strength on part two objects, unless one is too small.
    min_area_px
        Smaller regions join whatever they touch; those that touch nothing go.

    Returns
    -------
    np.ndarray
        int32 (B,): the object 1..N that each basin is a part of, 0 where it goes.
    """
    areas, borders = basins.areas, basins.borders
    region = np.arange(len(areas), dtype=np.int32)
    small_first = (float(min_area_px), border_threshold)
    all_weak = (np.inf, border_threshold)
    small_whatever = (float(min_area_px), np.inf)
    for area_limit, strength_limit in (small_first, *[all_weak] * _JOIN_ROUNDS, small_whatever):
        number = _weakest_joined(borders, areas, area_limit, strength_limit)
        areas = np.bincount(number, areas)
        region = number[region]
        borders = borders.renumbered(number)
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
        # Padded by two, so that no step and no look across a border wraps into another row.
        pixel = np.flatnonzero(np.pad(mask, 2))
        position = np.full((mask.shape[0] + 4) * (mask.shape[1] + 4), -1, dtype=np.int32)
        position[pixel] = np.arange(len(pixel), dtype=np.int32)
        horizontal, vertical = (np.pad(one, 2, mode="edge").reshape(-1) for one in hv)
        return cls(pixel, position, (horizontal, vertical), (1, mask.shape[1] + 4))


def _side_by_side(
    field: _Field, roots: np.ndarray, is_root: np.ndarray, border_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of roots that share an edge and are not on two sides of a border."""
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
    """int32 (F,): the pixel one step towards the centre; itself where there is none nearer."""
    (x_move, x_size), (y_move, y_size) = (
        _moves(field, values, stride)
        for values, stride in zip(field.maps, field.strides, strict=True)
    )
    mostly_x = (x_size > _STEEP * y_size) & (x_move != 0)
    mostly_y = (y_size > _STEEP * x_size) & (y_move != 0)
    # The best of eight directions; where that leaves the object, along one axis, then the other.
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
    """Which steps would leave the mask, or cross to another object: there a map falls or jumps."""
    target = pixel + x_move + y_move
    parted = np.zeros(len(pixel), dtype=np.float32)
    for values, move in zip(field.maps, (x_move, y_move), strict=True):
        rise = values[target] - values[pixel]
        parted += np.where(move == 0, np.abs(rise), np.maximum(-np.sign(move) * rise, 0))
    return (field.position[target] < 0) | (parted > 2 * _BARRIER)


def _moves(field: _Field, values: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """(F,) what to add to a flat index to come nearer along one axis, and the distance there."""
    here = values[field.pixel]
    move = np.where(here > 0, np.int32(-stride), np.int32(stride))
    there = values[field.pixel + move]
    # The centre is between two pixels of opposite sign: the one nearer to it stays. At a border
    # between two objects signs are opposite too, but there the steps lead apart.
    arrived = (here * there <= 0) & (np.abs(here) <= np.abs(there))
    move[arrived | (field.position[field.pixel + move] < 0)] = 0
    return move, np.abs(here)


class _Borders(NamedTuple):
    """Pairs of neighbouring regions.

    pairs  (E, 2) numbers of the regions, the lower first
    sums   (E, 4) over the pixel edges between them: half the drop of the map that should rise along
           the edge; half the jump of the horizontal and of the vertical map, from first to second,
           across edges along which they should not change; the number of edges
    """

    pairs: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, field: _Field, basin: np.ndarray) -> _Borders:
        pairs, sums = [], []
        for axis, stride in enumerate(field.strides):
            beyond = field.position[field.pixel + stride]
            near = np.flatnonzero(beyond >= 0)
            near = near[basin[near] != basin[beyond[near]]]
            # Blurred maps change over a few pixels: two on either side tell more than one.
            before = field.pixel[near]
            rising, constant = (
                m[before] + m[before - stride] - m[before + stride] - m[before + 2 * stride]
                for m in field.maps[:: 1 - 2 * axis]
            )
            edges = np.zeros((len(near), 4))
            edges[:, 0] = rising / 4
            edges[:, 2 - axis] = constant / 4
            edges[:, 3] = 1
            pairs.append(np.stack([basin[near], basin[beyond[near]]], axis=1))
            sums.append(edges)
        return cls(np.concatenate(pairs), np.concatenate(sums)).grouped()

    def renumbered(self, number: np.ndarray) -> _Borders:
        """The borders that are left when region i becomes a part of region ``number[i]``."""
        pairs = number[self.pairs]
        left = pairs[:, 0] != pairs[:, 1]
        return _Borders(pairs[left], self.sums[left]).grouped()

    def grouped(self) -> _Borders:
        """One row a pair, the lower number first."""
        swapped = self.pairs[:, 0] > self.pairs[:, 1]
        pairs = np.sort(self.pairs, axis=1).astype(np.int64)
        signs = np.where(swapped, -1, 1)
        sums = self.sums * np.stack([signs**2, signs, signs, signs**2], axis=1)
        stride = int(pairs.max(initial=0)) + 1
        key, row = np.unique(pairs[:, 0] * stride + pairs[:, 1], return_inverse=True)
        totals = [np.bincount(row, column, minlength=len(key)) for column in sums.T]
        return _Borders(np.stack(np.divmod(key, stride), axis=1), np.stack(totals, axis=1))

    @property
    def strength(self) -> np.ndarray:
        """(E,): mean drop and jump; about 1 between objects in sharp maps, 0 or less within one."""
        drop, horizontal, vertical, length = self.sums.T
        return (drop + np.hypot(horizontal, vertical)) / length


def _weakest_joined(
    borders: _Borders, areas: np.ndarray, area_limit: float, strength_limit: float
) -> np.ndarray:
    """New numbers (B,) after each region below the area joins over its weakest border, if weak."""
    region = borders.pairs.T.reshape(-1)
    neighbour = borders.pairs[:, ::-1].T.reshape(-1)
    strength = np.tile(borders.strength, 2)
    ready = np.flatnonzero((areas[region] < area_limit) & (strength < strength_limit))
    order = ready[np.lexsort((strength[ready], region[ready]))]
    chosen = order[np.diff(region[order], prepend=-1) > 0]
    return _linked(len(areas), region[chosen], neighbour[chosen])


def _linked(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int32 (count,): numbers 0.. of the groups that links from `first` to `second` make."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1]
