"""Decode a network's maps to objects and their types.

The maps are those of HoVer-Net (Graham et al. 2019), the decoding is not. HoVer-Net cuts along
edges in their gradients and floods from the rest, which loses small objects, and scales the
gradients by the extremes of the image, so that an object depends on the rest of the image. Here
every pixel follows the maps to its centre (`basins`).
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from napari_coseg.core.card import Decoding
from napari_coseg.core.errors import ImageError
from napari_coseg.core.settings import Settings
from napari_coseg.labels.decoding.basins import find_basins, join_basins


class HoverSettings(Settings):
    """How maps become objects. Lengths are in pixels of the maps."""

    object_threshold: float = Field(
        Decoding().object_threshold,
        gt=0,
        lt=1,
        description="object probability from which a pixel belongs to an object",
    )
    smoothing_px: float = Field(
        0.0, ge=0, le=50, description="sigma of the Gaussian over both distance maps; 0: none"
    )
    border_threshold: float = Field(
        Decoding().border_threshold,
        ge=0,
        le=2,
        description="drop and jump of the maps across a border from which it separates two "
        "objects, about 1 in sharp maps; lower splits more",
    )
    min_object_area_px: int = Field(
        10, ge=1, description="smaller objects are joined to a neighbour or removed"
    )


def decode_instances(
    object_probability: np.ndarray, hv: np.ndarray, settings: HoverSettings | None = None
) -> np.ndarray:
    """Objects of one image or tile.

    Objects should be roughly convex, as nuclei are: pixels may join another object that lies
    between them and their centre. An object does not depend on the rest of the tile, except for its
    id. Time and memory grow with the number of pixels.

    Parameters
    ----------
    object_probability
        Float (Y, X), 0..1.
    hv
        Float (2, Y, X), -1..1: horizontal, vertical (see `hover_targets`).
    settings
        None for the defaults.

    Returns
    -------
    np.ndarray
        int32 (Y, X); 0 is background; ids are 1..N without gaps; each object is connected, by
        edges or corners of its pixels.

    Raises
    ------
    ImageError
        Where the shapes do not fit.
    """
    settings = settings or HoverSettings()
    if object_probability.ndim != 2 or hv.shape != (2, *object_probability.shape):
        raise ImageError(
            f"object probability has shape {object_probability.shape}, distance maps {hv.shape}; "
            "expected (Y, X) and (2, Y, X)"
        )
    mask = object_probability >= settings.object_threshold
    labels = np.zeros(mask.shape, dtype=np.int32)
    if mask.any():
        basins = find_basins(mask, _smoothed(hv, settings.smoothing_px), settings.border_threshold)
        object_ids = join_basins(basins, settings.border_threshold, settings.min_object_area_px)
        labels[mask] = object_ids[basins.of_pixel]
    return labels


def classify(labels: np.ndarray, class_probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The type of every object: that of most of its pixels, without background.

    On a tie, and if background is the likeliest class of every pixel, the type with the highest
    mean probability.

    Parameters
    ----------
    labels
        int (Y, X) or (Z, Y, X), ids 1..N; an id without pixels gets class 0 and nan.
    class_probability
        Float (1 + T, ...) with the shape of `labels`, background first; no channel, or background
        alone, if objects have no types.

    Returns
    -------
    class_ids
        int32 (N,): 1..T, in the order of ids; 0 where there are no types.
    probabilities
        float32 (N,): mean probability of that type over the object's pixels; nan where there are no
        types.

    Raises
    ------
    ImageError
        Where the shapes do not fit.
    """
    if class_probability.shape[1:] != labels.shape:
        raise ImageError(
            f"class probabilities have shape {class_probability.shape}, labels {labels.shape}; "
            "expected one channel per class on the grid of the labels"
        )
    count = int(labels.max(initial=0))
    if count == 0 or len(class_probability) < 2:
        return np.zeros(count, dtype=np.int32), np.full(count, np.nan, dtype=np.float32)
    pixel = np.flatnonzero(labels)
    owner = labels.reshape(-1)[pixel] - 1
    best, winner = class_probability[0].reshape(-1)[pixel], np.zeros(len(pixel), dtype=np.uint8)
    sums = np.empty((len(class_probability) - 1, count))
    for class_id in range(1, len(class_probability)):
        probability = class_probability[class_id].reshape(-1)[pixel]
        sums[class_id - 1] = np.bincount(owner, weights=probability, minlength=count)
        winner[probability > best] = class_id
        best = np.maximum(best, probability)
    areas = np.bincount(owner, minlength=count)
    votes = np.stack(
        [np.bincount(owner[winner == c], minlength=count) for c in range(1, len(sums) + 1)]
    )
    with np.errstate(invalid="ignore"):
        means = sums / areas
    chosen = np.where(votes == votes.max(axis=0), means, -1).argmax(axis=0)
    class_ids = np.where(areas > 0, chosen + 1, 0).astype(np.int32)
    return class_ids, means[chosen, np.arange(count)].astype(np.float32)


def _smoothed(hv: np.ndarray, sigma_px: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    hv = hv.astype(np.float32, copy=False)
    return gaussian_filter(hv, (0, sigma_px, sigma_px), truncate=3) if sigma_px else hv
