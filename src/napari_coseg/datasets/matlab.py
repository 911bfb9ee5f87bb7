"""Read label arrays of MATLAB files (``.mat``, version 5 to 7) after checking their sizes."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from napari_coseg.core.errors import DatasetError
from napari_coseg.datasets.files import MAX_PIXELS

MAX_UNPACKED_BYTES = 512 * 2**20
"""Limit of the unpacked size of a file."""

_COMPRESSED = 15  # miCOMPRESSED of the format
_NUMERIC = {
    "double", "single", "logical", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64",
    "uint64",
}  # fmt: skip


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Read the arrays `names` of a file, as stored.

    Raises `DatasetError` if one is missing, is not numeric, or is too large.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        _refuse_bombs(path)
        found = {name: (shape, kind) for name, shape, kind in whosmat(path)}
        for name in names:
            _check_array(path, name, found)
        arrays = loadmat(path, variable_names=list(names))
    except DatasetError:
        raise
    except (OSError, ValueError, TypeError, zlib.error, struct.error, MatReadError) as error:
        raise DatasetError(f"cannot read the MATLAB file {path}: {error}") from error
    except NotImplementedError as error:
        raise DatasetError(f"{path} is a MATLAB file of version 7.3; save it with -v7") from error
    return {name: arrays[name] for name in names}


def _check_array(path: Path, name: str, found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    if name not in found:
        raise DatasetError(
            f"{path} has no array {name!r}; it has {', '.join(sorted(found)) or 'none'}"
        )
    shape, kind = found[name]
    if kind not in _NUMERIC:
        raise DatasetError(f"{name!r} of {path} is a {kind}; expected numbers")
    if math.prod(shape) > MAX_PIXELS:
        raise DatasetError(f"{name!r} of {path} has shape {shape}, more than {MAX_PIXELS} values")


def _refuse_bombs(path: Path) -> None:
    """Count the unpacked bytes of the file without keeping them."""
    if path.stat().st_size > MAX_UNPACKED_BYTES:
        raise DatasetError(f"{path} is larger than {MAX_UNPACKED_BYTES // 2**20} MiB")
    unpacked = 0
    with path.open("rb") as file:
        if file.read(128)[126:128] != b"IM":
            raise DatasetError(f"{path} is not a MATLAB file of version 5 to 7")
        while tag := file.read(8):
            kind, count = struct.unpack("<II", tag)
            unpacked += _unpacked_size(file.read(count)) if kind == _COMPRESSED else count
            if kind != _COMPRESSED:
                file.seek(count, 1)
            if unpacked > MAX_UNPACKED_BYTES:
                raise DatasetError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MiB")


def _unpacked_size(packed: bytes) -> int:
    unpacker, size = zlib.decompressobj(), 0
    while packed and not unpacker.eof and size <= MAX_UNPACKED_BYTES:
        size += len(unpacker.decompress(packed, 2**20))
        packed = unpacker.unconsumed_tail
    return size
