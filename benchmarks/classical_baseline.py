"""Classical baseline: colour deconvolution, a threshold and a watershed.

    python benchmarks/classical_baseline.py [--root DATA] [--split test]

Scores on nuclei of CoNSeP and glands of GlaS. Parameters were chosen on the training images.
"""

from __future__ import annotations

import argparse

import numpy as np
from baseline_scores import data_root, score_glands, score_nuclei, write_row
from scipy import ndimage
from skimage.color import rgb2hed
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.morphology import disk, remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.registry import open_dataset

NUCLEUS_SMOOTHING_UM = 0.25
NUCLEUS_RADIUS_UM = 2.5
NUCLEUS_MIN_UM2 = 5.0
GLAND_PIXEL_UM = 2.0
GLAND_SMOOTHING_UM = 8.0
GLAND_MIN_UM2 = 1500.0
LUMEN_MAX_UM2 = 20000.0


def segment_nuclei(sample: Sample) -> np.ndarray:
    """Otsu threshold of hematoxylin, then a watershed on the distance to the background."""
    pixel = sample.pixel_size_um
    hematoxylin = gaussian(rgb2hed(sample.image)[..., 0], NUCLEUS_SMOOTHING_UM / pixel)
    mask = hematoxylin > threshold_otsu(hematoxylin)
    least = round(NUCLEUS_MIN_UM2 / pixel**2)
    mask = remove_small_objects(ndimage.binary_opening(mask, disk(2)), max_size=least)
    mask = remove_small_holes(mask, max_size=least)
    distance = gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=round(NUCLEUS_RADIUS_UM / pixel), labels=mask)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=mask).astype(np.int32)


def segment_glands(sample: Sample) -> np.ndarray:
    """Otsu threshold of smoothed hematoxylin (dense in epithelium), with lumina filled."""
    shrink = round(GLAND_PIXEL_UM / sample.pixel_size_um)
    hematoxylin = rgb2hed(sample.image)[..., 0]
    score = gaussian(hematoxylin, GLAND_SMOOTHING_UM / sample.pixel_size_um)[::shrink, ::shrink]
    mask = ndimage.binary_opening(score > threshold_otsu(score), disk(2))
    area = (shrink * sample.pixel_size_um) ** 2
    mask = remove_small_objects(mask, max_size=round(GLAND_MIN_UM2 / area))
    mask = remove_small_holes(mask, max_size=round(LUMEN_MAX_UM2 / area))
    full = mask.repeat(shrink, axis=0).repeat(shrink, axis=1)
    return full[: sample.image.shape[0], : sample.image.shape[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", help="folder with consep and glas")
    parser.add_argument("--split", choices=("train", "test"), default="test")
    arguments = parser.parse_args()
    root = data_root(arguments.root)
    glas_split = "testA" if arguments.split == "test" else "train"
    nuclei = open_dataset("consep", root).load_all(arguments.split)
    scores, _ = score_nuclei(nuclei, segment_nuclei)
    write_row({"baseline": "classical", "task": "nuclei", "split": arguments.split}, scores)
    glands = open_dataset("glas", root).load_all(glas_split)
    scores, _ = score_glands(glands, segment_glands)
    write_row({"baseline": "classical", "task": "glands", "split": glas_split}, scores)
    scores, _ = score_glands(glands, lambda sample: np.ones(sample.image.shape[:2], bool))
    write_row({"baseline": "all gland", "task": "glands", "split": glas_split}, scores)


if __name__ == "__main__":
    main()
