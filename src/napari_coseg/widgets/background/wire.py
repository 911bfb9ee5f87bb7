"""Messages between the window's process and its worker process: JSON, then raw arrays.

One message is: the length of the header (8 bytes, little endian), the header (JSON, UTF-8), and the
bytes of each array that the header's ``arrays`` lists, in C order. No pickle, so no message can run
code, and nothing touches the disk or shared memory (``/dev/shm`` holds 64 MB in a container unless
told otherwise, and writing past its end kills the process).
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
        Binary; the caller sees to it that no other thread writes meanwhile.
    header
        JSON values. The key ``arrays`` is taken.
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
        The other side has closed the stream, perhaps in the middle of a message.
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
