"""Store volumes unpacked, so that single slices can be read.

    root/unpacked/<split>/<case>.npy      uint8 (channel, slice, Y, X); the labels come last
    root/unpacked/<split>/<case>.json     pixel size, and the sources

Uncompressed: one byte per voxel for each channel and for the labels. They are ignored if the
volumes have changed since, or another window is requested.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.core.files import atomic_write

FOLDER = "unpacked"
MAX_JSON_BYTES = 2**16


def made_from(files: Sequence[Path], window_hu: tuple[float, float]) -> dict[str, Any]:
    """Identity of an unpacked volume: names, sizes and times of its files, and the window.

    Raises
    ------
    DatasetError
        If a file is missing.
    """
    try:
        found = {path.name: path.stat() for path in files}
    except OSError as error:
        raise DatasetError(f"a volume is missing: {error}") from error
    files = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}
    return {"files": files, "window_hu": [float(value) for value in window_hu]}


def write_unpacked(
    path: Path, arrays: Sequence[np.ndarray], pixel_size_um: float, source: Mapping[str, Any]
) -> Path:
    """Write channels and labels, uint8 (slice, Y, X) each, to `path` with a .json.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    with atomic_write(path, overwrite=True) as partial:
        shape = (len(arrays), *arrays[0].shape)
        mapped = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        for place, array in zip(mapped, arrays, strict=True):
            place[:] = array
        mapped.flush()
        del mapped
    with atomic_write(path.with_suffix(".json"), overwrite=True) as partial:
        content = {"pixel_size_um": pixel_size_um, "made_from": source}
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return path


def read_unpacked(
    path: Path, n_arrays: int, source: Mapping[str, Any]
) -> tuple[np.ndarray, float] | None:
    """The memory-mapped arrays and micrometres per pixel.

    None if there is no file, or it was made from other sources.

    Raises
    ------
    DatasetError
        If the file does not match its description.
    """
    described = path.with_suffix(".json")
    if not path.is_file() or not described.is_file():
        return None
    try:
        if described.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{described.name} is larger than {MAX_JSON_BYTES} bytes")
        content = json.loads(described.read_text(encoding="utf-8"))
        if content["made_from"] != source:
            return None
        pixel_size_um = float(content["pixel_size_um"])
        arrays = np.load(path, mmap_mode="r", allow_pickle=False)
        if arrays.ndim != 4 or arrays.dtype != np.uint8 or len(arrays) != n_arrays:
            raise ValueError(f"it holds {arrays.shape} of {arrays.dtype}")
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"the unpacked volume {path} is broken ({error}); remove it and unpack again"
        ) from error
    return arrays, pixel_size_um
