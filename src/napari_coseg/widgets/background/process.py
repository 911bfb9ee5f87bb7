"""The worker process: runs jobs one at a time, and ends when its pipe does.

Started by `worker`; knows neither napari nor Qt. A job is a function
``function(job: JobContext, **arguments) -> Reply`` named as ``"module:function"``. What this
process loads (torch, a model) stays loaded for later jobs.
"""

from __future__ import annotations

import importlib
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from napari_coseg.core.errors import Cancelled, CosegError, ImageError
from napari_coseg.widgets.background import wire

REPORT_EVERY_S = 0.05
"""Shortest time between two progress reports."""

WHOLE_BYTES = 128 << 20
"""Arrays up to this size are fetched at once; about 6,600 x 6,600 pixels of 8-bit colour."""


@dataclass(frozen=True)
class Reply:
    """Result of a job: JSON values and arrays, by name."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class RemoteArray:
    """An array in the other process, read window by window.

    Indexing with integers and forward slices gives a numpy array. An image larger than memory is
    thus never copied as a whole, and dask, zarr or an open HDF5 file need not be opened twice. An
    array of at most `WHOLE_BYTES` is fetched once, as hundreds of round trips are slow.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, read: Callable[..., np.ndarray]
    ) -> None:
        self.name, self.shape, self.dtype, self._read = name, shape, dtype, read
        self._whole: np.ndarray | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        if self.nbytes > WHOLE_BYTES:
            return self._window(index)
        if self._whole is None:
            self._whole = self._window(...)
        return np.asarray(self._whole[index])

    def _window(self, index: Any) -> np.ndarray:
        parts = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in parts:
            at = parts.index(Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        if any(isinstance(part, slice) and (part.step or 1) < 0 for part in parts):
            raise IndexError("an array of the other process cannot be indexed with negative steps")
        plain = [
            [int(n) for n in part.indices(length)] if isinstance(part, slice) else int(part)
            for part, length in zip(parts, self.shape, strict=True)
        ]
        return self._read(self.name, plain)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)


class JobContext:
    """What a job gets from the window's process.

    Attributes
    ----------
    arrays
        A `RemoteArray` for each array that was submitted with the job, by name.
    kept
        What jobs leave for later jobs in the same process, as the loaded model.
    """

    def __init__(self, connection: Connection, number: int, arrays: dict[str, RemoteArray]) -> None:
        self.arrays = arrays
        self.kept = connection.kept
        self._connection = connection
        self._number = number
        self._last_report = -np.inf

    def progress(self, fraction: float, message: str = "") -> None:
        """Report the fraction done, 0 to 1.

        Reports within `REPORT_EVERY_S` of the last one are dropped, except while the job is to
        pause: the last message then stays until it resumes.
        """
        now = time.monotonic()
        is_too_soon = now - self._last_report < REPORT_EVERY_S
        if is_too_soon and fraction < 1 and not self.should_pause():
            return
        self._last_report = now
        report = {"type": "progress", "job": self._number}
        self._connection.send({**report, "fraction": float(fraction), "message": message})

    def should_cancel(self) -> bool:
        return self._number in self._connection.cancelled

    def should_pause(self) -> bool:
        return self._number in self._connection.paused

    def report(self, kind: str, values: dict[str, Any]) -> None:
        """Report an event as JSON values; unlike `progress`, every report arrives."""
        event = {"type": "report", "job": self._number, "kind": kind}
        self._connection.send({**event, "values": values})


class Connection:
    """Both directions of the pipe; a thread reads it, so that "cancel" takes effect at once."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.cancelled: set[int] = set()
        self.paused: set[int] = set()
        self.kept: dict[str, Any] = {}
        self._windows: queue.Queue[tuple[dict[str, Any], dict[str, np.ndarray]]] = queue.Queue()
        self._incoming, self._outgoing = incoming, outgoing
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    def send(self, header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        with self._writing:
            wire.send(self._outgoing, header, arrays)

    def read(self, name: str, index: list[Any]) -> np.ndarray:
        """A window of an array in the window's process."""
        with self._reading:
            self.send({"type": "read", "array": name, "index": index})
            header, arrays = self._windows.get()
        if "error" in header:
            raise ImageError(f"the image could not be read: {header['error']}")
        return arrays["window"]

    def _listen(self) -> None:
        try:
            while True:
                header, arrays = wire.receive(self._incoming)
                if header["type"] == "job":
                    self.jobs.put(header)
                elif header["type"] == "cancel":
                    self.cancelled.add(header["job"])
                elif header["type"] == "pause":
                    (self.paused.add if header["on"] else self.paused.discard)(header["job"])
                else:
                    self._windows.put((header, arrays))
        except (EOFError, OSError):
            # The window's process has ended, in whatever way: nobody waits for an answer.
            os._exit(0)


def run_job(connection: Connection, header: dict[str, Any]) -> None:
    """Run one job and send its result or its error."""
    number = header["job"]
    arrays = {
        name: RemoteArray(name, tuple(shape), np.dtype(dtype), connection.read)
        for name, dtype, shape in header["sources"]
    }
    context = JobContext(connection, number, arrays)
    try:
        if context.should_cancel():
            raise Cancelled("cancelled before it started")
        module, _, name = header["function"].partition(":")
        reply = getattr(importlib.import_module(module), name)(context, **header["arguments"])
        answer, sent = {"type": "done", "values": reply.values}, reply.arrays
    except CosegError as error:
        answer, sent = {"type": "failed", "kind": type(error).__name__, "message": str(error)}, {}
    except Exception:  # noqa: BLE001  a bug: the window's process shows its traceback
        answer, sent = {"type": "failed", "kind": "bug", "message": traceback.format_exc()}, {}
    connection.send({**answer, "job": number}, sent)
    connection.cancelled.discard(number)
    connection.paused.discard(number)


def main() -> None:
    """Run jobs until the pipe ends. Standard output is the pipe; prints go to standard error."""
    outgoing = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    connection = Connection(sys.stdin.buffer, outgoing)
    while True:
        run_job(connection, connection.jobs.get())
