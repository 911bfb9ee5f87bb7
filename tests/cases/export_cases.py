"""Labels that are hard to export, and predictions made of them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_coseg.core.types import Image, LabelClass
from napari_coseg.labels.measure import class_table, labelled

GLAND = LabelClass(1, "gland", (0, 200, 0))
STROMA = LabelClass(2, "stroma", (200, 0, 200))
REGIONS = (GLAND, STROMA)
TYPES = (LabelClass(1, "epithelial", (255, 0, 0)), LabelClass(2, "naïve, µ", (0, 0, 255)))


def drawn(*rows):
    """Digits are labels, dots are background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)


def many():
    labels = np.zeros((512, 516), np.int32)
    labels[::2, ::2] = np.arange(1, 256 * 258 + 1).reshape(256, 258)
    return labels


def large_ids():
    """A few objects whose ids 16 bits would fold onto others', or onto background."""
    labels = np.zeros((60, 70), np.int32)
    labels[2::6, 2::6] = np.arange(65_480, 65_600).reshape(10, 12)
    labels[3::6, 2::6] = np.arange(1, 121).reshape(10, 12)
    return labels


def noise(shape=(40, 50), labels=5, seed=0):
    return np.random.default_rng(seed).integers(0, labels, shape).astype(np.int32)


TOUCHING = drawn("1122.", "1122.", "33224", "33444")
HOLES = drawn("111111", "1.1.11", "111111", "1.22.1", "112211")
HOLE_AT_A_CORNER = drawn(".11", "1.1", "111")
NESTED = drawn("1111111", "1.....1", "1.222.1", "1.2.2.1", "1.222.1", "1.....1", "1111111")
DIAGONAL = drawn("1..2", ".12.", ".21.", "2..1")
ONE_PIXEL_EACH = drawn("1.2", "...", "3.4")

PLANES = [
    pytest.param(TOUCHING, id="objects that touch"),
    pytest.param(HOLES, id="holes"),
    pytest.param(HOLE_AT_A_CORNER, id="a hole that meets the outside at a corner"),
    pytest.param(NESTED, id="an object within the hole of another"),
    pytest.param(DIAGONAL, id="pixels that touch at corners only"),
    pytest.param(ONE_PIXEL_EACH, id="one pixel each"),
    pytest.param(np.zeros((7, 9), np.int32), id="nothing"),
    pytest.param(np.ones((1, 1), np.int32), id="one pixel in all"),
    pytest.param(np.ones((3, 5), np.int32), id="all of it"),
    pytest.param(noise(), id="noise"),
]
OVER_65535 = pytest.param(many(), id="66,048 objects")
IDS_OVER_65535 = pytest.param(large_ids(), id="ids above 65,535")
STACK = pytest.param(np.stack([TOUCHING, TOUCHING * 0, TOUCHING.max() + 1 - TOUCHING]), id="stack")


def prediction(labels, semantic=None, size=None, classes=TYPES, regions=REGIONS, **provenance):
    """Types alternate from object to object; every fifth probability is not known."""
    if semantic is None:
        semantic = (labels % 3).astype(np.uint8)
    size = size or (2.0, 0.5, 0.25)[-labels.ndim :]
    count = int(labels.max(initial=0))
    sure = np.linspace(0.5, 1.0, count)
    sure[4::5] = np.nan
    return labelled(
        labels,
        semantic,
        pixel_size_um=size,
        known=class_table(np.arange(count) % 2 + 1 if classes else np.zeros(count, int), sure),
        classes=classes,
        region_classes=regions,
        provenance=provenance,
    )


def grey(labels, name="a"):
    return Image(np.full(labels.shape, 200, np.uint8), "ZYX"[-labels.ndim :], name=name)
