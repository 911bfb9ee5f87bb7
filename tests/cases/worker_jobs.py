"""Jobs for tests of the worker process; run over there, so they stand in a module of their own."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from napari_coseg.core.errors import Cancelled, ImageError
from napari_coseg.widgets.background import process
from napari_coseg.widgets.background.process import JobContext, Reply


def add(job: JobContext, a: int, b: int) -> Reply:
    print("what a job prints must not reach the pipe")
    return Reply({"sum": a + b, "pid": os.getpid()})


def halves(job: JobContext, whole_bytes: int = process.WHOLE_BYTES) -> Reply:
    """Reads its array in two windows and gives both back, doubled."""
    process.WHOLE_BYTES = whole_bytes
    array = job.arrays["image"]
    middle = array.shape[0] // 2
    parts = [array[:middle], array[middle:]]
    job.progress(1.0, "both halves read")
    doubled = np.concatenate(parts) * 2
    return Reply({"shape": list(array.shape)}, {"doubled": doubled, "last": array[-1]})


def count_calls(job: JobContext) -> Reply:
    job.kept["calls"] = job.kept.get("calls", 0) + 1
    return Reply({"calls": job.kept["calls"]})


def modules(job: JobContext) -> Reply:
    return Reply({"modules": sorted(sys.modules)})


def fail(job: JobContext, kind: str) -> Reply:
    if kind == "image":
        raise ImageError("the image is empty; open another")
    return Reply({"never": 1 // 0})


def slow(job: JobContext, polite: bool = True) -> Reply:
    """Works for a minute; looks at `should_cancel` if it is polite."""
    for step in range(6000):
        job.progress(step / 6000, "working")
        time.sleep(0.01)
        if polite and job.should_cancel():
            raise Cancelled("as asked")
    return Reply()


def heed_pause(job: JobContext) -> Reply:
    """Reports three events, and waits in between to be paused and resumed."""
    job.report("event", {"number": 1})
    while not job.should_pause():
        time.sleep(0.01)
    job.report("event", {"number": 2})
    while job.should_pause():
        time.sleep(0.01)
    job.report("event", {"number": 3})
    return Reply({"done": True})


def die(job: JobContext) -> Reply:
    os.kill(os.getpid(), signal.SIGKILL)
    return Reply()


def give_up(job: JobContext) -> Reply:
    sys.stderr.write("the library could not be loaded\n")
    sys.stderr.flush()
    os._exit(3)


def segment_discs(job: JobContext, **arguments: object) -> Reply:
    """The widget's own job, in a process that also knows the stub model."""
    from napari_coseg.models.registry import FAMILIES
    from napari_coseg.widgets.background import tasks

    FAMILIES["stub"] = "cases.stub_models:StubModel"
    return tasks.segment(job, **arguments)


def segment_crossed(job: JobContext, **arguments: object) -> Reply:
    """The same with a stub in which each task listens to the other's mask."""
    from napari_coseg.models.registry import FAMILIES
    from napari_coseg.widgets.background import tasks

    FAMILIES["stub"] = "cases.stub_models:CrossedModel"
    return tasks.segment(job, **arguments)


def forget(job: JobContext) -> Reply:
    """As if the process had been restarted."""
    job.kept.clear()
    return Reply()


def hold_the_lock(job: JobContext, **_: object) -> Reply:
    """Two seconds of plain Python that never lets another thread in."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(100)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        pass
    sys.setswitchinterval(before)
    return Reply()


def slow_segment(job: JobContext, **_: object) -> Reply:
    return slow(job)


def rude_segment(job: JobContext, **_: object) -> Reply:
    return slow(job, polite=False)


def dying_segment(job: JobContext, **_: object) -> Reply:
    return die(job)


def buggy_segment(job: JobContext, **_: object) -> Reply:
    return fail(job, "bug")
