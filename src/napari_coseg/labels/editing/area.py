"""A part of an image as runs of pixels: exact, and small in memory and in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.edit import Box


@dataclass(frozen=True, eq=False)
class Area:
    """Some pixels of an image.

    Parameters
    ----------
    shape
        Of the image.
    runs
        int64 (n, 2): the pixels as half-open runs of positions in the flattened image, ascending,
        with gaps between them.
    """

    shape: tuple[int, ...]
    runs: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))

    def __bool__(self) -> bool:
        """Whether it has any pixel."""
        return bool(len(self.runs))

    def with_pixels(self, pixels: tuple[np.ndarray, ...]) -> Area:
        """With more pixels, one array per axis, as `drawing.polygon_pixels` returns them."""
        return self._with(pixels, True)

    def without_pixels(self, pixels: tuple[np.ndarray, ...]) -> Area:
        return self._with(pixels, False)

    def mask(self, box: Box | None = None) -> np.ndarray:
        """Bool, of the image's shape or that of a box."""
        if box is None:
            box = tuple(slice(0, size) for size in self.shape)
        *planes, rows, columns = box
        height, width = self.shape[-2:]
        bands = []
        for z in range(planes[0].start, planes[0].stop) if planes else (0,):
            low, high = (width * (z * height + row) for row in (rows.start, rows.stop))
            flat = np.zeros(high - low, dtype=bool)
            for start, stop in self._runs_in(low, high).tolist():
                flat[max(start - low, 0) : stop - low] = True
            bands.append(flat.reshape(-1, width)[:, columns])
        return np.stack(bands) if planes else bands[0]

    def holds(self, indices: tuple[np.ndarray, ...]) -> np.ndarray:
        """Which pixels lie in it, bool (n,); one int array per axis."""
        flat = np.ravel_multi_index(indices, self.shape)
        # Edges of runs ascend: an odd number of them at or before a position means inside.
        return np.searchsorted(self.runs.reshape(-1), flat, side="right") % 2 == 1

    @classmethod
    def of_runs(cls, runs: Sequence[Sequence[int]], shape: tuple[int, ...]) -> Area:
        """From runs that were read from a file.

        Raises
        ------
        EditError
            Where they are not runs of pixels of an image of this shape.
        """
        try:
            read = np.array(runs, dtype=np.int64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError) as error:
            raise EditError(f"reviewed marks cannot be read: {error!r}; mark again") from error
        edges = read.reshape(-1)
        in_order = (np.diff(edges) > 0).all()
        if len(edges) and not (in_order and edges[0] >= 0 and edges[-1] <= np.prod(shape)):
            raise EditError("reviewed marks lie outside the image, or overlap; mark again")
        return cls(tuple(shape), read)

    def _runs_in(self, low: int, high: int) -> np.ndarray:
        """Runs that overlap this half-open part of the flattened image."""
        starts, stops = self.runs.T
        return self.runs[(stops > low) & (starts < high)]

    def _with(self, pixels: tuple[np.ndarray, ...], value: bool) -> Area:
        """Reads and writes only between the first and the last of the pixels."""
        flat = np.ravel_multi_index(pixels, self.shape)
        if not len(flat):
            return self
        low, high = int(flat.min()), int(flat.max()) + 1
        starts, stops = self.runs.T
        mask = np.zeros(high - low, dtype=bool)
        for start, stop in self._runs_in(low, high).tolist():
            mask[max(start - low, 0) : stop - low] = True
        mask[flat - low] = value
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)) + low
        before = np.minimum(self.runs[starts < low], low)
        after = np.maximum(self.runs[stops > high], high)
        runs = np.concatenate([before.reshape(-1), edges, after.reshape(-1)])
        # Runs that touch at the seams are one: drop a stop that equals the next start, and both.
        seam = np.flatnonzero(np.diff(runs) == 0)
        return replace(self, runs=np.delete(runs, [seam, seam + 1]).reshape(-1, 2))
