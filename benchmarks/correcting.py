"""Time that a correction blocks the window, on 4,096 x 4,096 pixels with 11,000 objects.

    xvfb-run -a python benchmarks/correcting.py

Each action runs in the Correct widget with an open window, several times on different objects, and
is undone and redone. Prints CPU milliseconds until the call returns (with labels, table, features,
colours and the first part of the canvas updated), and of the longest of the pieces in which the
event loop draws the rest. The limit is 50 ms. The last column is the ratio of napari's own refresh
of the layer, measured in the same run.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from editing import CLASSES, LIMIT_MS, SIZE_PX, cpu_ms, ellipse, synthetic_editor

from napari_coseg.core.errors import EditError
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.widgets import outputs
from napari_coseg.widgets.correct import refresh as correct_refresh
from napari_coseg.widgets.correct.gesture import Gesture
from napari_coseg.widgets.correct.interaction import Interaction
from napari_coseg.widgets.correct.session import CorrectionSession

Call = Callable[[np.random.Generator], None]


def gesture(points: Any, *, click: bool = False) -> Gesture:
    return Gesture(np.atleast_2d(np.asarray(points, float)), None, click)


def actions_on(work: Interaction) -> dict[str, Call]:
    """Every action of the widget, with random arguments."""
    corrector, editor = work.corrector, work.session.editor
    holed = with_holes(work)
    corrector.region_class = 2  # existing regions have class 1

    def one(rng: np.random.Generator) -> int:
        return int(rng.choice(editor.index.ids))

    def place(rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(600, SIZE_PX - 600, 2)

    def stroke(rng: np.random.Generator, length_px: float) -> None:
        start = place(rng)
        corrector.merge(gesture([start, start + length_px]))

    def cut(rng: np.random.Generator) -> None:
        rows, columns = editor.index.box(one(rng))
        y = (rows.start + rows.stop) / 2
        corrector.split(gesture([(y, columns.start - 1), (y, columns.stop)]))

    def clicks(rng: np.random.Generator) -> None:
        pixels = np.stack(editor.pixels([one(rng)])[0], axis=1)
        for pixel in pixels[rng.choice(len(pixels), 2, replace=False)]:
            corrector.split(gesture(pixel, click=True))

    def brush(rng: np.random.Generator) -> None:
        layer = work.session.objects
        layer.brush_size, layer.preserve_labels = 10, True
        start = place(rng)
        with layer.block_history():
            for step in range(20):
                layer.paint(start + 2 * step, editor.free_ids(1)[0], refresh=False)
            layer._partial_labels_refresh()

    def marked(rng: np.random.Generator, count: int) -> None:
        corrector.review(rng.choice(editor.index.ids, count, replace=False).tolist())

    def on_region(rng: np.random.Generator) -> np.ndarray:
        while True:
            pixel = rng.integers(0, SIZE_PX, 2)
            if editor.regions is not None and editor.regions[tuple(pixel)]:
                return pixel

    return {
        "select by click": lambda rng: work.display.select([one(rng)]),
        "select by lasso of 1,000 px": lambda rng: corrector.select(
            gesture(ellipse(place(rng), 500))
        ),
        "merge under a stroke of 60 px": lambda rng: stroke(rng, 42),
        "merge under a stroke of 600 px": lambda rng: stroke(rng, 424),
        "merge two far apart": lambda rng: corrector.merge_ids([one(rng), one(rng)]),
        "split along a line": cut,
        "split by two clicks": clicks,
        "add an outline of 60 px": lambda rng: corrector.add(gesture(ellipse(place(rng), 30))),
        "brush a stroke of 40 px": brush,
        "delete one": lambda rng: corrector.delete([one(rng)]),
        "fill holes of one": lambda rng: corrector.fill([int(rng.choice(holed))]),
        "smooth one": lambda rng: corrector.smooth([one(rng)]),
        "class of one": lambda rng: corrector.set_class([one(rng)], int(rng.integers(1, 3))),
        "class by lasso of 1,000 px": lambda rng: corrector.classify(
            gesture(ellipse(place(rng), 500))
        ),
        "class of all": lambda rng: corrector.set_class(editor.index.ids.tolist(), 2),
        "region by lasso of 300 px": lambda rng: corrector.outline_region(
            gesture(ellipse(place(rng), 150))
        ),
        "region by lasso of 1,000 px": lambda rng: corrector.outline_region(
            gesture(ellipse(place(rng), 500))
        ),
        "region by bucket": lambda rng: corrector.fill_region(gesture(on_region(rng), click=True)),
        "review one": lambda rng: marked(rng, 1),
        "review 500 scattered objects": lambda rng: marked(rng, 500),
        "review an area of 1,000 px": lambda rng: corrector.review_area(
            gesture(ellipse(place(rng), 500))
        ),
        "next doubtful": lambda rng: work.go(),
    }


def with_holes(work: Interaction) -> list[int]:
    """Erase a pixel in every 50th object; returns their ids."""
    editor, found, pixels = work.session.editor, [], []
    for object_id in editor.index.ids[::50].tolist():
        rows, columns = editor.index.box(object_id)
        y, x = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
        if (editor.labels[y - 1 : y + 2, x - 1 : x + 2] == object_id).all():
            found.append(object_id)
            pixels.append((y, x))
    work.session.objects.data_setitem(tuple(np.array(pixels).T), 0)
    return found


class Pieces:
    """Times of pieces drawn by the event loop."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        drawn = correct_refresh.Refresher._draw_some

        def timed(refresher: Any) -> None:
            self.ms.append(cpu_ms(lambda: drawn(refresher)))

        correct_refresh.Refresher._draw_some = timed  # type: ignore[method-assign]

    def rest(self, work: Interaction) -> float:
        """Let the event loop draw everything; returns the longest piece in ms."""
        self.ms.clear()
        application = QApplication.instance()
        while not work.display.refresher.is_done:
            application.processEvents()
        return max(self.ms, default=0.0)


def timed(work: Interaction, call: Call, pieces: Pieces, repeats: int) -> dict[str, list[float]]:
    rng = np.random.default_rng(3)
    found: dict[str, list[float]] = {"made": [], "undone": [], "redone": [], "piece": []}
    tries = 0
    while len(found["made"]) < repeats and tries < 40 * repeats:
        tries += 1
        gc.collect()
        before = work.session.last_step
        start = time.process_time()
        try:
            call(rng)
        except EditError:  # for example no object under the stroke
            continue
        found["made"].append(1000 * (time.process_time() - start))
        found["piece"].append(pieces.rest(work))
        if work.session.last_step is before:  # a selection, not a step
            continue
        found["undone"].append(cpu_ms(work.session.undo))
        found["piece"].append(pieces.rest(work))
        found["redone"].append(cpu_ms(work.session.redo))
        found["piece"].append(pieces.rest(work))
        work.session.undo()
        pieces.rest(work)
    return found


def layers_of(viewer: napari.Viewer, editor: LabelEditor) -> tuple[Any, Any]:
    regions = viewer.add_labels(
        editor.regions, opacity=0.35, colormap=outputs.region_colormap(editor.region_classes)
    )
    objects = viewer.add_labels(editor.labels, features=outputs.object_features(editor.table))
    objects.contour = outputs.OUTLINE_PX
    objects.colormap = outputs.object_colormap(
        "class", editor.table["id"], editor.table["class"], CLASSES
    )
    return objects, regions


def settle(seconds: float = 3.0) -> None:
    """Let the window draw itself: until then napari has no canvas to draw a part of."""
    application, end = QApplication.instance(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        application.processEvents()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=8, help="of each action")
    repeats = parser.parse_args().repeats
    viewer = napari.Viewer(show=True)
    editor = synthetic_editor()
    objects, regions = layers_of(viewer, editor)
    start = time.perf_counter()
    work = Interaction(viewer, CorrectionSession(objects, regions, editor))
    print(f"{SIZE_PX:,} x {SIZE_PX:,} px, {len(editor.index):,} objects; limit {LIMIT_MS} ms")
    print(f"starting a session: {time.perf_counter() - start:.2f} s")
    settle()
    refresh = float(np.median([cpu_ms(objects.refresh) for _ in range(3)]))
    pieces = Pieces()
    print(f"{'CPU ms':34}{'made':>7}{'worst':>7}{'undo':>7}{'redo':>7}{'piece':>7}{'refresh':>10}")
    for name, call in actions_on(work).items():
        found = timed(work, call, pieces, repeats)
        if not found["made"]:
            print(f"{name:34} could not be done")
            continue
        worst = {key: max(values, default=0.0) for key, values in found.items()}
        mark = "" if max(worst.values()) < LIMIT_MS else "  over"
        median = float(np.median(found["made"]))
        print(
            f"{name:34}{median:7.1f}{worst['made']:7.1f}{worst['undone']:7.1f}"
            f"{worst['redone']:7.1f}{worst['piece']:7.1f}{refresh / median:8.0f} x{mark}",
            flush=True,
        )
    print(f"napari's own refresh of the objects: {refresh:.0f} ms")
    work.close()
    viewer.close()


if __name__ == "__main__":
    main()
