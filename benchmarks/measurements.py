"""Time and memory of measuring synthetic nuclei, without an image and with its stains.

python benchmarks/measurements.py
"""

from __future__ import annotations

import numpy as np
from measuring import HEADER, NUCLEI_AT_4096, SIZES_PX, measured

from cases.synthetic import nuclei
from napari_coseg.core.types import Image, Instances, LabelClass, Prediction
from napari_coseg.labels.measure import class_table, object_table
from napari_coseg.labels.measure.run import Measurements, measure

GLAND_PX = 600


def prediction(size_px: int) -> Prediction:
    labels = nuclei(size_px, round(NUCLEI_AT_4096 * (size_px / 4096) ** 2))
    y, x = np.indices(labels.shape, dtype=np.float32)
    half = GLAND_PX / 2
    glands = np.hypot(y % GLAND_PX - half, x % GLAND_PX - half) < 180
    kinds = np.arange(labels.max()) % 3 + 1
    table = object_table(labels, pixel_size_um=(0.5, 0.5), known=class_table(kinds))
    classes = tuple(LabelClass(i, f"class {i}", (0, 0, 0)) for i in (1, 2, 3))
    semantic = glands.astype(np.uint8)
    gland = LabelClass(1, "gland", (0, 0, 0))
    return Prediction(semantic, (gland,), Instances(labels, table, classes), (0.5, 0.5))


def main() -> None:
    print(HEADER)
    for size_px in SIZES_PX:
        found = prediction(size_px)
        colours = np.random.default_rng(0).integers(60, 255, (size_px, size_px, 3), np.uint8)
        for name, image in (("shape", None), ("shape and stains", Image(colours, "YXC"))):
            row = measured(lambda found=found, image=image: measure(found, image))
            assert isinstance(row.result, Measurements)
            print(row.line(f"{len(row.result.objects)} objects, {name}", size_px))


if __name__ == "__main__":
    main()
