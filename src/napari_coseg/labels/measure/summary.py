"""Counts and covered area of the objects of each class in each region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_coseg.core.types import LabelClass
from napari_coseg.labels.measure.tables import BACKGROUND, UNTYPED
from napari_coseg.labels.measure.windows import Window

if TYPE_CHECKING:
    import pandas as pd

ALL = -1
"""``region_id`` and ``class_id`` of rows for all of them together."""
ALL_REGIONS, ALL_CLASSES = "all regions", "all classes"
UM2_A_MM2, UM3_A_MM3 = 1e6, 1e9


class Coverage:
    """Pixels of each region, and of each class of objects within each region.

    Parameters
    ----------
    class_ids
        (n,) of the objects, in the order of the table.
    semantic
        Region class ids on the grid of the labels.
    largest_region
        The largest value of `semantic`.
    """

    def __init__(self, class_ids: np.ndarray, semantic: np.ndarray, largest_region: int) -> None:
        self._semantic = semantic
        self._kinds, self._kind_of = np.unique(class_ids, return_inverse=True)
        self.regions = np.zeros(largest_region + 1, np.int64)
        self._covered = np.zeros((len(self._kinds), largest_region + 1), np.int64)

    def add(self, window: Window) -> None:
        """Count the window's pixels."""
        regions, width = window.part_of(self._semantic), len(self.regions)
        self.regions += np.bincount(regions.ravel(), minlength=width)
        if window.owners.size:
            places = self._kind_of[window.owners] * width + regions[window.inside]
            self._covered += np.bincount(places, minlength=self._covered.size).reshape(-1, width)

    def covered(self, class_id: int) -> np.ndarray:
        """Pixels of objects of a class, by region."""
        at = self._kinds == class_id
        pixels: np.ndarray = self._covered[at].sum(axis=0)
        return pixels


def summarise(
    table: pd.DataFrame,
    coverage: Coverage,
    *,
    pixel_size_um: Sequence[float],
    classes: Sequence[LabelClass],
    semantic_classes: Sequence[LabelClass],
) -> pd.DataFrame:
    """One row per region and class, background and untyped first, all of them together last.

    An object counts in the region with most of its pixels (``region_id``); areas are exact, so an
    object on a border covers part of both regions.

    Parameters
    ----------
    table
        One row per object.
    coverage
        Of the same objects, with all windows added.
    pixel_size_um
        (y, x) or (z, y, x).
    classes, semantic_classes
        One for every id that occurs.

    Returns
    -------
    pandas.DataFrame
        ``region_id``, ``region``, ``class_id``, ``class``, ``objects``; ``objects_per_mm2``
        (stacks: ``_mm3``); ``share_of_objects`` of the region that are of this class;
        ``area_fraction`` of the region that they cover (stacks: ``volume_fraction``);
        ``mean_area_um2`` of the objects; ``region_area_um2`` and ``region_fraction`` of the image
        (stacks: ``mean_volume_um3``, ``region_volume_um3``). nan for a division by 0.
    """
    import pandas as pd

    regions = _entries(semantic_classes, True, BACKGROUND, ALL_REGIONS)
    kinds = _entries(classes, bool((table["class_id"] == 0).any()), UNTYPED, ALL_CLASSES)
    rows = []
    for region, region_name in regions.items():
        for kind, kind_name in kinds.items():
            numbers = _row(table, coverage, region, kind, pixel_size_um)
            rows.append([region, region_name, kind, kind_name, *numbers.values()])
    return pd.DataFrame(rows, columns=["region_id", "region", "class_id", "class", *numbers])


def _row(
    table: pd.DataFrame,
    coverage: Coverage,
    region: int,
    kind: int,
    pixel_size_um: Sequence[float],
) -> dict[str, float]:
    stack = len(pixel_size_um) == 3
    pixel = math.prod(pixel_size_um)
    size = "volume" if stack else "area"
    unit, mm, factor = ("um3", "mm3", UM3_A_MM3) if stack else ("um2", "mm2", UM2_A_MM2)
    here = (table["region_id"] == region) | (region == ALL)
    chosen = here & ((table["class_id"] == kind) | (kind == ALL))
    ours = slice(None) if region == ALL else slice(region, region + 1)
    pixels = float(coverage.regions[ours].sum())
    covered = sum(
        float(coverage.covered(one)[ours].sum())
        for one in (table["class_id"].unique() if kind == ALL else [kind])
    )
    objects = int(chosen.sum())
    return {
        "objects": objects,
        f"objects_per_{mm}": _over(objects, pixels * pixel / factor),
        "share_of_objects": _over(objects, int(here.sum())),
        f"{size}_fraction": _over(covered, pixels),
        f"mean_{size}_{unit}": float(table.loc[chosen, f"{size}_{unit}"].mean()),
        f"region_{size}_{unit}": pixels * pixel,
        "region_fraction": _over(pixels, float(coverage.regions.sum())),
    }


def _over(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _entries(
    classes: Sequence[LabelClass], has_none: bool, nothing: str, everything: str
) -> dict[int, str]:
    """Names by id: no class if that occurs, the classes, and all together."""
    none = {0: nothing} if has_none or not classes else {}
    return none | {entry.id: entry.name for entry in classes} | {ALL: everything}
