"""Panoptic quality in 3D of linking slices whose labels are known, and its time.

    python benchmarks/linking.py

Objects of a volume are cut into slices, their ids are forgotten, and the slices are linked again.
"whole": one label per object and slice; "apart": one for each connected piece (roots of a tooth);
"damaged": of these, a tenth left out, a tenth of touching neighbours merged, a twentieth split.
"one to one" continues each object with the one piece of the next slice that overlaps it most.
The first volume is generated. Teeth and cells are read where `NAPARI_COSEG_DATA` has them; teeth
are separated by watershed, which finds 28.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import measuring  # noqa: F401  (finds the tests' cases)
import numpy as np

from cases.data_root import data_root
from cases.linking_cases import apart, damaged, generated_teeth, numbered
from napari_coseg.labels.metrics.instances import PanopticQuality, contingency, panoptic_quality
from napari_coseg.labels.tiling.link import link_slices
from napari_coseg.labels.tiling.stitch import overlaps

LABELS_OF_TEETH = (3, 4)
LINKED_PART = 0.5


def volumes() -> Iterator[tuple[str, np.ndarray]]:
    yield "generated teeth", generated_teeth()
    data = data_root()
    if data is None:
        print("no shared data: only what is generated")
        return
    yield "teeth (CBCT)", watershed_teeth(data / "dental")
    yield from cells(data / "plantseg")


def watershed_teeth(folder: Path) -> np.ndarray:
    """int32 (Z, Y, X): teeth of a label volume whose teeth touch, each with its own id."""
    from scipy import ndimage as ndi
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    from napari_coseg.datasets.slices import read_numbers
    from napari_coseg.images.volumes import read_header

    header = read_header(next(folder.glob("*.nii.gz")))
    volume = header.upright(read_numbers(header))
    teeth = np.zeros(volume.shape, np.int32)
    for label in LABELS_OF_TEETH:
        box = ndi.find_objects((volume == label).astype(np.uint8))[0]
        inside = np.pad(volume[box] == label, 1)
        # A tooth is long: distances along it count less, so that it stays one.
        depth = ndi.distance_transform_edt(inside, sampling=(0.4, 1, 1))
        depth = ndi.gaussian_filter(depth, (2.6, 1, 1)).astype(np.float32)
        markers, _ = ndi.label(h_maxima(depth, 0.7))
        found = watershed(-depth, markers, mask=inside)[1:-1, 1:-1, 1:-1]
        teeth[box] = np.where(found > 0, found + teeth.max(), teeth[box])
    return np.pad(teeth[ndi.find_objects((teeth > 0).astype(np.uint8))[0]], 2)


def cells(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    import tifffile

    for path in sorted(folder.glob("*_cells.tif")):
        yield f"cells {path.stem.removesuffix('_cells')}", tifffile.imread(path).astype(np.int32)


def one_to_one(pieces: np.ndarray, count: int) -> np.ndarray:
    """The rule before: each piece continues one, the largest part of the smaller first."""
    linked, ids = np.zeros_like(pieces), np.arange(count + 1)
    for z, labels in enumerate(pieces):
        found = overlaps(linked[z - 1] if z else np.zeros_like(labels), labels)
        part, taken = found.of_smaller, set()
        order = np.lexsort((found.second, found.first, -found.shared, -part))
        for i in order[part[order] >= LINKED_PART]:
            before, now = int(found.first[i]), int(found.second[i])
            if before not in taken and ids[now] == now:
                ids[now] = before
                taken.add(before)
        linked[z] = ids[labels]
    return linked


def quality(objects: np.ndarray, found: np.ndarray) -> PanopticQuality:
    return panoptic_quality(contingency(objects, found))


def main() -> None:
    print(
        f"{'volume':<22}{'slices':<16}{'objects':>8}{'one to one':>16}"
        f"{'many to one':>16}{'CPU s':>7}"
    )
    for name, objects in volumes():
        for kind, slices in (
            ("whole", objects),
            ("apart", apart(objects)),
            ("whole, damaged", damaged(objects)),
            ("apart, damaged", damaged(apart(objects))),
        ):
            pieces, count = numbered(slices)
            before = quality(objects, one_to_one(pieces, count))
            start = time.process_time()
            link_slices(pieces, count)
            seconds = time.process_time() - start
            now = quality(objects, pieces)
            print(
                f"{name:<22}{kind:<16}{now.truth_count:>8}"
                f"{before.prediction_count:>9}{before.pq:7.3f}"
                f"{now.prediction_count:>9}{now.pq:7.3f}{seconds:7.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
