"""Desks to correct on: made-up nuclei in a plane and in a stack, with regions and classes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_coseg.editing.desk import Desk
from napari_coseg.measure import object_table
from napari_coseg.types import LabelClass
from synthetic import nuclei

CLASSES = (LabelClass(1, "epithelial", (255, 0, 0)), LabelClass(2, "lymphocyte", (0, 0, 255)))
REGIONS = (LabelClass(1, "gland", (0, 255, 0)), LabelClass(3, "fat", (255, 255, 0)))


def plane(seed: int = 0, size_px: int = 160, count: int = 60) -> Desk:
    return desk(nuclei(size_px, count, seed), (0.5, 0.25), seed)


def stack(seed: int = 0) -> Desk:
    """Four slices; objects of the middle two reach through both, or are in one of them."""
    labels = nuclei(96, 24, seed)
    middle = np.where(labels % 3 > 0, labels, 0)
    return desk(np.stack([0 * labels, labels, middle, 0 * labels]), (2.0, 0.5, 0.25), seed)


def desk(labels: np.ndarray, pixel_size_um: tuple[float, ...], seed: int = 0) -> Desk:
    rng = np.random.default_rng(seed)
    regions = np.zeros(labels.shape, np.uint8)
    regions[..., 20:70, 10:60] = 1
    regions[..., 60:90, 40:] = 3
    largest = int(labels.max())
    sure = rng.uniform(0.3, 1, largest)
    table = object_table(
        labels,
        regions,
        pixel_size_um=pixel_size_um,
        class_ids=rng.integers(1, 3, largest),
        class_probabilities=sure,
        classes=CLASSES,
        semantic_classes=REGIONS,
    )
    return Desk(labels.copy(), pixel_size_um, regions, table, CLASSES, REGIONS)


def measured_anew(desk: Desk) -> pd.DataFrame:
    """The table of the desk's labels and regions as if nothing had been known but the classes."""
    largest = int(desk.labels.max(initial=0))
    class_ids, sure = np.zeros(largest, np.int64), np.full(largest, np.nan)
    at = desk.table["id"].to_numpy() - 1
    class_ids[at], sure[at] = desk.table["class_id"], desk.table["class_probability"]
    table = object_table(
        desk.labels,
        desk.regions,
        pixel_size_um=desk.pixel_size_um,
        class_ids=class_ids,
        class_probabilities=sure,
        classes=desk.classes,
        semantic_classes=desk.region_classes,
    )
    return table.astype(desk.table.dtypes.to_dict())


def is_connected(mask: np.ndarray) -> bool:
    """By edges or corners."""
    from scipy.ndimage import label

    return label(mask, np.ones((3,) * mask.ndim))[1] == 1
