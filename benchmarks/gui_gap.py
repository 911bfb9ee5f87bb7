"""Time that segmentation blocks the window, in the worker process and in a thread.

    xvfb-run -a python benchmarks/gui_gap.py [--side 2048] [--model default]

A timer of the event loop records its calls; the longest time between two is the longest that a
click would have waited. Prints it for the job in the worker process, for adding its layers (in the
GUI thread) and for the same job in a thread of napari; and the time to cancel.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cases.stub_models import StubModel, disc_picture, spread_discs
from napari_coseg.inference import load_model, segment
from napari_coseg.models.checkpoints import native
from napari_coseg.widgets import outputs
from napari_coseg.widgets.background import tasks
from napari_coseg.widgets.segment import SegmentWidget


class Gaps:
    """Times between calls of a timer of 2 ms."""

    def __init__(self) -> None:
        self._calls: list[float] = []
        self._timer = QTimer()
        self._timer.timeout.connect(lambda: self._calls.append(time.perf_counter()))
        self._timer.start(2)

    def ms(self, begin: float, end: float) -> np.ndarray:
        inside = [call for call in self._calls if begin <= call <= end]
        return np.diff([begin, *inside, end]) * 1000


def wait(until: Callable[[], bool]) -> None:
    application = QApplication.instance()
    while not until():
        application.processEvents()
        time.sleep(0.0005)


def rest(seconds: float) -> None:
    end = time.perf_counter() + seconds
    wait(lambda: time.perf_counter() > end)


def report(name: str, gaps: np.ndarray) -> None:
    over = int((gaps > 100).sum())
    seconds = gaps.sum() / 1000
    print(f"{name:<34} {seconds:7.1f} s   longest gap {gaps.max():6.0f} ms   over 100 ms: {over}")


def in_a_thread(gaps: Gaps, image: np.ndarray, weights: str) -> None:
    model = StubModel() if weights != "default" else load_model()
    segment(image[:128, :128], model)  # imports are not part of the comparison
    begin = time.perf_counter()
    thread = threading.Thread(target=segment, args=(image, model))
    thread.start()
    wait(lambda: not thread.is_alive())
    report("the same job in a thread", gaps.ms(begin, time.perf_counter()))


def in_the_process(gaps: Gaps, viewer: napari.Viewer, weights: str) -> None:
    widget = SegmentWidget(viewer)
    if weights != "default":
        tasks.SEGMENT = "cases.worker_jobs:segment_discs"
        widget.model.choose_file(weights)
    times: dict[str, float] = {}
    add = outputs.add_prediction

    def add_and_note(*arguments: object, **keywords: object) -> object:
        times["add"] = time.perf_counter()
        found = add(*arguments, **keywords)
        times["added"] = time.perf_counter()
        return found

    outputs.add_prediction = add_and_note
    for run in ("first run, imports torch", "second run, warm"):
        times.clear()
        begin = time.perf_counter()
        widget.run()
        wait(lambda: not widget.bar.is_busy)
        if "added" not in times:
            raise SystemExit("the run failed; see above")
        rest(0.5)
        report(run, gaps.ms(begin, times["add"]))
        report("  adding the layers", gaps.ms(times["add"], times["added"] + 0.5))
    cancelled_after = []
    for _ in range(3):
        widget.run()
        wait(lambda: widget.bar.progress.value() > 0)
        begin = time.perf_counter()
        widget.bar.cancel_button.click()
        wait(lambda: not widget.bar.is_busy)
        cancelled_after.append(time.perf_counter() - begin)
    print(f"longest time to cancel: {max(cancelled_after):.2f} s")
    objects = viewer.layers[-1]
    print(f"objects: {len(objects.features)}")
    widget.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048, help="of the image, in pixels")
    parser.add_argument("--model", choices=("discs", "default"), default="discs")
    chosen = parser.parse_args()
    shape = (chosen.side, chosen.side)
    tile = (256, 256)
    picture, _ = disc_picture(tile, spread_discs(tile), tissue=(slice(0, 200), slice(0, 200)))
    image = np.tile(picture, (shape[0] // 256, shape[1] // 256, 1))
    with TemporaryDirectory() as folder:
        weights = "default"
        if chosen.model == "discs":
            weights = str(Path(folder) / "discs.safetensors")
            native.save(weights, StubModel())
        viewer = napari.Viewer(show=True)
        viewer.add_image(image, name="image")
        rest(2)
        gaps = Gaps()
        in_the_process(gaps, viewer, weights)
        in_a_thread(gaps, image, weights)
        viewer.close()


if __name__ == "__main__":
    main()
