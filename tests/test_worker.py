"""The worker process: requests, replies, and that nothing stays behind."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import dask.array as da
import numpy as np
import psutil
import pytest
import zarr

from napari_coseg.core.errors import Cancelled, ImageError
from napari_coseg.widgets.background import wire
from napari_coseg.widgets.background.process import Reply
from napari_coseg.widgets.background.worker import Job, Worker, WorkerBug, WorkerDied

TIMEOUT_MS = 120_000


@pytest.fixture(scope="module")
def worker(qapp: Any) -> Iterator[Worker]:
    """Shared, since a process takes a moment to start; it starts again where a test ends it."""
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def fresh_worker(qapp: Any) -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture
def outcome(qtbot: Any) -> Callable[[Job], Reply | Exception]:
    """Waits for what a job gives, or fails with."""

    def wait(job: Job) -> Reply | Exception:
        results: list[Reply | Exception] = []
        job.done.connect(results.append)
        job.failed.connect(results.append)
        qtbot.waitUntil(lambda: bool(results), timeout=TIMEOUT_MS)
        return results[0]

    return wait


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---------------------------------------------------------------------------------------------
# Messages


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(6).reshape(2, 3), id="int64"),
        pytest.param(np.zeros((0, 4), np.float32), id="empty"),
        pytest.param(np.array([True, False]), id="bool"),
        pytest.param(np.arange(12.0).reshape(3, 4).T, id="not contiguous"),
        pytest.param(np.arange(5, dtype=">u2"), id="big endian"),
        pytest.param(np.float16([np.nan, np.inf]), id="half precision"),
    ],
)
def test_an_array_crosses_unchanged(array: np.ndarray) -> None:
    stream = io.BytesIO()
    wire.send(stream, {"type": "window"}, {"window": array})
    stream.seek(0)
    header, arrays = wire.receive(stream)
    assert header == {"type": "window"}
    assert arrays["window"].dtype == array.dtype
    np.testing.assert_array_equal(arrays["window"], array)


@pytest.mark.parametrize("cut", [0, 3, 20, -1], ids=["nothing", "length", "header", "array"])
def test_a_message_cut_short_is_an_end(cut: int) -> None:
    stream = io.BytesIO()
    wire.send(stream, {"type": "window"}, {"window": np.arange(10)})
    with pytest.raises(EOFError):
        wire.receive(io.BytesIO(stream.getvalue()[:cut]))


# ---------------------------------------------------------------------------------------------
# Jobs


def test_one_process_serves_many_jobs_in_order(worker: Worker, qtbot: Any) -> None:
    replies: list[Reply] = []
    for n in (2, 3):
        worker.submit("cases.worker_jobs:add", {"a": 1, "b": n}).done.connect(replies.append)
    qtbot.waitUntil(lambda: len(replies) == 2, timeout=TIMEOUT_MS)
    assert [reply.values["sum"] for reply in replies] == [3, 4]
    assert {reply.values["pid"] for reply in replies} == {worker.pid}
    assert worker.pid != os.getpid()


def test_what_a_job_keeps_the_next_one_finds(fresh_worker: Worker, outcome: Callable) -> None:
    calls = [
        outcome(fresh_worker.submit("cases.worker_jobs:count_calls")).values["calls"]
        for _ in range(2)
    ]
    assert calls == [1, 2]


def test_the_process_knows_neither_napari_nor_qt(worker: Worker, outcome: Callable) -> None:
    modules = outcome(worker.submit("cases.worker_jobs:modules")).values["modules"]
    assert not {"napari", "qtpy", "torch"} & set(modules)


PIXELS = np.arange(7 * 5 * 3, dtype=np.uint16).reshape(7, 5, 3)


class Unpicklable:
    """As an open HDF5 dataset: has a shape and a type, gives windows, cannot be sent away."""

    shape, dtype = PIXELS.shape, PIXELS.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        return PIXELS[index]

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(PIXELS, id="numpy"),
        pytest.param(da.from_array(PIXELS, chunks=2), id="dask"),
        pytest.param(zarr.array(PIXELS, chunks=(2, 5, 3)), id="zarr"),
        pytest.param(Unpicklable(), id="any other array"),
    ],
)
@pytest.mark.parametrize("whole_bytes", [0, 2**20], ids=["in windows", "at once"])
def test_an_image_is_read(worker: Worker, outcome: Callable, image: Any, whole_bytes: int) -> None:
    arguments = {"whole_bytes": whole_bytes}
    reply = outcome(worker.submit("cases.worker_jobs:halves", arguments, {"image": image}))
    assert reply.values["shape"] == [7, 5, 3]
    np.testing.assert_array_equal(reply.arrays["doubled"], PIXELS * 2)
    np.testing.assert_array_equal(reply.arrays["last"], PIXELS[-1])


def test_progress_arrives_in_the_gui_thread(worker: Worker, qtbot: Any) -> None:
    job = worker.submit("cases.worker_jobs:halves", arrays={"image": PIXELS})
    received = []
    job.progressed.connect(lambda *what: received.append((*what, threading.current_thread())))
    with qtbot.waitSignal(job.done, timeout=TIMEOUT_MS):
        pass
    assert received == [(1.0, "both halves read", threading.main_thread())]


class Broken:
    shape, dtype = (4, 4), np.dtype(np.uint8)

    def __getitem__(self, index: Any) -> np.ndarray:
        raise OSError("the file is gone")


@pytest.mark.parametrize(
    ("function", "arguments", "image", "kind", "message"),
    [
        ("fail", {"kind": "image"}, PIXELS, ImageError, "open another"),
        ("fail", {"kind": "bug"}, PIXELS, WorkerBug, "ZeroDivisionError"),
        ("no_such_function", {}, PIXELS, WorkerBug, "AttributeError"),
        ("halves", {}, Broken(), ImageError, "could not be read: OSError: the file is gone"),
        ("die", {}, PIXELS, WorkerDied, "memory ran out"),
        ("give_up", {}, PIXELS, WorkerDied, "(?s)code 3.*the library could not be loaded"),
    ],
    ids=["expected", "bug", "unknown function", "unreadable image", "killed", "gave up"],
)
def test_errors_in_the_process_are_reported(
    worker: Worker,
    outcome: Callable,
    function: str,
    arguments: dict,
    image: Any,
    kind: type[Exception],
    message: str,
) -> None:
    error = outcome(worker.submit(f"cases.worker_jobs:{function}", arguments, {"image": image}))
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
    again = outcome(worker.submit("cases.worker_jobs:add", {"a": 1, "b": 1}))
    assert again.values["sum"] == 2


# ---------------------------------------------------------------------------------------------
# Stopping


@pytest.mark.parametrize("polite", [True, False], ids=["listens", "must be ended"])
def test_cancel(worker: Worker, qtbot: Any, outcome: Callable, polite: bool) -> None:
    job = worker.submit("cases.worker_jobs:slow", {"polite": polite})
    with qtbot.waitSignal(job.progressed, timeout=TIMEOUT_MS):
        pass
    pid = worker.pid
    with qtbot.waitSignal(job.failed, timeout=TIMEOUT_MS) as failed:
        job.cancel()
    assert isinstance(failed.args[0], Cancelled)
    after = outcome(worker.submit("cases.worker_jobs:add", {"a": 1, "b": 1}))
    assert (after.values["pid"] == pid) is polite


def test_cancel_of_a_job_that_waits(worker: Worker, qtbot: Any) -> None:
    running = worker.submit("cases.worker_jobs:slow")
    waiting = worker.submit("cases.worker_jobs:add", {"a": 1, "b": 1})
    with qtbot.waitSignal(waiting.failed, timeout=TIMEOUT_MS) as failed:
        waiting.cancel()
    assert isinstance(failed.args[0], Cancelled)
    assert not running.is_cancelled
    with qtbot.waitSignal(running.failed, timeout=TIMEOUT_MS):
        running.cancel()


@pytest.mark.parametrize("busy", [True, False], ids=["while it works", "idle"])
def test_close_leaves_nothing_behind(fresh_worker: Worker, qtbot: Any, busy: bool) -> None:
    """But a word to those who wait for what was running or waiting."""
    job = fresh_worker.submit(
        "cases.worker_jobs:slow" if busy else "cases.worker_jobs:halves", arrays={"image": PIXELS}
    )
    with qtbot.waitSignal(job.progressed, timeout=TIMEOUT_MS):
        pass
    pid, outcomes = fresh_worker.pid, []
    jobs = [job, *([fresh_worker.submit("cases.worker_jobs:slow")] if busy else [])]
    for one in jobs:
        one.failed.connect(outcomes.append)
    if not busy:
        qtbot.waitUntil(lambda: fresh_worker.is_idle, timeout=TIMEOUT_MS)
    fresh_worker.close()
    assert not is_alive(pid)
    assert f"napari-coseg {pid}" not in [thread.name for thread in threading.enumerate()]
    qtbot.wait(50)
    assert [type(error) for error in outcomes] == ([Cancelled, Cancelled] if busy else [])
    assert fresh_worker.is_idle


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_arrays_are_let_go_with_the_process_that_ended(
    fresh_worker: Worker, qtbot: Any, how: str
) -> None:
    class Pixels(np.ndarray):
        """An array that can be watched."""

    pixels = np.zeros((4, 4)).view(Pixels)
    watched = weakref.ref(pixels)
    arguments, arrays = {"polite": False}, {"image": pixels}
    job = fresh_worker.submit("cases.worker_jobs:slow", arguments, arrays)
    del pixels, arrays
    with qtbot.waitSignal(job.progressed, timeout=TIMEOUT_MS):
        pass
    with qtbot.waitSignal(job.failed, timeout=TIMEOUT_MS):
        fresh_worker.close() if how == "closed" else job.cancel()
    gc.collect()
    assert watched() is None


def test_a_worker_that_nobody_closes_ends_with_its_last_reference(qtbot: Any) -> None:
    worker = Worker()
    job = worker.submit("cases.worker_jobs:halves", arrays={"image": PIXELS})
    with qtbot.waitSignal(job.done, timeout=TIMEOUT_MS):
        pass
    pid = worker.pid
    del worker, job
    gc.collect()
    assert not is_alive(pid)


ORPHAN = """
import sys, time
from qtpy.QtCore import QCoreApplication
from napari_coseg.widgets.background.worker import Worker
app = QCoreApplication([])
worker = Worker()
job = worker.submit("cases.worker_jobs:slow")
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_the_process_ends_when_napari_is_killed() -> None:
    here = os.path.dirname(__file__)
    code = f"import sys; sys.path.insert(0, {here!r})\n{ORPHAN}"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_events_all_arrive_and_a_job_is_paused(worker: Worker, outcome: Any) -> None:
    job = worker.submit("cases.worker_jobs:heed_pause")
    received: list[int] = []

    def receive(kind: str, values: dict[str, int]) -> None:
        received.append(values["number"])
        job.pause(values["number"] == 1)

    job.reported.connect(receive)
    assert outcome(job).values == {"done": True}
    assert received == [1, 2, 3]
