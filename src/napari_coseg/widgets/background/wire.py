"""Messages between the window's process and its worker process: JSON, then raw arrays.

A message consists of the length of the header (8 bytes, little endian), the header (JSON, UTF-8),
and the bytes of each array that the header lists under ``arrays``, in C order. Without pickle no
message can run code. Neither disk nor shared memory is used: in a container, ``/dev/shm`` holds
64 MB by default, and writing past its end kills the process.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

_LENGTH = struct.Struct("<Q")


def send(
    stream: IO[bytes],
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write one message and flush.

    Parameters
    ----------
    stream
        Binary; the caller ensures that no other thread writes meanwhile.
    header
        JSON values. The key ``arrays`` is reserved.
    arrays
        By name; any dtype but object.
    """
    arrays = arrays or {}
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    stream.write(_LENGTH.pack(len(text)) + text)
    for array in arrays.values():
        if array.nbytes:
            stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Wait for one message.

    Raises
    ------
    EOFError
        The stream was closed, perhaps in the middle of a message.
    """
    header = json.loads(_exactly(stream, _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0]))
    arrays = {}
    for name, dtype, shape in header.pop("arrays"):
        array = np.empty(shape, np.dtype(dtype))
        if array.nbytes:
            _fill(stream, array.reshape(-1).view(np.uint8).data)
        arrays[name] = array
    return header, arrays


def _exactly(stream: IO[bytes], length: int) -> bytearray:
    data = bytearray(length)
    _fill(stream, memoryview(data))
    return data


def _fill(stream: IO[bytes], view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the stream ended")
        done += count
