"""Jobs in a worker process that stays warm between them: progress, cancel, errors.

A thread would share the interpreter's lock with the window, and decoding holds it for long (in
scikit-image, pandas and plain Python; `benchmarks/gui_gap.py` measures both). A process can also be
killed, gives all its memory back, and may crash without losing napari and an hour of corrections.
Its cost, importing torch, is paid early (`prepare`) and once: it stays, with the model loaded.

Neither multiprocessing nor QProcess is used: multiprocessing's spawn runs the user's main script
again, which opens a second napari where it has no main guard, and QProcess must not be used from
the thread that serves windows of the image during a job. Instead there are `subprocess`, two pipes,
and one thread that reads and serves (it uses Qt only to emit signals). Images are not copied: the
process requests the windows it needs, so that dask and zarr stay lazy and memory stays flat.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import IO, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_coseg.core import errors
from napari_coseg.core.errors import Cancelled, CosegError
from napari_coseg.widgets.background import wire
from napari_coseg.widgets.background.process import Reply

CANCEL_GRACE_MS = 1000
"""Time for a cancelled job to stop by itself; then its process is killed."""


class WorkerDied(CosegError):
    """The worker process ended during a job."""


class WorkerBug(RuntimeError):
    """A job raised something other than a `CosegError`; the message is its traceback."""


class Job(QObject):
    """A submitted job. Exactly one of `done` and `failed` is emitted, in the GUI thread.

    Signals
    -------
    progressed(float, str)
        Fraction done, 0 to 1, and a status message.
    reported(str, dict)
        An event of the job: its kind, and plain values.
    done(Reply)
    failed(Exception)
        `Cancelled`, another `CosegError`, or `WorkerBug`.
    """

    progressed = Signal(float, str)
    reported = Signal(str, object)
    done = Signal(object)
    failed = Signal(object)

    def __init__(self, worker: Worker, number: int, request: dict[str, Any]) -> None:
        super().__init__()
        self.number = number
        self.is_cancelled = False
        self._worker = worker
        self._request = request

    def cancel(self) -> None:
        """Stop within the worker's grace time; `failed` follows with `Cancelled`."""
        self._worker._cancel(self)

    def pause(self, on: bool = True) -> None:
        """Pause or resume; jobs that do not ask `should_pause` ignore it."""
        self._worker._pause(self, on)


class Worker(QObject):
    """A process that runs jobs one after another; started when needed, ended by `close`.

    All methods are for the GUI thread.

    Parameters
    ----------
    cancel_grace_ms
        Time for a cancelled job to stop by itself and save its state.
    """

    _received = Signal(object, object, object)
    _ended = Signal(object)

    def __init__(
        self, parent: QObject | None = None, cancel_grace_ms: int = CANCEL_GRACE_MS
    ) -> None:
        super().__init__(parent)
        self._process: _Process | None = None
        self._numbers = itertools.count()
        self._waiting: deque[tuple[Job, Mapping[str, Any]]] = deque()
        self._running: Job | None = None
        self._grace = QTimer(self)
        self._grace.setSingleShot(True)
        self._grace.setInterval(cancel_grace_ms)
        self._grace.timeout.connect(self._kill)
        self._received.connect(self._on_message)
        self._ended.connect(self._on_end)

    @property
    def pid(self) -> int | None:
        """Process id; None where no process is running."""
        return self._process.popen.pid if self._process else None

    @property
    def is_idle(self) -> bool:
        """Whether no job runs or waits."""
        return self._running is None and not self._waiting

    def prepare(self) -> None:
        """Start the process now, so that the first job need not wait for it."""
        if self._process is None:
            # Weak, so that an unclosed worker can be collected, which ends its process too
            this = weakref.ref(self)
            self._process = _Process(
                partial(_emit, this, "_received"), partial(_emit, this, "_ended")
            )
            weakref.finalize(self, self._process.close)

    def submit(
        self,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> Job:
        """Queue a job.

        Parameters
        ----------
        function
            ``"module:function"``, called as ``function(job: JobContext, **arguments) -> Reply``.
        arguments
            JSON values.
        arrays
            Anything with ``shape`` and ``dtype`` that gives a numpy array when indexed; read from
            a thread, window by window, while the job runs. Released when it ends.
        """
        arrays = dict(arrays or {})
        sources = [
            [name, np.dtype(array.dtype).str, [int(n) for n in array.shape]]
            for name, array in arrays.items()
        ]
        request = {"type": "job", "function": function, "arguments": dict(arguments or {})}
        job = Job(self, next(self._numbers), {**request, "sources": sources})
        self._waiting.append((job, arrays))
        self._next()
        return job

    def close(self) -> None:
        """End the process. Jobs that run or wait emit `failed`, for others may wait for them.

        Block the signals of your own jobs first where they should call nobody.
        """
        left = [job for job in (self._running, *(pair[0] for pair in self._waiting)) if job]
        self._grace.stop()
        self._waiting.clear()
        self._running = None
        process, self._process = self._process, None
        if process is not None:
            process.close()
        for job in left:
            job.failed.emit(Cancelled("the dock that started the process was closed; try again"))

    def release(self) -> None:
        """End the process where it is idle, without waiting; the next job starts another.

        Its memory, on a GPU as well, is free a moment later.
        """
        if self.is_idle and self._process is not None:
            process, self._process = self._process, None
            process.popen.kill()  # the thread sees the pipe end, and `_on_end` follows

    def _next(self) -> None:
        if self._running is not None or not self._waiting:
            return
        self.prepare()
        assert self._process is not None  # noqa: S101  for the type checker; prepare made it
        job, arrays = self._waiting.popleft()
        self._running = job
        self._process.sources = arrays
        self._process.send({**job._request, "job": job.number})

    def _cancel(self, job: Job) -> None:
        waiting = next((pair for pair in self._waiting if pair[0] is job), None)
        if waiting is not None:
            self._waiting.remove(waiting)
            job.failed.emit(Cancelled("cancelled before it started"))
        elif job is self._running and not job.is_cancelled and self._process is not None:
            job.is_cancelled = True
            self._process.send({"type": "cancel", "job": job.number})
            self._grace.start()

    def _pause(self, job: Job, on: bool) -> None:
        if job is self._running and self._process is not None:
            self._process.send({"type": "pause", "job": job.number, "on": on})

    def _kill(self) -> None:
        if self._process is not None:
            self._process.popen.kill()  # the thread sees the pipe end, and `_on_end` follows

    def _on_message(self, process: _Process, header: dict[str, Any], arrays: dict) -> None:
        job = self._running
        if process is not self._process or job is None or header["job"] != job.number:
            return
        if header["type"] == "progress":
            if not job.is_cancelled:
                job.progressed.emit(header["fraction"], header["message"])
            return
        if header["type"] == "report":
            job.reported.emit(header["kind"], header["values"])
            return
        self._finish()
        if header["type"] == "done" and not job.is_cancelled:
            job.done.emit(Reply(header["values"], arrays))
        else:
            job.failed.emit(_exception(header, job.is_cancelled))
        self._next()

    def _on_end(self, process: _Process) -> None:
        if process is not self._process:
            process.close()  # it was released
            return
        self._process = None
        job = self._running
        self._finish()
        if job is not None:
            job.failed.emit(Cancelled("stopped") if job.is_cancelled else process.exit_error())
        process.close()
        self._next()

    def _finish(self) -> None:
        self._grace.stop()
        self._running = None
        if self._process is not None:
            self._process.sources = {}


class _Process:
    """The process, its pipes and the thread that reads them; knows nothing of Qt."""

    def __init__(self, received: Any, ended: Any) -> None:
        # With this process's sys.path, through which a package may have been found
        code = f"import sys; sys.path[:] = {sys.path!r}; "
        code += "from napari_coseg.widgets.background.process import main; main()"
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self.popen = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self.sources: Mapping[str, Any] = {}
        self._writing = threading.Lock()
        self._received, self._ended = received, ended
        self._thread = threading.Thread(
            target=self._serve, name=f"napari-coseg {self.popen.pid}", daemon=True
        )
        self._thread.start()

    def send(self, header: dict[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> None:
        try:
            with self._writing:
                wire.send(self._stream(self.popen.stdin), header, arrays)
        except (OSError, ValueError):
            pass  # it has ended, which the thread reports

    def close(self) -> None:
        """End process and thread before returning. Safe to call again."""
        if self.log.closed:
            return
        self._received = self._ended = _ignore
        self.popen.kill()
        if threading.current_thread() is not self._thread:  # the collector uses any thread
            self._thread.join(timeout=10)
        self.sources = {}  # this object may live on
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            with contextlib.suppress(OSError):  # unsent bytes for a process that has ended
                self._stream(stream).close()
        self.log.close()

    def exit_error(self) -> WorkerDied:
        self.log.seek(0)
        last_output = self.log.read()[-2000:].decode(errors="replace").strip()
        code = self.popen.returncode
        if code < 0:
            return WorkerDied(
                f"The worker process was killed by signal {-code}, most likely because memory ran "
                "out. Close other programs, or process less at once: the current view or a lower "
                "batch size in Segment, fewer or smaller crops in Fine-tune. Nothing in the viewer "
                f"was lost. {last_output}".strip()
            )
        return WorkerDied(
            f"The worker process ended with code {code}. Nothing in the viewer was lost; run "
            f"again, and report this if it happens again. Last output: {last_output or 'none'}"
        )

    def _serve(self) -> None:
        stream = self._stream(self.popen.stdout)
        try:
            while True:
                header, arrays = wire.receive(stream)
                if header["type"] == "read":
                    self._answer(header)
                else:
                    self._received(self, header, arrays)
        except (EOFError, OSError, ValueError):
            pass
        self.popen.wait()
        self._ended(self)

    def _answer(self, header: dict[str, Any]) -> None:
        index = tuple(slice(*part) if isinstance(part, list) else part for part in header["index"])
        try:
            window = np.asarray(self.sources[header["array"]][index])
        except Exception as error:  # noqa: BLE001  a file or a lazy array may raise anything
            self.send({"type": "window", "error": f"{type(error).__name__}: {error}"})
        else:
            self.send({"type": "window"}, {"window": window})

    @staticmethod
    def _stream(stream: IO[bytes] | None) -> IO[bytes]:
        if stream is None:
            raise ValueError("the process was started without this pipe")
        return stream


def _emit(worker: weakref.ref[Worker], signal: str, *values: object) -> None:
    found = worker()
    if found is not None:
        getattr(found, signal).emit(*values)


def _ignore(*_: object) -> None:
    """Replaces the signals of a closed worker."""


def _exception(header: dict[str, Any], is_cancelled: bool) -> Exception:
    if is_cancelled or header.get("kind") == "Cancelled":
        return Cancelled("stopped")
    if header["kind"] == "bug":
        return WorkerBug(header["message"])
    kind = getattr(errors, header["kind"], CosegError)
    return kind(header["message"])
