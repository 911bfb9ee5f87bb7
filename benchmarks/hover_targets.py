"""Time and memory of horizontal and vertical maps from labels, by image size.

python benchmarks/hover_targets.py
"""

from __future__ import annotations

from measuring import HEADER, NUCLEI_AT_4096, SIZES_PX, measured

from cases.synthetic import nuclei
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps


def main() -> None:
    print(HEADER)
    for size in SIZES_PX:
        labels = nuclei(size, NUCLEI_AT_4096 * size**2 // 4096**2, radius_px=(5, 22))
        found = measured(lambda labels=labels: horizontal_vertical_maps(labels))
        print(found.line(f"{labels.max():,} nuclei", size), flush=True)


if __name__ == "__main__":
    main()
