"""Objects of one piece each, without small holes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cases.data_root import data_root
from cases.stub_models import OracleModel, truth_picture
from cases.synthetic import nuclei
from napari_coseg import segment
from napari_coseg.core.card import Decoding
from napari_coseg.datasets.registry import open_dataset
from napari_coseg.inference.settings import InferenceSettings
from napari_coseg.labels.decoding.hover import HoverSettings, decode_instances
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
from napari_coseg.labels.decoding.pieces import tidy_objects
from napari_coseg.labels.metrics.instances import contingency, panoptic_quality


def picture(text: str) -> np.ndarray:
    """Rows apart by a space; ``.`` is 0."""
    rows = [[0 if c == "." else int(c) for c in line] for line in text.split()]
    return np.array(rows, dtype=np.int32)


# before, largest hole, after
TIDIED = {
    "the largest piece stays": ("11.1 11.. ....", 0, "11.. 11.. ...."),
    "corners do not join": ("11. 11. ..1", 0, "11. 11. ..."),
    "of equal pieces the first": ("1.1", 0, "1.."),
    "every object for itself": ("11.2 ...2 1.22", 0, "11.2 ...2 ..22"),
    "neighbours are not pieces": ("1122 1122", 0, "1122 1122"),
    "a hole is filled": ("111 1.1 111", 1, "111 111 111"),
    "a hole above the bound stays": ("1111 1..1 1111", 1, "1111 1..1 1111"),
    "a bay is no hole": ("111 1.1 1.1", 9, "111 1.1 1.1"),
    "what two objects enclose is no hole": ("112 1.2 122", 9, "112 1.2 122"),
    "a stray piece in a hole goes with it": ("22222 2.122 22222 ....1 ...11", 9, None),
    "nothing": ("...", 9, "..."),
}


@pytest.mark.parametrize(("before", "hole", "after"), TIDIED.values(), ids=TIDIED)
def test_objects_are_tidied(before: str, hole: int, after: str | None) -> None:
    labels = picture(before)
    kept = labels.copy()
    expected = picture(after or "22222 22222 22222 ....1 ...11")
    found = tidy_objects(labels, hole)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(labels, kept)


@pytest.mark.parametrize(
    ("goes_on", "after"),
    [
        (((False, True), (False, False)), "1.1 1.1 1.1"),
        (((False, False), (False, True)), "1.1 1.1 1.1"),
        (((True, False), (False, False)), "1.1 1.1 1.1"),
        (((False, False), (False, False)), "1.. 1.. 1.."),
    ],
    ids=["below", "right", "above", "whole"],
)
def test_an_object_that_goes_on_beyond_the_window_keeps_its_pieces(goes_on, after: str) -> None:
    np.testing.assert_array_equal(tidy_objects(picture("1.1 1.1 1.1"), 0, goes_on), picture(after))


@pytest.mark.parametrize("block_px", [64, 2048])
@pytest.mark.parametrize("pixel_size_um", [0.25, 0.3, 0.5, 0.8])
def test_objects_of_a_run_are_of_one_piece(pixel_size_um: float, block_px: int) -> None:
    labels = nuclei(256, 160, seed=4)
    image = truth_picture(labels)
    image[::7, ::5] = 0  # torn masks
    settings = InferenceSettings(decode_block_px=block_px, max_object_hole_area_um2=1)
    found = segment(image, OracleModel(), pixel_size_um, settings=settings).instances.labels
    assert found.max() > 20
    largest_hole = int(1 / pixel_size_um**2)
    for number, place in enumerate(ndimage.find_objects(found), start=1):
        mask = found[place] == number
        assert ndimage.label(mask)[1] == 1
        holes, count = ndimage.label(~np.pad(mask, 1))
        outside = np.pad(found[place], 1)
        for hole in range(2, count + 1):
            assert (holes == hole).sum() > largest_hole or outside[holes == hole].any()


def quality_of_perfect_maps(labels: np.ndarray, least_um2: float) -> float:
    """PQ of what is decoded from perfect maps at 0.25 um, as a run does it."""
    decoding, px_um2 = Decoding(), 0.25**2
    hover = HoverSettings(min_object_area_px=int(np.ceil(least_um2 / px_um2)))
    maps = (labels > 0).astype(np.float32), horizontal_vertical_maps(labels)
    found = decode_instances(*maps, hover)
    found = tidy_objects(found, int(decoding.max_object_hole_area_um2 / px_um2))
    return panoptic_quality(contingency(labels, found)).pq


def test_perfect_maps_of_generated_nuclei_give_them_back() -> None:
    labels = [nuclei(512, 180, seed, radius_px=(5, 22)) for seed in range(3)]
    qualities = [quality_of_perfect_maps(one, 4.0) for one in labels]
    assert np.mean(qualities) > 0.98


@pytest.mark.data
@pytest.mark.parametrize(("least_um2", "quality"), [(1.0, 0.98), (2.0, 0.97), (4.0, 0.92)])
def test_perfect_maps_of_consep_give_its_nuclei_back(least_um2: float, quality: float) -> None:
    """What the resolution of the targets allows, and what the smallest area costs of it."""
    root = data_root()
    if root is None or not (root / "consep").is_dir():
        pytest.skip("no shared research images here (set NAPARI_COSEG_DATA); the twin ran")
    dataset = open_dataset("consep", root)
    names = dataset.names("train")[::3]
    loaded = (dataset.load("train", name) for name in names)
    qualities = [quality_of_perfect_maps(sample.instances, least_um2) for sample in loaded]
    assert np.mean(qualities) >= quality, qualities
