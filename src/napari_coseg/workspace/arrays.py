"""Label images as zarr: one file a chunk, so that an edit rewrites the chunks it touches.

Nothing in a foreign array is believed: its metadata must be what this file writes (so there is no
codec that unpickles, and no surprise in size), and each chunk's own header must tell of as many
bytes as a chunk has, before zarr takes memory for it. zarr replaces chunks in one step each.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import WorkspaceError
from napari_coseg.core.files import sync
from napari_coseg.labels.editing.edit import Box
from napari_coseg.workspace.files import checked_size, read_json, refusals

CHUNK_PX = 512
_LARGEST_METADATA = 2**20
_BLOSC_HEADER = 16  # its bytes 4 to 8 are the size unpacked


def chunk_shape(ndim: int) -> tuple[int, ...]:
    """A square of one slice."""
    return (1,) * (ndim - 2) + (CHUNK_PX, CHUNK_PX)


def boxes(shape: Sequence[int]) -> Iterator[Box]:
    """The chunks of an image, cut off at its border."""
    sides = chunk_shape(len(shape))
    counts = (range(-(-size // side)) for size, side in zip(shape, sides, strict=True))
    for number in itertools.product(*counts):
        yield box_of(number, shape)


def box_of(number: Sequence[int], shape: Sequence[int]) -> Box:
    """The part of an image that is the chunk of this number along every axis."""
    sides = chunk_shape(len(shape))
    return tuple(
        slice(at * side, min((at + 1) * side, size))
        for at, side, size in zip(number, sides, shape, strict=True)
    )


def create(path: Path, data: np.ndarray) -> None:
    """Write an array as a new folder. Raises `OSError`."""
    import zarr
    from zarr.codecs import BloscCodec

    array = zarr.create_array(
        path,
        shape=data.shape,
        chunks=chunk_shape(data.ndim),
        dtype=data.dtype,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
        fill_value=0,
    )
    for box in boxes(data.shape):
        array[box] = data[box]
        sync(_chunk_path(path, box))
    for folder in (path, *(found for found in path.rglob("*") if found.is_dir())):
        sync(folder)


def load(path: Path, shape: Sequence[int], dtype: str) -> np.ndarray:
    """The whole array, after its parts were checked.

    Raises
    ------
    WorkspaceError
        Where it is missing, damaged, or other than `create` writes.
    """
    array = _opened(path, shape, dtype, "r")
    try:
        found = np.zeros(tuple(shape), dtype)
    except MemoryError as error:
        raise WorkspaceError(
            f"{path} holds labels of {tuple(shape)} pixels, more than memory; use another machine"
        ) from error
    for box in boxes(shape):
        if _chunk_is_there(path, box, shape, dtype):
            found[box] = _read(array, path, box)
    return found


class Chunks:
    """A zarr array that is changed chunk by chunk; changes are kept until `write`.

    Parameters
    ----------
    path, shape, dtype
        As for `load`.
    before_write
        Called before the first chunk of each `write`, also where that comes amid a change since
        too many chunks are kept.
    """

    MOST_KEPT = 256

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: str,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        self._path, self._shape, self._dtype = path, shape, dtype
        self._array = _opened(path, shape, dtype, "r+")
        self._kept: dict[tuple[int, ...], np.ndarray] = {}
        self._changed: set[tuple[int, ...]] = set()
        self._before_write = before_write
        self.went_and_came: set[int] = set()
        """Values, old and new, that blocks changed so far."""

    def set_pixels(self, indices: tuple[np.ndarray, ...], values: np.ndarray) -> None:
        """Give pixels, each once, other values."""
        if not len(values):
            return
        sides = chunk_shape(len(self._shape))
        numbers = [axis // side for axis, side in zip(indices, sides, strict=True)]
        counts = [-(-size // side) for size, side in zip(self._shape, sides, strict=True)]
        flat = np.ravel_multi_index(numbers, counts)
        order = np.argsort(flat, kind="stable")
        edges = np.flatnonzero(np.diff(flat[order])) + 1
        for part in np.split(order, edges):
            number = tuple(int(axis[part[0]]) for axis in numbers)
            inside = tuple(
                axis[part] - at * side
                for axis, at, side in zip(indices, number, sides, strict=True)
            )
            self._changing(number)[inside] = values[part]

    def set_block(self, box: Box, values: np.ndarray) -> np.ndarray:
        """Give a part other values; returns those, old and new, that went and came."""
        differing: list[np.ndarray] = []
        sides = chunk_shape(len(self._shape))
        ranges = [
            range(part.start // side, -(-part.stop // side))
            for part, side in zip(box, sides, strict=True)
        ]
        for number in itertools.product(*ranges):
            common = [
                (max(part.start, chunk.start), min(part.stop, chunk.stop), part.start, chunk.start)
                for part, chunk in zip(box, box_of(number, self._shape), strict=True)
            ]
            new = values[tuple(slice(a - start, b - start) for a, b, start, _ in common)]
            there = tuple(slice(a - start, b - start) for a, b, _, start in common)
            differing.append(replaced(self._changing(number), there, new))
            self.went_and_came.update(differing[-1].tolist())  # the next chunk may make us write
        return np.unique(np.concatenate(differing))

    def write(self) -> None:
        """Bring all changes to the disk. Raises `OSError`; what was not written is kept."""
        if self._changed:
            self._before_write()
        for number in sorted(self._changed):
            box = box_of(number, self._shape)
            self._array[box] = self._kept[number]
            sync(_chunk_path(self._path, box))
            self._changed.discard(number)
        self._kept.clear()

    def _changing(self, number: tuple[int, ...]) -> np.ndarray:
        if number not in self._kept:
            if len(self._kept) >= self.MOST_KEPT:
                self.write()
            box = box_of(number, self._shape)
            if _chunk_is_there(self._path, box, self._shape, self._dtype):
                self._kept[number] = _read(self._array, self._path, box)
            else:
                self._kept[number] = np.zeros([part.stop - part.start for part in box], self._dtype)
        self._changed.add(number)
        return self._kept[number]


def replaced(image: np.ndarray, box: Box, values: np.ndarray) -> np.ndarray:
    """Write a part of an image in place; returns the values that went and came."""
    crop = image[box]
    differs = crop != values
    found = np.unique(np.concatenate([crop[differs], values[differs]]))
    crop[...] = values
    return found


def _opened(path: Path, shape: Sequence[int], dtype: str, mode: str) -> Any:
    import zarr

    found = read_json(path / "zarr.json", "the description of an array", _LARGEST_METADATA)
    for key, expected in metadata(shape, dtype).items():
        if found.get(key) != expected:
            raise WorkspaceError(
                f"{path} is damaged or foreign: its {key} is {str(found.get(key))[:200]}, expected "
                f"{expected}"
            )
    with refusals(path, "read"):
        return zarr.open_array(path, mode=mode, zarr_format=3)


def metadata(shape: Sequence[int], dtype: str) -> dict[str, Any]:
    """What `zarr.json` of such an array says."""
    itemsize = np.dtype(dtype).itemsize
    packing = {"typesize": itemsize, "cname": "zstd", "clevel": 3}
    little = (
        {"name": "bytes", "configuration": {"endian": "little"}}
        if itemsize > 1
        else {"name": "bytes"}
    )
    blosc = {"name": "blosc", "configuration": packing | {"shuffle": "shuffle", "blocksize": 0}}
    chunks = {"chunk_shape": list(chunk_shape(len(shape)))}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": chunks},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [little, blosc],
        "storage_transformers": [],
    }


def _chunk_path(path: Path, box: Box) -> Path:
    sides = chunk_shape(len(box))
    return path.joinpath("c", *(str(part.start // n) for part, n in zip(box, sides, strict=True)))


def _chunk_is_there(path: Path, box: Box, shape: Sequence[int], dtype: str) -> bool:
    """Whether a chunk has a file (one of zeros has none); its header is checked."""
    file = _chunk_path(path, box)
    if not file.exists():
        return False
    expected = math.prod(chunk_shape(len(shape))) * np.dtype(dtype).itemsize
    size = checked_size(file, 2 * expected + 4096, "a chunk")
    with refusals(file, "read"), file.open("rb") as opened:
        header = opened.read(_BLOSC_HEADER)
    packed, unpacked = (
        int.from_bytes(header[12:16], "little"),
        int.from_bytes(header[4:8], "little"),
    )
    if len(header) < _BLOSC_HEADER or unpacked != expected or packed != size:
        raise WorkspaceError(
            f"{file} is damaged: a chunk of {unpacked:,} bytes in {size:,}, expected {expected:,}; "
            "bring the workspace back from a backup"
        )
    return True


def _read(array: Any, path: Path, box: Box) -> np.ndarray:
    try:
        return np.array(array[box])
    except (OSError, RuntimeError, ValueError) as error:
        raise WorkspaceError(
            f"{_chunk_path(path, box)} is damaged ({error}); bring the workspace back from a backup"
        ) from error
