"""Time, memory and quality of decoding maps to objects and types, by image size.

    python benchmarks/decoding.py

Maps are exact ("sharp"), or blurred by a pixel with noise of 0.1 ("blurred").
"""

from __future__ import annotations

import numpy as np
from measuring import HEADER, NUCLEI_AT_4096, SIZES_PX, measured
from scipy.ndimage import gaussian_filter

from cases.synthetic import nuclei, one_hot
from napari_coseg.labels.decoding.hover import classify, decode_instances
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
from napari_coseg.labels.metrics.instances import contingency, panoptic_quality

TYPES = 4


def damaged(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = 0.1 * rng.standard_normal(maps.shape, dtype=np.float32)
    return gaussian_filter(maps, (0, 1, 1)) + noise


def main() -> None:
    rng = np.random.default_rng(0)
    print(HEADER)
    for size in SIZES_PX:
        labels = nuclei(size, NUCLEI_AT_4096 * size**2 // 4096**2, radius_px=(5, 22))
        probability = (labels > 0).astype(np.float32)[None]
        hv = horizontal_vertical_maps(labels)
        types = one_hot(labels, rng.integers(1, TYPES + 1, labels.max()), TYPES)
        for name in ("sharp", "blurred"):
            if name == "blurred":
                probability, hv = damaged(probability, rng), damaged(hv, rng)
            decoded = measured(lambda p=probability[0], hv=hv: decode_instances(p, hv))
            print(decoded.line(f"{name}, {labels.max():,} nuclei: objects", size))
            found = np.asarray(decoded.result)
            typed = measured(lambda found=found, types=types: classify(found, types))
            print(typed.line(f"{name}: their types", size))
            quality = panoptic_quality(contingency(labels, found))
            print(
                f"    PQ {quality.pq:.4f}; {quality.false_negatives} false negatives, "
                f"{quality.false_positives} false positives",
                flush=True,
            )


if __name__ == "__main__":
    main()
