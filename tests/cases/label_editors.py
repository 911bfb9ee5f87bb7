"""Editors to correct on: made-up nuclei in a plane and in a stack, with regions and classes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cases.synthetic import nuclei
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.label_editor import LabelEditor
from napari_coseg.labels.measure import class_table, remeasure

CLASSES = (LabelClass(1, "epithelial", (255, 0, 0)), LabelClass(2, "lymphocyte", (0, 0, 255)))
REGIONS = (LabelClass(1, "gland", (0, 255, 0)), LabelClass(3, "fat", (255, 255, 0)))


def plane(seed: int = 0, size_px: int = 160, count: int = 60) -> LabelEditor:
    return editor(nuclei(size_px, count, seed), (0.5, 0.25), seed)


def stack(seed: int = 0) -> LabelEditor:
    """Four slices; objects of the middle two reach through both, or are in one of them."""
    labels = nuclei(96, 24, seed)
    middle = np.where(labels % 3 > 0, labels, 0)
    return editor(np.stack([0 * labels, labels, middle, 0 * labels]), (2.0, 0.5, 0.25), seed)


def editor(labels: np.ndarray, pixel_size_um: tuple[float, ...], seed: int = 0) -> LabelEditor:
    rng = np.random.default_rng(seed)
    regions = np.zeros(labels.shape, np.uint8)
    regions[..., 20:70, 10:60] = 1
    regions[..., 60:90, 40:] = 3
    largest = int(labels.max())
    sure = rng.uniform(0.3, 1, largest)
    return LabelEditor.of_labels(
        labels.copy(),
        pixel_size_um,
        regions,
        known=class_table(rng.integers(1, 3, largest), sure),
        classes=CLASSES,
        region_classes=REGIONS,
    )


def measured_anew(editor: LabelEditor) -> pd.DataFrame:
    """The table of the editor's labels and regions as if nothing had been known but the classes."""
    table = remeasure(editor.prediction).instances.table
    return table.astype(editor.table.dtypes.to_dict())


def is_connected(mask: np.ndarray) -> bool:
    """By edges or corners."""
    from scipy.ndimage import label

    return label(mask, np.ones((3,) * mask.ndim))[1] == 1


def volume() -> LabelEditor:
    """Eight balls, 1 to 8, of radius 7 px: in every plane through a ball, others lie behind it."""
    labels = np.zeros((36, 40, 44), np.int32)
    grid = np.indices(labels.shape)
    for number, corner in enumerate(np.ndindex(2, 2, 2), 1):
        centre = [
            size // 4 + side * (size // 2) for side, size in zip(corner, labels.shape, strict=True)
        ]
        apart = sum((axis - at) ** 2 for axis, at in zip(grid, centre, strict=True))
        labels[apart <= 49] = number
    return editor(labels, (1.0, 1.0, 1.0))
