"""How far the outlines of two masks lie apart: the Hausdorff distance and its 95th percentile.

Conventions
-----------
Distances run between *boundary* pixels (Co-Seg++, section 4.1.3: "predicted and ground truth
boundary points"): pixels of the mask with a neighbour across a side that is not, or with none
because the image ends there. MONAI's `compute_hausdorff_distance`, which the authors' released code
calls, measures the same. scikit-image's `hausdorff_distance` does where it is given boundaries;
given masks, it measures between all their pixels, which is another number.

The distance is symmetric: the larger of both directions. Its 95th percentile is the larger of the
two directions' percentiles (as in MONAI; medpy throws both directions together first), linearly
interpolated.

An outline that is not there is infinitely far: inf where one mask is empty. Where both are, there
is nothing to measure: nan. The authors leave out images with either, and so does
`labels.metrics.averaging`. An empty answer therefore costs nothing in such a mean, so say
beside it how many images were left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_coseg.core.errors import ImageError
from napari_coseg.labels.metrics.overlap import check_same_shape

LEAF_SIZE = 32
"""Points in a leaf of the search tree: more than the default, as each tree is asked only once."""


@dataclass(frozen=True)
class HausdorffDistance:
    """Both distances of two outlines, in the unit of the spacing.

    Parameters
    ----------
    largest
        The Hausdorff distance (HD).
    percentile_95
        Its 95th percentile (HD95), which a few stray pixels do not move.
    """

    largest: float
    percentile_95: float


def hausdorff(
    truth: np.ndarray, prediction: np.ndarray, spacing: float | Sequence[float] | None = None
) -> HausdorffDistance:
    """Both distances of two masks, two- or three-dimensional. Everything but 0 counts as inside.

    Memory beyond the masks and their outlines grows with the boundary pixels, time with their
    number times its logarithm.

    Parameters
    ----------
    truth, prediction
        Of one shape, (Y, X) or (Z, Y, X).
    spacing
        Distance from pixel to pixel along each axis, or one number for all; None is 1, which gives
        pixels. With a pixel size in micrometres the result is in micrometres.

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

    As `spacing` it gives distances as the papers have them: Co-Seg++ resizes all images so, "during
    the fine-tuning and evaluation stage" (section 4.1), and measures in those pixels. Here the
    outlines are stretched and not the masks resampled, which moves an outline by no more
    than half a pixel of the image.
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
    """How far each boundary pixel is from the nearest one of the other mask.

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
    """Pixels of a mask that touch its outside, or the image's end, across a side.

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
    # A tree of the outlines: a distance transform of the whole image takes several times its
    # memory, and on outlines of regions four times as long.
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
