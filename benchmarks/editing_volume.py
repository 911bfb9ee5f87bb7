"""Time and memory of corrections on 512 x 512 x 400 voxels with 32 teeth; the limit is 1 s.

    python benchmarks/editing_volume.py

Prints CPU seconds and the peak memory of making an editor of the labels, as Correct does at its
start, then the CPU seconds of computing and applying each edit, and of reverting it.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np

from napari_coseg.labels.editing.changes import change_pixels
from napari_coseg.labels.editing.drawing import Plane, ids_inside_polygon, ids_under_stroke
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.interpolate import interpolate
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import delete, fill_holes, merge, set_class, smooth
from napari_coseg.labels.editing.split import split_along, split_at

SHAPE = (400, 512, 512)
SPACING_UM = (300.0, 300.0, 300.0)
LIMIT_S, START_LIMIT_S, PEAK_LIMIT_GIB = 1.0, 5.0, 3.0
TEETH = 32
TOOTH_PX = (40, 13, 11)
"""Half axes z, y, x."""


def teeth() -> np.ndarray:
    """int32: ellipsoids with a pulp, along two arches; each stands alone."""
    labels = np.zeros(SHAPE, np.int32)
    for number in range(TEETH):
        angle = np.pi * (number % 16 + 0.5) / 16
        centre = (
            150 + 100 * (number // 16),
            round(380 - 200 * np.sin(angle)),
            round(256 + 170 * np.cos(angle)),
        )
        box = tuple(slice(at - r, at + r + 1) for at, r in zip(centre, TOOTH_PX, strict=True))
        grid = np.ogrid[tuple(slice(-r, r + 1) for r in TOOTH_PX)]
        depth = sum((axis / r) ** 2 for axis, r in zip(grid, TOOTH_PX, strict=True))
        labels[box][(depth <= 1) & (depth > 0.05)] = number + 1
    return labels


def actions_on(editor: LabelEditor) -> dict[str, Callable[[], Edit]]:
    """Every edit, on the first teeth, seen in each of the three views where it is drawn."""
    rows = editor.rows([1, 2])
    one, _ = rows[[f"centroid_{axis}" for axis in "zyx"]].to_numpy()
    found: dict[str, Callable[[], Edit]] = {}
    for axis, view in enumerate(("axial", "coronal", "sagittal")):
        plane = Plane(axis, round(one[axis]))
        here = np.delete(one, axis)
        line = here + 60 * np.array([(0, -1), (0, 1)])
        ring = here + 60 * np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])

        def stroke(plane: Plane = plane, ends: np.ndarray = line) -> Edit:
            return merge(editor, {*ids_under_stroke(editor, ends, 5, plane), 2, 3})

        found |= {
            f"merge under a stroke, {view}": stroke,
            f"split along a line, {view}": lambda p=plane, at=line: split_along(
                editor, at, plane=p
            ),
            f"class by lasso, {view}": lambda p=plane, at=ring: set_class(
                editor, {*ids_inside_polygon(editor, at, plane=p), 1}, 0
            ),
        }
    top, low = one + np.array([(-20, 4, 0), (20, 4, 0)])
    return found | {
        "merge two": lambda: merge(editor, [1, 2]),
        "merge all": lambda: merge(editor, editor.index.ids.tolist()),
        "split by two clicks": lambda: split_at(editor, [top, low]),
        "delete one": lambda: delete(editor, [1]),
        "delete all": lambda: delete(editor, editor.index.ids.tolist()),
        "fill holes": lambda: fill_holes(editor, [1]),
        "smooth (median, 2 px)": lambda: smooth(editor, [1], 2),
        "smooth (open, 5 px)": lambda: smooth(editor, [1], 5, "open"),
    }


def print_times(name: str, editor: LabelEditor, action: Callable[[], Edit]) -> None:
    """Make an edit, apply it and revert it."""
    start = time.process_time()
    edit = action()
    editor.apply(edit)
    made = time.process_time() - start
    undone, _ = cpu_s(lambda: editor.revert(edit))
    mark = "" if max(made, undone) < LIMIT_S else "  over"
    print(f"{name:34}{made:8.2f}{undone:8.2f}{len(edit.new_values):12,}{mark}", flush=True)


def print_interpolation(view: str, editor: LabelEditor, axis: int) -> None:
    """Interpolate over a third of tooth 1 that was rubbed out, and restore it."""
    part = editor.index.box(1)[axis]
    third = (part.stop - part.start) // 3
    pixels, _ = editor.pixels([1])
    inner = (pixels[axis] >= part.start + third) & (pixels[axis] < part.stop - third)
    gap = change_pixels(editor, "Rub out", tuple(at[inner] for at in pixels), 0)
    editor.apply(gap)
    print_times(f"interpolate, {view}", editor, lambda: interpolate(editor, [1], axis))
    editor.revert(gap)


def cpu_s(function: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    made = function()
    return time.process_time() - start, made


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    labels = teeth()
    print(f"{SHAPE} voxels, {TEETH} teeth, {np.count_nonzero(labels):,} voxels of teeth")
    print(f"labels alone: peak {peak_gib():.2f} GiB")
    seconds, editor = cpu_s(lambda: LabelEditor.of_labels(labels, SPACING_UM))
    assert isinstance(editor, LabelEditor)
    print(
        f"an editor of them: {seconds:.2f} s of CPU (limit {START_LIMIT_S:.0f} s), "
        f"peak {peak_gib():.2f} GiB (limit {PEAK_LIMIT_GIB:.0f} GiB)"
    )
    print(f"{'CPU s':34}{'made':>8}{'undone':>8}{'voxels':>12}")
    for name, action in actions_on(editor).items():
        print_times(name, editor, action)
    for axis, view in enumerate(("axial", "coronal", "sagittal")):
        print_interpolation(view, editor, axis)
    print(f"peak {peak_gib():.2f} GiB")


if __name__ == "__main__":
    main()
