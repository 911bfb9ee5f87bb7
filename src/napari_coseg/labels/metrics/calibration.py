"""Expected calibration error (Guo et al. 2017, equation 3)."""

from __future__ import annotations

import numpy as np


def calibration_error(probabilities: np.ndarray, target: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, over bins of confidence of equal width.

    Parameters
    ----------
    probabilities
        Float (N, C), each row sums to 1.
    target
        Integer (N,), the right column.

    Returns
    -------
    float
        0 (a confidence of 0.8 is right in 80 % of cases) to 1; NaN without rows.
    """
    if not len(target):
        return float("nan")
    chosen = probabilities.argmax(axis=1)
    confidence = probabilities[np.arange(len(target)), chosen]
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, (chosen == target) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(target))
