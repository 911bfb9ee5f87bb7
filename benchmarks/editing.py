"""Time of every edit on 4,096 x 4,096 pixels with 11,000 objects; the limit is 50 ms.

    python benchmarks/editing.py

Each edit is computed, applied and reverted several times on different objects. Prints CPU
milliseconds of computing and applying together, and of reverting. Garbage is collected between
edits; the time of a full collection is printed.

Then touching nuclei are merged and split again by two clicks, and compared with a watershed on the
distance to the outline with the clicks as markers.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import numpy as np
from measuring import NUCLEI_AT_4096
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import watershed

from cases.synthetic import nuclei
from napari_coseg.core.errors import EditError
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
from napari_coseg.labels.editing.add import grow
from napari_coseg.labels.editing.drawing import ids_inside_polygon, ids_under_stroke, polygon_pixels
from napari_coseg.labels.editing.edit import Edit
from napari_coseg.labels.editing.index import ObjectIndex
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.editing.objects import (
    add_polygon,
    delete,
    fill_holes,
    merge,
    set_class,
    smooth,
)
from napari_coseg.labels.editing.regions import clean_regions, fill_region, set_region
from napari_coseg.labels.editing.rerun import merge_prediction
from napari_coseg.labels.editing.review import Reviewed, doubtful_first
from napari_coseg.labels.editing.split import split_along, split_at

SIZE_PX = 4096
LIMIT_MS = 50
REPEATS = 15
CLASSES = (LabelClass(1, "a", (255, 0, 0)), LabelClass(2, "b", (0, 255, 0)))

Action = Callable[[np.random.Generator], Edit]


def ellipse(centre: np.ndarray, radius_px: float, corners: int = 200) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    wobble = radius_px * (1 + 0.2 * np.sin(5 * angle))
    return centre + np.stack([wobble * np.sin(angle), wobble * np.cos(angle)], axis=1)


def synthetic_editor() -> LabelEditor:
    labels = nuclei(SIZE_PX, NUCLEI_AT_4096, radius_px=(5, 22))
    rng = np.random.default_rng(0)
    regions = np.zeros(labels.shape, np.uint8)
    for centre in rng.uniform(0, SIZE_PX, (40, 2)):
        regions[polygon_pixels(ellipse(centre, rng.uniform(80, 250)), regions.shape)] = 1
    regions[rng.random(labels.shape) > 0.9999] ^= 1  # specks and holes
    editor = LabelEditor.of_labels(
        labels, (0.25, 0.25), regions, classes=CLASSES, region_classes=CLASSES
    )
    editor.apply(set_class(editor, editor.index.ids, 1))
    return editor


def actions_on(editor: LabelEditor) -> dict[str, Action]:
    """All edits, with random arguments.

    A fifth of the objects is deleted first, so that they can be grown again.
    """
    hv = horizontal_vertical_maps(editor.labels)
    probability = (editor.labels > 0).astype(np.float32)
    gone = editor.index.ids[::5]
    centres = editor.rows(gone)[["centroid_y", "centroid_x"]].to_numpy()
    editor.apply(delete(editor, gone))

    def missing(rng: np.random.Generator) -> list[float]:
        return centres[rng.integers(len(centres))].tolist()

    def one(rng: np.random.Generator) -> int:
        return int(rng.choice(editor.index.ids))

    def place(rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(600, SIZE_PX - 600, 2)

    def stroke(rng: np.random.Generator, length_px: float) -> Edit:
        start = place(rng)
        return merge(editor, ids_under_stroke(editor, [start, start + length_px], 5))

    def cut(rng: np.random.Generator) -> Edit:
        rows, columns = editor.index.box(one(rng))
        y = (rows.start + rows.stop) / 2
        return split_along(editor, [(y, columns.start - 1), (y, columns.stop)])

    def clicks(rng: np.random.Generator) -> Edit:
        pixels = _pixels(editor, one(rng))
        return split_at(editor, pixels[rng.choice(len(pixels), 2, replace=False)].tolist())

    def lasso(rng: np.random.Generator, radius_px: float, by: str) -> Edit:
        ids = ids_inside_polygon(editor, ellipse(place(rng), radius_px), by=by)  # type: ignore[arg-type]
        return set_class(editor, ids, 2)

    return {
        "merge under a stroke of 60 px": lambda rng: stroke(rng, 60),
        "merge under a stroke of 600 px": lambda rng: stroke(rng, 424),
        "merge two far apart": lambda rng: merge(editor, [one(rng), one(rng)]),
        "split along a line": cut,
        "split by two clicks": clicks,
        "delete one": lambda rng: delete(editor, [one(rng)]),
        "delete a lasso of 1,000 px": lambda rng: delete(
            editor, ids_inside_polygon(editor, ellipse(place(rng), 500))
        ),
        "fill holes of one": lambda rng: fill_holes(editor, [one(rng)]),
        "smooth one (median)": lambda rng: smooth(editor, [one(rng)], 3),
        "smooth one (open)": lambda rng: smooth(editor, [one(rng)], 3, "open"),
        "add an outline of 60 px": lambda rng: add_polygon(editor, ellipse(place(rng), 30)),
        "set a class of one": lambda rng: set_class(editor, [one(rng)], 2),
        "set a class by lasso, 1,000 px": lambda rng: lasso(rng, 500, "centroid"),
        "same, by share of area": lambda rng: lasso(rng, 500, "area"),
        "set a class of all": lambda rng: set_class(editor, editor.index.ids, 2),
        "region by lasso, 300 px": lambda rng: set_region(editor, ellipse(place(rng), 150), 2),
        "region by lasso, 1,000 px": lambda rng: set_region(editor, ellipse(place(rng), 500), 2),
        "region by bucket": lambda rng: fill_region(editor, _on_region(editor, rng), 2),
        "select the doubtful first": lambda rng: set_class(
            editor, doubtful_first(editor.table).ids[:1], 2
        ),
        "grow from a click": lambda rng: grow(editor, missing(rng), probability, hv),
    }


def _pixels(editor: LabelEditor, object_id: int) -> np.ndarray:
    return np.stack(editor.pixels([object_id])[0], axis=1)


def _on_region(editor: LabelEditor, rng: np.random.Generator) -> list[int]:
    assert editor.regions is not None
    while True:
        y, x = rng.integers(0, SIZE_PX, 2).tolist()
        if editor.regions[y, x]:
            return [y, x]


def cpu_ms(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return 1000 * (time.process_time() - start)


def timed(
    editor: LabelEditor, action: Action, repeats: int
) -> tuple[list[float], list[float], list[Edit]]:
    """CPU milliseconds of computing and applying, and of reverting; the edits."""
    rng = np.random.default_rng(3)
    made, back, edits = [], [], []
    while len(made) < repeats:
        gc.collect()
        start = time.process_time()
        try:
            edit = action(rng)
        except EditError:  # for example no object under the stroke
            continue
        editor.apply(edit)
        made.append(1000 * (time.process_time() - start))
        back.append(cpu_ms(lambda edit=edit: editor.revert(edit)))
        edits.append(edit)
    return made, back, edits


def score_splits(editor: LabelEditor) -> None:
    """Score splits of touching nuclei by two clicks within half a radius of their centroids."""
    rng = np.random.default_rng(0)
    scores: dict[str, list[float]] = {"cheapest path": [], "watershed": []}
    for pair in _touching(editor)[:200]:
        coordinates, owners = editor.pixels(pair)
        pixels = np.stack(coordinates, axis=1)
        seeds = [_click(pixels[owners == i], rng) for i in pair]
        low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
        crop = editor.labels[low[0] : high[0], low[1] : high[1]]
        truth = np.where(np.isin(crop, pair), crop, 0)
        both = LabelEditor.of_labels((truth > 0).astype(np.int32), (1.0, 1.0))
        both.apply(split_at(both, [seed - low for seed in seeds]))
        scores["cheapest path"].append(_worse_iou(truth, both.labels, seeds, low, pair))
        markers = np.zeros_like(truth)
        for number, seed in enumerate(seeds, 1):
            markers[tuple(seed - low)] = number
        depth = distance_transform_edt(np.pad(truth > 0, 1))[1:-1, 1:-1]
        flooded = watershed(-depth, markers, connectivity=2, mask=truth > 0)
        scores["watershed"].append(_worse_iou(truth, flooded, seeds, low, pair))
    for name, values in scores.items():
        good = np.mean(np.array(values) > 0.7)
        print(
            f"two clicks, {name:13} IoU of the worse of both nuclei {np.mean(values):.3f}, "
            f"over 0.7 in {good:.0%} of {len(values)} pairs"
        )


def _touching(editor: LabelEditor) -> list[list[int]]:
    labels = editor.labels[:1500, :1500]
    left, right = labels[:, :-1], labels[:, 1:]
    at = (left != right) & (left > 0) & (right > 0)
    pairs, edges = np.unique(
        np.sort(np.stack([left[at], right[at]]), axis=0), axis=1, return_counts=True
    )
    return pairs.T[edges >= 3].tolist()


def _click(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    distance = np.linalg.norm(pixels - pixels.mean(axis=0), axis=1)
    near = pixels[distance <= max(0.5 * np.sqrt(len(pixels) / np.pi), distance.min())]
    return near[rng.integers(len(near))]


def _worse_iou(
    truth: np.ndarray, found: np.ndarray, seeds: list[np.ndarray], low: np.ndarray, pair: list[int]
) -> float:
    scores = []
    for seed, object_id in zip(seeds, pair, strict=True):
        ours, theirs = found == found[tuple(seed - low)], truth == object_id
        scores.append((ours & theirs).sum() / (ours | theirs).sum())
    return float(min(scores))


def main() -> None:
    editor = synthetic_editor()
    print(f"{SIZE_PX:,} x {SIZE_PX:,} px, {len(editor.index):,} objects; limit {LIMIT_MS} ms")
    print(f"{'CPU ms':36}{'median':>8}{'worst':>8}{'undo':>8}{'pixels':>10}{'rows':>7}")
    for name, action in actions_on(editor).items():
        _print(name, *timed(editor, action, REPEATS))
    print("without the limit: edits of all pixels")
    _print("remove specks and holes", *timed(editor, lambda _: clean_regions(editor, 5, 5), 1))
    new = LabelEditor.of_labels(nuclei(SIZE_PX, NUCLEI_AT_4096, seed=1), (0.25, 0.25))
    reviewed = Reviewed(editor.labels.shape).with_objects(editor.index.ids[:100])
    _print(
        "a new run, keeping 100 objects",
        *timed(editor, lambda _: merge_prediction(editor, new.labels, new.table, reviewed), 1),
    )
    print(f"{'building the index':36}{cpu_ms(lambda: ObjectIndex.of(editor.labels)):8.1f}")
    print(f"{'a full garbage collection':36}{cpu_ms(gc.collect):8.1f}")
    score_splits(editor)


def _print(name: str, made: list[float], back: list[float], edits: list[Edit]) -> None:
    pixels = max(len(edit.new_values) for edit in edits)
    rows = max(len(edit.old_rows) for edit in edits)
    mark = "" if max(made) < LIMIT_MS else "  over"
    print(
        f"{name:36}{np.median(made):8.1f}{max(made):8.1f}{max(back):8.1f}{pixels:10,}{rows:7,}{mark}",
        flush=True,
    )


if __name__ == "__main__":
    main()
