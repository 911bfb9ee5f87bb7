"""Time and memory of all metrics of objects and regions, by image size.

python benchmarks/metrics.py

Limits for 11,000 objects on 4096 x 4096 pixels: 5 s and 1 GiB on one core.
"""

from __future__ import annotations

import numpy as np
from measuring import HEADER, NUCLEI_AT_4096, SIZES_PX, measured

from cases.synthetic import nuclei
from napari_coseg.labels.metrics.averaging import Counts
from napari_coseg.labels.metrics.contingency import by_class, contingency
from napari_coseg.labels.metrics.instances import (
    aggregated_jaccard,
    connected_regions,
    panoptic_quality,
)
from napari_coseg.labels.metrics.overlap import class_overlaps, mask_overlap
from napari_coseg.labels.metrics.surface import hausdorff

CLASSES = range(1, 5)
LIMIT_S, LIMIT_MIB = 5, 1024


def object_scores(truth: np.ndarray, prediction: np.ndarray) -> list[dict[str, float]]:
    """PQ, DQ, SQ, F1, precision, recall and AJI of all objects and of four classes; Dice."""
    table = contingency(truth, prediction)
    tables = by_class(table, 1 + table.truth_ids % 4, 1 + table.prediction_ids % 4, CLASSES)
    counts = [Counts(panoptic_quality(t), aggregated_jaccard(t)) for t in tables.values()]
    whole = Counts(
        panoptic_quality(table), aggregated_jaccard(table), mask_overlap(truth, prediction)
    )
    return [one.scores() for one in (whole, *counts)]


def region_scores(truth: np.ndarray, prediction: np.ndarray) -> list[dict[str, float]]:
    """Dice, IoU, Hausdorff distances and PQ of two region classes."""
    overlaps = class_overlaps(truth, prediction, (1, 2))
    found = []
    for c, overlap in overlaps.items():
        masks = truth == c, prediction == c
        parts = contingency(*map(connected_regions, masks))
        found.append(
            Counts(panoptic_quality(parts), None, overlap, hausdorff(*masks, 0.25)).scores()
        )
    return found


def regions(size: int, seed: int) -> np.ndarray:
    """Smooth regions of two classes and background, about 100 pixels wide."""
    from scipy import ndimage

    coarse = np.random.default_rng(seed).normal(size=(size // 32 + 1,) * 2)
    smooth = ndimage.zoom(ndimage.gaussian_filter(coarse, 1.5), 32, order=1)[:size, :size]
    return np.digitize(smooth, np.quantile(coarse, (0.45, 0.55))).astype(np.uint8)


def main() -> None:
    print(HEADER)
    for size in SIZES_PX:
        truth = nuclei(size, NUCLEI_AT_4096 * size**2 // 4096**2, radius_px=(5, 22))
        prediction = np.roll(truth, 3, axis=1)
        found = measured(lambda pair=(truth, prediction): object_scores(*pair))
        print(found.line(f"{truth.max():,} against {prediction.max():,} objects", size), flush=True)
        truth, prediction = regions(size, 0), np.roll(regions(size, 0), 9, axis=1)
        outlines = measured(lambda pair=(truth, prediction): region_scores(*pair))
        print(outlines.line("two region classes, with HD", size), flush=True)
    for name, value, limit in (
        ("CPU s", found.cpu_s, LIMIT_S),
        ("MiB", found.peak_mib, LIMIT_MIB),
    ):
        print(f"objects at {size} px: {value:.2f} {name}, limit {limit}: {value <= limit}")


if __name__ == "__main__":
    main()
