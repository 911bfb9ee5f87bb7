"""Cost of keeping corrections in a workspace, for 4,096 x 4,096 pixels with 11,000 objects.

    QT_QPA_PLATFORM=offscreen python benchmarks/keeping.py

Prints CPU milliseconds in the window's thread, bytes on disk, and the longest gap between events
while a thread saves, compared with the longest when idle: on a busy machine both are long.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from editing import synthetic_editor
from napari.components import ViewerModel
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_coseg.labels.editing.objects import delete
from napari_coseg.widgets import outputs
from napari_coseg.widgets.workspace import link as workspace_link
from napari_coseg.widgets.workspace.controller import controller_of
from napari_coseg.workspace.folder import open_workspace

EDITS = 200


class Gaps:
    """Longest time between two calls of an event loop timer."""

    def __init__(self) -> None:
        self.longest = self._last = 0.0
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(2)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def during(self, is_over: Callable[[], bool]) -> float:
        """Run the event loop until `is_over`; returns the longest gap in milliseconds."""
        self.longest, self._last = 0.0, time.perf_counter()
        while not is_over():
            QApplication.processEvents()
            time.sleep(0.0005)
        return 1000 * self.longest


def cpu_ms(work: Callable[[], Any]) -> float:
    start = time.thread_time()
    work()
    return 1000 * (time.thread_time() - start)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(folder: Path) -> None:
    application = QApplication([])
    workspace_link.SCAN_MS = 10**9  # scan on request only, not by timer
    editor, viewer, gaps = synthetic_editor(), ViewerModel(), Gaps()
    image = viewer.add_image(np.zeros(editor.labels.shape, np.uint8), name="image")
    regions, objects = outputs.add_prediction(viewer, image, "YX", editor.prediction)
    controller = controller_of(viewer)
    until = time.perf_counter() + 3
    print(f"longest gap, idle        {gaps.during(lambda: time.perf_counter() > until):8.0f} ms")
    controller.create(folder / "w.coseg")
    gaps.during(lambda: not controller.busy)
    controller.add(image, objects, regions)
    print(f"longest gap, adding      {gaps.during(lambda: not controller.busy):8.0f} ms")
    print(f"bytes, added             {folder_bytes(folder):8,}")
    (link,) = controller.links.values()
    writer = link.writer
    edits = []
    for one in editor.index.ids[:EDITS].tolist():
        edits.append(delete(editor, [one]))
        editor.apply(edits[-1])
    recording = cpu_ms(lambda: [writer.record_edit(edit) for edit in edits])
    gap = gaps.during(lambda: not writer.state.waiting)
    print(f"recording an edit        {recording / EDITS:8.3f} ms")
    print(f"longest gap, writing     {gap:8.0f} ms")
    journal = sum(path.stat().st_size for path in folder.rglob("journal-*"))
    print(f"bytes per edit           {journal // EDITS:8,}")
    scanning = cpu_ms(lambda: link._look({t: one.data for t, one in link.layers.items()}))
    link.scan()
    gap = gaps.during(lambda: not (link.is_scanning or writer.state.waiting))
    print(f"scanning all pixels      {scanning:8.0f} ms (in a thread)")
    print(f"longest gap, scanning    {gap:8.0f} ms")
    controller.close()
    gap = gaps.during(lambda: controller.workspace is None and not controller.busy)
    print(f"longest gap, closing     {gap:8.0f} ms")
    (entry,) = open_workspace(folder / "w.coseg").entries
    print(f"loading                  {cpu_ms(entry.load):8.0f} ms")
    application.quit()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(Path(place))
