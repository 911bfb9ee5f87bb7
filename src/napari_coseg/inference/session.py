"""What a run leaves behind, so that corrections need no new encoding.

    session = Session()
    prediction = segment(image, session=session)
    refined = refine(session, corrected_regions=regions)

For every tile a session keeps what the network encoded and predicted (`session_network.Kept`) and
the maps of its answer, in half precision and in the memory of the computer, up to a limit. Tiles
beyond it are read and encoded again when they are asked for, so that only time is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.inference.handmade import Made
from napari_coseg.labels.tiling.blocks import Block, blend_weights
from napari_coseg.labels.tiling.resample import resample_maps, source_range

if TYPE_CHECKING:
    from napari_coseg.core.types import Prediction
    from napari_coseg.inference.network import MapChannels
    from napari_coseg.inference.plane import FreshTiles, Plan
    from napari_coseg.inference.session_network import KeepingNetwork, Kept
    from napari_coseg.inference.settings import InferenceSettings

KEEP_BYTES = 2**30
"""Of a network with features at full resolution about 50 tiles of 512 x 512 pixels."""
NO_SESSION = (
    "nothing is kept of a run on this image; segment it first (of stacks, and of runs before the "
    "last one, nothing is kept)"
)
Place = tuple[int, int]
"""Row and column of a tile."""
Window = tuple[slice, slice]
"""Rows and columns, half-open."""


class PlaneMaps(NamedTuple):
    """The network's maps of (a part of) an image.

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
class KeptTile:
    """One tile: what was encoded, one `Kept` a flip, and its maps, float16 (C, y, x)."""

    forwards: tuple[Kept, ...]
    maps: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.maps.nbytes) + sum(one.nbytes for one in self.forwards)


class Session:
    """The state of one run on one plane; empty until `segment` has filled it.

    Parameters
    ----------
    limit_bytes
        As much is kept of tiles; the rest is encoded again where it is needed.
    """

    def __init__(self, limit_bytes: int = KEEP_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.clear()

    def clear(self) -> None:
        """Let go of everything."""
        self._kept: dict[Place, KeptTile] = {}
        self._fresh: FreshTiles | None = None
        self._channels: MapChannels | None = None
        self._settings: InferenceSettings | None = None
        self._weights: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._prediction: Prediction | None = None
        self.made = Made()
        """What the run and its refinements made."""
        self.nbytes = 0
        """Of what is kept of tiles."""

    # -- filled by a run -----------------------------------------------------------------------

    def begin(
        self, tiles: FreshTiles, channels: MapChannels, settings: InferenceSettings
    ) -> _KeepingTiles:
        """A run begins, perhaps again with smaller tiles: what answers for its tiles."""
        self.clear()
        self._fresh, self._channels, self._settings = tiles, channels, settings
        grid, halo = tiles.plan.tiles, tiles.plan.halo_px
        self._weights = (
            blend_weights([row[0].y for row in grid], halo),
            blend_weights([tile.x for tile in grid[0]], halo),
        )
        return _KeepingTiles(self, tiles)

    def finish(self, prediction: Prediction) -> None:
        """The run has ended with this result."""
        if self._fresh is not None:
            self._prediction = prediction
            self.made.add(prediction)

    def keep(self, tile: Block, kept: KeptTile) -> None:
        """Keep a tile if it fits."""
        if self.nbytes + kept.nbytes <= self.limit_bytes:
            self._kept[tile.row, tile.column] = kept
            self.nbytes += kept.nbytes

    # -- what it knows -------------------------------------------------------------------------

    @property
    def is_filled(self) -> bool:
        return self._prediction is not None

    @property
    def prediction(self) -> Prediction:
        """What the run gave."""
        if self._prediction is None:
            raise EditError(NO_SESSION)
        return self._prediction

    @property
    def plan(self) -> Plan:
        return self._tiles.plan

    @property
    def network(self) -> KeepingNetwork:
        from napari_coseg.inference.session_network import KeepingNetwork

        network = self._tiles.network
        if not isinstance(network, KeepingNetwork):
            raise TypeError(f"a session is filled by a KeepingNetwork, not by {type(network)}")
        return network

    @property
    def channels(self) -> MapChannels:
        if self._channels is None:
            raise EditError(NO_SESSION)
        return self._channels

    @property
    def settings(self) -> InferenceSettings:
        if self._settings is None:
            raise EditError(NO_SESSION)
        return self._settings

    @property
    def kept_tiles(self) -> int:
        """How many tiles need no new encoding."""
        return len(self._kept)

    def tile(self, tile: Block) -> KeptTile:
        """A tile as it was in the run; read and encoded again if it was not kept."""
        found = self._kept.get((tile.row, tile.column))
        return found or self._encode([tile])[0][1]

    def maps(self, window: Window | None = None) -> PlaneMaps:
        """What the network sees in a window of the image, as after the run.

        Parameters
        ----------
        window
            Rows and columns on the image's grid; the maps are then of that size. None: of the whole
            plane, on the network's grid, which covers the same field.
        """
        from napari_coseg.inference.network import evaluating

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
        channels = self.channels
        return PlaneMaps(
            found[channels.object],
            found[channels.classes],
            found[channels.semantic],
            found[channels.hv],
        )

    def on_model_grid(self, window: Window) -> Window:
        """Exactly what decoding a window of the image looks at, on the network's grid."""
        rows, columns = (
            slice(*source_range(m, n, part.start, part.stop))
            for m, n, part in zip(self.plan.model_shape, self.plan.image_shape, window, strict=True)
        )
        return rows, columns

    def blended(
        self, window: Window, instead: Mapping[Place, np.ndarray] | None = None
    ) -> np.ndarray:
        """Maps of a window of the network's grid, float16 (C, y, x), as the run blended them.

        Parameters
        ----------
        instead
            Maps of some tiles, in place of those of the run.
        """
        instead = instead or {}
        rows, columns = window
        total: np.ndarray | None = None
        for tile in self.tiles_in(window):
            place = (tile.row, tile.column)
            maps = instead[place] if place in instead else self.tile(tile).maps
            y, x = _shared(tile.y.window, rows), _shared(tile.x.window, columns)
            weight = np.multiply.outer(
                self._weights[0][tile.row][_moved(y, tile.y.start)],
                self._weights[1][tile.column][_moved(x, tile.x.start)],
            )
            part = maps[:, _moved(y, tile.y.start), _moved(x, tile.x.start)] * weight
            if total is None:
                size = rows.stop - rows.start, columns.stop - columns.start
                total = np.zeros((len(part), *size), np.float32)
            total[:, _moved(y, rows.start), _moved(x, columns.start)] += part
        if total is None:
            raise EditError(f"the window {window} lies outside the image")
        return total.astype(np.float16)

    def tiles_in(self, window: Window) -> list[Block]:
        """The tiles that reach into a window of the network's grid."""
        rows, columns = window
        return [
            tile
            for row in self.plan.tiles
            for tile in row
            if _overlap(tile.y.window, rows) and _overlap(tile.x.window, columns)
        ]

    # ------------------------------------------------------------------------------------------

    @property
    def _tiles(self) -> FreshTiles:
        if self._fresh is None:
            raise EditError(NO_SESSION)
        return self._fresh

    def _encode(self, tiles: Sequence[Block]) -> list[tuple[Block, KeptTile]]:
        maps = self._tiles.maps(tiles)
        kept = self.network.kept
        self.network.kept = ()
        return [
            (tile, KeptTile(forwards, one))
            for tile, forwards, one in zip(tiles, kept, maps, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class _KeepingTiles:
    """Answers for tiles as `FreshTiles` does, and keeps what it can."""

    session: Session
    fresh: FreshTiles

    @property
    def batch_size(self) -> int:
        return self.fresh.batch_size

    def maps(self, tiles: Sequence[Block]) -> list[np.ndarray]:
        encoded = self.session._encode(tiles)
        for tile, kept in encoded:
            self.session.keep(tile, kept)
        return [kept.maps for _, kept in encoded]


def _overlap(one: slice, other: slice) -> bool:
    return bool(one.start < other.stop and other.start < one.stop)


def _shared(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _moved(part: slice, origin: int) -> slice:
    return slice(part.start - origin, part.stop - origin)
