"""Measure the effect of a corrected mask on the other task, and the cost of refinement.

    python benchmarks/refinement.py [--root DATA] [--model default] [--images 14]

Three tables.

1. CoNSeP test. It has no region masks, so the corrected region is *derived* from the typed nuclei
   (`napari_coseg.datasets.derived`) and depends in part on their classes. Panoptic quality of the
   nuclei by type, pooled over images, from: the predicted region mask; an empty one; the derived
   one; and the derived one rotated by 180 degrees, which is wrong. Conversely, with the true nuclei
   as correction, Dice of the predicted regions with the derived region. That is no score of the
   model, which was trained on glands; only differences between rows are meaningful.
2. Synthetic images, with exact labels for both tasks: the same with true regions and true objects.
   Again only differences are meaningful.
3. CPU time of a refinement as a fraction of a full run's: for a correction of 100 um in a corner,
   and for the whole image.

A network that ignores its prompts has the same scores in every row.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from baseline_scores import data_root

from napari_coseg.core.errors import EditError
from napari_coseg.core.types import Prediction
from napari_coseg.datasets.derived import class_id_of, derived_region
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.evaluation.run import object_types
from napari_coseg.inference import InferenceSettings, load_model, segment
from napari_coseg.inference.refine import refine
from napari_coseg.inference.run_state import RunState
from napari_coseg.labels.metrics.instances import (
    PanopticQuality,
    by_class,
    contingency,
    panoptic_quality,
)
from napari_coseg.labels.metrics.overlap import mask_overlap
from napari_coseg.models.base import CosegModel

Corrections = dict[str, dict[str, np.ndarray]]
SPOT_UM = 100.0
PARTS = ("costs", "consep", "drawn")


class Case(NamedTuple):
    """An image with its true objects and types, and the corrected region."""

    image: np.ndarray
    pixel_size_um: float
    instances: np.ndarray
    types: np.ndarray
    region: np.ndarray


class Row:
    """Scores of one kind of prompt, pooled over images."""

    def __init__(self) -> None:
        self.quality: dict[str, PanopticQuality] = {}
        self.regions: list[object] = []

    def add(self, case: Case, found: Prediction) -> None:
        table = contingency(case.instances, found.instances.labels)
        classes = found.instances.classes
        predicted = found.instances.table.set_index("id")["class_id"].loc[table.prediction_ids]
        truth = object_types(case.instances, case.types, table)
        of_type = by_class(table, truth, predicted.to_numpy(), [c.id for c in classes])
        tables = {"all": table} | {c.name: of_type[c.id] for c in classes}
        for name, one in tables.items():
            quality = panoptic_quality(one)
            before = self.quality.get(name)
            self.quality[name] = quality if before is None else before + quality
        self.regions.append(mask_overlap(case.region, found.semantic > 0))

    def line(self) -> dict[str, float]:
        overlap = sum(self.regions[1:], self.regions[0])
        return {**{n: q.pq for n, q in self.quality.items()}, "region Dice": overlap.dice}


def consep(root: object, model: CosegModel, count: int) -> Iterator[Case]:
    dataset = open_dataset("consep", root)
    ours = {entry.name: entry.id for entry in model.card.instance_classes}
    number = np.zeros(256, np.uint8)
    for entry in dataset.instance_classes:
        number[entry.id] = ours.get(entry.name, 0)
    kind = class_id_of("epithelial", dataset.instance_classes)
    for name in dataset.names("test")[:count]:
        sample = dataset.load("test", name)
        region = derived_region(sample.instances, sample.instance_types, kind, sample.pixel_size_um)
        types = number[sample.instance_types]
        yield Case(sample.image, sample.pixel_size_um, sample.instances, types, region)


def drawn(model: CosegModel, count: int) -> Iterator[Case]:
    """Glands with rings of epithelial nuclei in a stroma of spindle and round cells, at 0.5 um."""
    ours = {entry.name: entry.id for entry in model.card.instance_classes}
    for seed in range(count):
        yield draw(np.random.default_rng(seed), ours)


def draw(rng: np.random.Generator, ours: dict[str, int], side: int = 500) -> Case:
    from scipy.ndimage import gaussian_filter

    y, x = np.mgrid[:side, :side].astype(float)
    texture = gaussian_filter(rng.normal(size=(side, side)), 3) * 60
    image = np.stack([225 + texture, 160 + texture, 195 + texture], -1)
    region, instances = np.zeros((side, side), bool), np.zeros((side, side), np.int32)
    types = np.zeros((side, side), np.uint8)

    def nucleus(cy: float, cx: float, angle: float, long: float, short: float, kind: str) -> None:
        v, u = y - cy, x - cx
        a, b = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
        inside = ((a / long) ** 2 + (b / short) ** 2 <= 1) & (instances == 0)
        if inside.sum() < 20:
            return
        instances[inside], types[inside] = instances.max() + 1, ours.get(kind, 0)
        image[inside] = np.array([95, 60, 140]) + rng.normal(0, 8, 3)

    for cy in np.arange(80, side, 170):
        for cx in np.arange(80, side, 170):
            cy_, cx_ = cy + rng.uniform(-20, 20), cx + rng.uniform(-20, 20)
            radius = rng.uniform(45, 65)
            far = np.hypot(y - cy_, (x - cx_) * rng.uniform(0.8, 1.2))
            region |= far <= radius
            image[far <= radius] = (190, 130, 185)
            image[far <= 0.45 * radius] = (240, 235, 240)
            for angle in np.arange(0, 2 * np.pi, 10 / radius):
                at = radius * 0.72
                nucleus(cy_ + at * np.sin(angle), cx_ + at * np.cos(angle), angle, 9, 4,
                        "epithelial")  # fmt: skip
    for _ in range(500):
        cy, cx = rng.uniform(0, side, 2)
        if region[int(cy), int(cx)]:
            continue
        spindle = rng.random() < 0.6
        size = (9, 2.8) if spindle else (4.5, 4.5)
        nucleus(cy, cx, rng.uniform(0, np.pi), *size, "spindle" if spindle else "inflammatory")
    pixels = np.clip(gaussian_filter(image, (0.7, 0.7, 0)) + rng.normal(0, 4, image.shape), 0, 255)
    return Case(pixels.astype(np.uint8), 0.5, instances, types, region)


def corrections(case: Case, name: str) -> Corrections:
    """Corrected masks by name of the row."""
    region = case.region.astype(np.uint8)
    nothing = np.zeros_like(region)
    return {
        "predicted masks": {},
        "empty region": {"corrected_regions": nothing},
        f"{name} region": {"corrected_regions": region},
        f"{name} region, turned": {"corrected_regions": region[::-1, ::-1]},
        "no objects": {"corrected_objects": nothing.astype(np.int32)},
        "true objects": {"corrected_objects": case.instances},
    }


def scores(model: CosegModel, cases: Iterator[Case], name: str) -> dict[str, Row]:
    rows: dict[str, Row] = defaultdict(Row)
    for case in cases:
        state = RunState()
        segment(case.image, model, case.pixel_size_um, state=state)
        for row, given in corrections(case, name).items():
            rows[row].add(case, _refined(state, given))
    return rows


def _refined(state: RunState, given: dict[str, np.ndarray]) -> Prediction:
    """The run's own result where the corrections do not differ from it."""
    try:
        return refine(state, **given)
    except EditError:
        return state.prediction


def show(title: str, rows: dict[str, Row]) -> None:
    print(f"\n{title}")
    lines = {name: row.line() for name, row in rows.items()}
    columns = list(next(iter(lines.values())))
    print(f"{'second forward prompted by':32}" + "".join(f"{c:>15}" for c in columns))
    for name, line in lines.items():
        # Scores of the corrected task itself would be those of the correction.
        hidden = {"region Dice"} if "region" in name else set()
        hidden |= set(columns[:-1]) if "objects" in name else set()
        cells = (f"{'-':>15}" if c in hidden else f"{line[c]:15.3f}" for c in columns)
        print(f"{name:32}" + "".join(cells), flush=True)


def costs(model: CosegModel, case: Case) -> None:
    """Measure on four copies of an image side by side, so that there are several tiles."""
    image = np.tile(case.image, (2, 2, 1))
    state, settings = RunState(), InferenceSettings()
    segment(case.image, model, case.pixel_size_um, settings=settings)  # the first run is slower
    whole = _seconds(lambda: segment(image, model, case.pixel_size_um, settings=settings))
    caching = _seconds(
        lambda: segment(image, model, case.pixel_size_um, settings=settings, state=state)
    )
    regions = state.prediction.semantic.copy()
    spot = round(SPOT_UM / case.pixel_size_um)
    regions[:spot, :spot] = regions[:spot, :spot] == 0
    local = _seconds(lambda: refine(state, corrected_regions=regions))
    everywhere = np.where(state.prediction.semantic > 0, 0, 1)
    all_ = _seconds(lambda: refine(state, corrected_regions=everywhere))
    mib = state.nbytes / 2**20
    print(f"\ncosts on {image.shape[0]} x {image.shape[1]} px of {case.pixel_size_um} um")
    print(
        f"full run {whole:.1f} CPU s; with caching {caching / whole:.2f} times that ({mib:.0f} MiB)"
    )
    print(f"a correction of {SPOT_UM:.0f} um: {local / whole:.2f} of a full run")
    print(f"of the whole image: {all_ / whole:.2f} of a full run")


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default=None)
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", type=int, default=14)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    model, root = load_model(options.model, options.device), None
    if {"costs", "consep"} & set(options.parts):
        root = data_root(options.root)
    if "costs" in options.parts:
        costs(model, next(consep(root, model, 1)))
    if "consep" in options.parts:
        title = "CoNSeP test: PQ by type; Dice of the predicted with the derived region"
        show(title, scores(model, consep(root, model, options.images), "derived"))
    if "drawn" in options.parts:
        title = "drawn images: PQ by type; Dice of regions"
        show(title, scores(model, drawn(model, options.images), "true"))


if __name__ == "__main__":
    main()
