"""Contingency table and the scores from it: time and memory against the image's size.

python benchmarks/metrics.py
"""

from __future__ import annotations

import numpy as np
from measuring import HEADER, NUCLEI_AT_4096, SIZES_PX, measured

from napari_coseg.metrics.instances import (
    aggregated_jaccard_index,
    by_class,
    contingency,
    panoptic_quality,
)
from synthetic import nuclei


def scores(truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    """PQ and AJI of all, and PQ of each of four made-up classes."""
    table = contingency(truth, prediction)
    classes = by_class(table, table.truth_ids % 4, table.prediction_ids % 4)
    for restricted in classes.values():
        panoptic_quality(restricted)
    return panoptic_quality(table).pq, aggregated_jaccard_index(table)


def main() -> None:
    print(HEADER)
    for size in SIZES_PX:
        truth = nuclei(size, NUCLEI_AT_4096 * size**2 // 4096**2, radius_px=(5, 22))
        prediction = np.roll(truth, 3, axis=1)
        found = measured(lambda pair=(truth, prediction): scores(*pair))
        print(found.line(f"{truth.max():,} against {prediction.max():,} objects", size), flush=True)


if __name__ == "__main__":
    main()
