"""Objects of a semantic label image: connected components, or a watershed of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from napari_coseg.core.types import LABEL_DTYPE


def separate_objects(
    regions: np.ndarray,
    how: Literal["components", "watershed"],
    spacing: Sequence[float],
    min_size_px: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Make objects of the pixels of each class.

    Parameters
    ----------
    regions
        uint8 class ids (Y, X) or (Z, Y, X); 0 is background.
    how
        components: pixels of a class that share an edge or face are one object; watershed:
        components are cut along the ridges of the distance to their border, one object for each
        peak of that distance.
    spacing
        Of the pixels, along each axis; watershed measures distances with it.
    min_size_px
        Smaller objects are removed.

    Returns
    -------
    tuple of np.ndarray
        Object ids, int32 of the same shape, 1 to n; and the class ids (n,) of the objects.
    """
    from skimage.measure import label

    labels = label(regions, background=0, connectivity=1).astype(LABEL_DTYPE)
    if how == "watershed":
        labels = _cut(labels, spacing)
    sizes = np.bincount(labels.ravel())
    kept = sizes >= max(min_size_px, 1)
    kept[0] = False
    ids = np.where(kept, np.cumsum(kept), 0).astype(LABEL_DTYPE)
    labels = ids[labels]
    class_ids = np.zeros(int(kept.sum()) + 1, np.int64)
    class_ids[labels.ravel()] = regions.ravel()
    return labels, class_ids[1:]


def _cut(labels: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt, gaussian_filter
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    # A little smoothing: plateaus and single pixels of a border make no peaks of their own.
    distance = gaussian_filter(distance_transform_edt(labels > 0, sampling=spacing), 1.0)
    peaks = peak_local_max(distance, min_distance=3, labels=labels, exclude_border=False)
    markers = np.zeros(labels.shape, LABEL_DTYPE)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    # Classes touch: a marker floods its own component alone.
    found = np.zeros(labels.shape, LABEL_DTYPE)
    for number, box in enumerate(_boxes(labels), start=1):
        if box is None:
            continue
        own = labels[box] == number
        inside = np.where(own, markers[box], 0)
        if np.count_nonzero(inside) < 2:
            found[box][own] = len(peaks) + number
            continue
        found[box][own] = watershed(-distance[box], inside, mask=own)[own]
    return np.unique(found, return_inverse=True)[1].reshape(labels.shape).astype(LABEL_DTYPE)


def _boxes(labels: np.ndarray) -> list[tuple[slice, ...] | None]:
    from scipy.ndimage import find_objects

    boxes: list[tuple[slice, ...] | None] = find_objects(labels)
    return boxes
