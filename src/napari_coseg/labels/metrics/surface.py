"""Distance of the outlines of two masks: the Hausdorff distance and its 95th percentile.

Conventions
-----------
Distances are between *boundary* pixels (Co-Seg++, section 4.1.3: "predicted and ground truth
boundary points"): pixels of the mask that share a side with a pixel outside the mask, or with the
end of the image. MONAI's `compute_hausdorff_distance`, which the authors' released code calls, is
the same, and so is scikit-image's `hausdorff_distance` of boundaries (of masks it is another
number, between all their pixels).

The distance is symmetric: the larger of both directions. Its 95th percentile is the larger of the
two directions' percentiles (as in MONAI; medpy pools both directions first), linearly interpolated.

The distance is inf if one mask is empty, nan if both are. The authors leave out images with either,
and so does `labels.metrics.averaging`. An empty prediction therefore costs nothing in such a mean,
so report how many images were left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.labels.metrics.overlap import check_same_shape

LEAF_SIZE = 32
"""Points in a leaf of the search tree: more than the default, as each tree is used only once."""


@dataclass(frozen=True)
class HausdorffDistance:
    """Both distances of two outlines, in the unit of the spacing.

    Parameters
    ----------
    largest
        The Hausdorff distance (HD).
    percentile_95
        Its 95th percentile (HD95), which a few outliers do not change.
    """

    largest: float
    percentile_95: float


def hausdorff(
    truth: np.ndarray, prediction: np.ndarray, spacing: float | Sequence[float] | None = None
) -> HausdorffDistance:
    """Both distances of two masks, two- or three-dimensional. Everything but 0 counts as inside.

    Memory beyond the masks and their outlines grows with the number n of boundary pixels, time with
    n log n.

    Parameters
    ----------
    truth, prediction
        Of one shape, (Y, X) or (Z, Y, X).
    spacing
        Pixel size along each axis, or one number for all, in the unit of the result; None is 1, for
        distances in pixels.

    Raises
    ------
    ImageError
        Where the shapes differ, or the spacing is not one positive number for each axis.
    """
    there, back = surface_distances(truth, prediction, spacing)
    return HausdorffDistance(
        _farther(there, back, percentile=100), _farther(there, back, percentile=95)
    )


def spacing_at_1024(shape: Sequence[int]) -> tuple[float, float]:
    """A pixel's height and width after an image of `shape` (Y, X) is stretched to 1024 x 1024.

    As `spacing` it gives distances as in the papers: Co-Seg++ resizes all images to this size,
    "during the fine-tuning and evaluation stage" (section 4.1). Here the outlines are stretched
    instead of resampling the masks, which moves an outline by at most half a pixel of the image.
    """
    height, width = shape
    return 1024 / height, 1024 / width


def hausdorff_distance(
    truth: np.ndarray,
    prediction: np.ndarray,
    spacing: float | Sequence[float] | None = None,
    percentile: float = 100,
) -> float:
    """One distance of two masks at any percentile, 0 to 100. See `hausdorff`."""
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile is {percentile}; it must lie in 0 to 100")
    return _farther(*surface_distances(truth, prediction, spacing), percentile)


def hausdorff_by_class(
    truth: np.ndarray,
    prediction: np.ndarray,
    class_ids: Iterable[int],
    spacing: float | Sequence[float] | None = None,
) -> dict[int, HausdorffDistance]:
    """`hausdorff` of each class of two semantic images."""
    return {int(c): hausdorff(truth == c, prediction == c, spacing) for c in class_ids}


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, spacing: float | Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each boundary pixel to the nearest one of the other mask.

    Returns
    -------
    tuple of np.ndarray
        float64 (N,) and (M,): from each boundary pixel of the truth to the prediction, and back;
        in the unit of `spacing`; inf where the other mask is empty.
    """
    check_same_shape(truth, prediction)
    steps = _steps(spacing, truth.ndim)
    of_truth = np.argwhere(boundary(truth)) * steps
    of_prediction = np.argwhere(boundary(prediction)) * steps
    return _nearest(of_truth, of_prediction), _nearest(of_prediction, of_truth)


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask that share a side with its outside, or with the end of the image.

    Returns
    -------
    np.ndarray
        bool, of the mask's shape.
    """
    from scipy import ndimage

    inside = mask != 0
    outline: np.ndarray = inside & ~ndimage.binary_erosion(inside)
    return outline


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance from each point (N, D) to the nearest of the others (M, D)."""
    from scipy.spatial import KDTree

    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    # A distance transform of the whole image would take several times its memory, and four times as
    # long for outlines of regions.
    distances: np.ndarray = KDTree(others, leafsize=LEAF_SIZE).query(points)[0]
    return distances


def _farther(there: np.ndarray, back: np.ndarray, percentile: float) -> float:
    if not len(there) and not len(back):
        return float("nan")
    if not len(there) or not len(back):
        return float("inf")
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def _steps(spacing: float | Sequence[float] | None, ndim: int) -> np.ndarray:
    steps = np.asarray(1.0 if spacing is None else spacing, dtype=np.float64)
    if steps.shape not in ((), (ndim,)) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ImageError(
            f"spacing is {spacing}; expected one positive number, or one for each of "
            f"the {ndim} axes"
        )
    return np.broadcast_to(steps, (ndim,))
