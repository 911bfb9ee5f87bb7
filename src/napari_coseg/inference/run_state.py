"""Features and maps of a run, cached so that `refine` does not encode the image again.

    state = RunState()
    prediction = segment(image, state=state)
    refined = refine(state, corrected_regions=regions)

The cache is in CPU memory, in half precision, up to a limit in bytes. Tiles beyond the limit are
read and encoded again when they are needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.inference.manual_edits import RunResults
from napari_coseg.labels.tiling.blocks import Block, blend_weights
from napari_coseg.labels.tiling.resample import resample_maps, source_range

if TYPE_CHECKING:
    from napari_coseg.core.types import Prediction
    from napari_coseg.inference.caching_network import CachedForward, CachingNetwork
    from napari_coseg.inference.network import MapChannels
    from napari_coseg.inference.plane import FreshTiles, TilePlan
    from napari_coseg.inference.settings import InferenceSettings

CACHE_BYTES = 2**30
"""About 50 tiles of 512 x 512 pixels with features at full resolution."""
NO_STATE = (
    "no run on this image is cached; segment the image first (only the last run is cached, and no "
    "stacks)"
)
Position = tuple[int, int]
"""Row and column of a tile."""
Window = tuple[slice, slice]
"""Rows and columns, half-open."""


class PlaneMaps(NamedTuple):
    """The network's maps of an image or a part of it.

    object_probability   float32 (Y, X), 0..1
    class_probability    float32 (1 + T, Y, X), background first; (0, Y, X) where there are no types
    region_probability   float32 (1 + K, Y, X), background first
    hv                   float32 (2, Y, X), horizontal and vertical, -1..1
    """

    object_probability: np.ndarray
    class_probability: np.ndarray
    region_probability: np.ndarray
    hv: np.ndarray


@dataclass(frozen=True, eq=False)
class CachedTile:
    """First forwards of one tile, one for each flip, and its maps, float16 (C, y, x)."""

    forwards: tuple[CachedForward, ...]
    maps: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.maps.nbytes) + sum(one.nbytes for one in self.forwards)


class _Run(NamedTuple):
    """A run and the weights that blend its tiles along y and x."""

    tiles: FreshTiles
    channels: MapChannels
    settings: InferenceSettings
    along_y: list[np.ndarray]
    along_x: list[np.ndarray]


class RunState:
    """State of one run on one plane; empty until `segment` fills it.

    Properties of an empty state raise `EditError`.

    Parameters
    ----------
    limit_bytes
        Size of the cache; tiles beyond it are encoded again when they are needed.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.clear()

    def clear(self) -> None:
        """Free everything."""
        self._cached: dict[Position, CachedTile] = {}
        self._started: _Run | None = None
        self._prediction: Prediction | None = None
        self.results = RunResults()
        """Results of the run and its refinements."""
        self.nbytes = 0
        """Size of the cached tiles."""

    # -- filled by a run -----------------------------------------------------------------------

    def start(
        self, tiles: FreshTiles, channels: MapChannels, settings: InferenceSettings
    ) -> _CachingTiles:
        """Start a run, or restart it with smaller tiles; returns `tiles` behind the cache."""
        self.clear()
        grid, halo = tiles.plan.tiles, tiles.plan.halo_px
        along_y = blend_weights([row[0].y for row in grid], halo)
        along_x = blend_weights([tile.x for tile in grid[0]], halo)
        self._started = _Run(tiles, channels, settings, along_y, along_x)
        return _CachingTiles(self, tiles)

    def finish(self, prediction: Prediction) -> None:
        """End the run with its result."""
        if self._started is not None:
            self._prediction = prediction
            self.results.add(prediction)

    def add_tile(self, tile: Block, cached: CachedTile) -> None:
        """Cache a tile unless the limit is reached."""
        if self.nbytes + cached.nbytes <= self.limit_bytes:
            self._cached[tile.row, tile.column] = cached
            self.nbytes += cached.nbytes

    # -- results -------------------------------------------------------------------------------

    @property
    def is_filled(self) -> bool:
        return self._prediction is not None

    @property
    def prediction(self) -> Prediction:
        """Result of the run."""
        if self._prediction is None:
            raise EditError(NO_STATE)
        return self._prediction

    @property
    def plan(self) -> TilePlan:
        return self._run.tiles.plan

    @property
    def network(self) -> CachingNetwork:
        from napari_coseg.inference.caching_network import CachingNetwork

        network = self._run.tiles.network
        if not isinstance(network, CachingNetwork):
            raise TypeError(f"a run state needs a CachingNetwork, not {type(network)}")
        return network

    @property
    def channels(self) -> MapChannels:
        return self._run.channels

    @property
    def settings(self) -> InferenceSettings:
        return self._run.settings

    @property
    def cached_tiles(self) -> int:
        """Number of tiles in the cache."""
        return len(self._cached)

    def tile(self, tile: Block) -> CachedTile:
        """A tile of the run, encoded again if it is not cached."""
        return self._cached.get((tile.row, tile.column)) or self._encode([tile])[0]

    def maps(self, window: Window | None = None) -> PlaneMaps:
        """Get the run's maps.

        Parameters
        ----------
        window
            Rows and columns on the image's grid, on which the maps then are. None: maps of the
            whole plane on the network's grid.
        """
        from napari_coseg.models.nn.modes import evaluating

        plan = self.plan
        with evaluating(self.network.model):
            if window is None:
                whole = (slice(0, plan.model_shape[0]), slice(0, plan.model_shape[1]))
                found = self.blended(whole).astype(np.float32)
            else:
                rows, columns = ((part.start, part.stop) for part in window)
                at = self.on_model_grid(window)
                shapes = plan.model_shape, plan.image_shape
                found = resample_maps(self.blended(at), *shapes, rows, columns)
        of = self.channels
        return PlaneMaps(found[of.object], found[of.classes], found[of.semantic], found[of.hv])

    def on_model_grid(self, window: Window) -> Window:
        """Range of the network's grid that decoding a window of the image needs."""
        rows, columns = (
            slice(*source_range(m, n, part.start, part.stop))
            for m, n, part in zip(self.plan.model_shape, self.plan.image_shape, window, strict=True)
        )
        return rows, columns

    def blended(
        self, window: Window, replaced: Mapping[Position, np.ndarray] | None = None
    ) -> np.ndarray:
        """Blend the maps of tiles in a window of the network's grid, as the run did.

        Parameters
        ----------
        replaced
            Maps of some tiles that replace the run's.

        Returns
        -------
        np.ndarray
            float16 (C, y, x).

        Raises
        ------
        EditError
            If the window is outside the plane.
        """
        replaced = replaced or {}
        rows, columns = window
        total: np.ndarray | None = None
        for tile in itertools.chain(*self.plan.tiles):
            y, x = _intersection(tile.y.window, rows), _intersection(tile.x.window, columns)
            if y.start >= y.stop or x.start >= x.stop:
                continue
            maps = replaced.get((tile.row, tile.column))
            if maps is None:
                maps = self.tile(tile).maps
            weight = np.multiply.outer(
                self._run.along_y[tile.row][_moved(y, tile.y.start)],
                self._run.along_x[tile.column][_moved(x, tile.x.start)],
            )
            part = maps[:, _moved(y, tile.y.start), _moved(x, tile.x.start)] * weight
            if total is None:
                size = rows.stop - rows.start, columns.stop - columns.start
                total = np.zeros((len(part), *size), np.float32)
            total[:, _moved(y, rows.start), _moved(x, columns.start)] += part
        if total is None:
            raise EditError(f"the window {window} is outside the image")
        return total.astype(np.float16)

    @property
    def _run(self) -> _Run:
        if self._started is None:
            raise EditError(NO_STATE)
        return self._started

    def _encode(self, tiles: Sequence[Block]) -> list[CachedTile]:
        maps = self._run.tiles.maps(tiles)
        forwards, self.network.cached = self.network.cached, ()
        return [CachedTile(*found) for found in zip(forwards, maps, strict=True)]


@dataclass(frozen=True, eq=False)
class _CachingTiles:
    """Maps of tiles as from `FreshTiles`, which the state caches."""

    state: RunState
    fresh: FreshTiles

    @property
    def batch_size(self) -> int:
        return self.fresh.batch_size

    def maps(self, tiles: Sequence[Block]) -> list[np.ndarray]:
        encoded = self.state._encode(tiles)
        for tile, cached in zip(tiles, encoded, strict=True):
            self.state.add_tile(tile, cached)
        return [cached.maps for cached in encoded]


def _intersection(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _moved(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)
