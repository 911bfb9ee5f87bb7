"""Tables by counting agree with scikit-image's, object by object."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from cases.synthetic import nuclei
from napari_coseg.core.types import LabelClass
from napari_coseg.labels.editing.index import ObjectIndex
from napari_coseg.labels.measure import (
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    class_table,
    object_table,
    region_table,
)
from napari_coseg.labels.measure.rows import CLASS_COLUMNS

REGIONS = (LabelClass(1, "gland", (1, 1, 1)), LabelClass(4, "fat", (2, 2, 2)))


def with_holes_in_its_ids():
    labels = nuclei(160, 60)
    labels[labels == 3] = 0
    return np.where(labels == 7, 500, labels).astype(np.uint16)


CASES = [
    pytest.param(nuclei(600, 300), (0.5, 0.25), id="more rows than a band"),
    pytest.param(np.stack([nuclei(160, 60)] * 3), (2.0, 0.5, 0.25), id="stack"),
    pytest.param(with_holes_in_its_ids(), (1.0, 1.0), id="ids with holes"),
    pytest.param(np.zeros((8, 9), np.int32), (1.0, 1.0), id="nothing"),
    pytest.param(np.zeros((3, 8, 9), np.int32), (1.0, 1.0, 1.0), id="nothing in a stack"),
]


@pytest.mark.parametrize(("labels", "size"), CASES)
def test_every_object_is_measured(labels, size):
    regionprops = pytest.importorskip("skimage.measure").regionprops
    table = object_table(labels, pixel_size_um=size)
    expected = regionprops(labels)
    stack = labels.ndim == 3
    assert tuple(table.columns) == (STACK_OBJECT_COLUMNS if stack else OBJECT_COLUMNS)
    assert table["id"].tolist() == [region.label for region in expected]
    axes = "zyx"[-labels.ndim :]
    for row, region in zip(table.to_dict("records"), expected, strict=True):
        assert [row[f"centroid_{a}"] for a in axes] == pytest.approx(region.centroid)
        box = [row[f"bbox_{a}0"] for a in axes] + [row[f"bbox_{a}1"] for a in axes]
        assert box == list(region.bbox)
        if stack:
            assert row["volume_um3"] == pytest.approx(region.area * np.prod(size))
            largest = (labels == region.label).sum((1, 2)).max()
            assert row["area_um2"] == pytest.approx(largest * size[1] * size[2])
        else:
            assert row["area_um2"] == pytest.approx(region.area * np.prod(size))


def test_an_object_lies_in_the_region_with_most_of_its_pixels():
    labels, semantic = np.zeros((2, 12), np.int32), np.zeros((2, 12), np.uint8)
    labels[:, 0:4], labels[:, 4:8], labels[:, 8:12] = 1, 2, 3
    semantic[:, 3:7], semantic[:, 9:] = 1, 4
    table = object_table(labels, semantic, pixel_size_um=(1, 1), semantic_classes=REGIONS)
    assert table["region_id"].tolist() == [0, 1, 4]
    assert table["region"].tolist() == ["background", "gland", "fat"]


def test_regions_are_counted_with_their_objects_and_density():
    labels, semantic = np.zeros((10, 10), np.int32), np.zeros((10, 10), np.uint8)
    semantic[:, :4] = 1
    labels[0, 0], labels[5, 5], labels[7, 7] = 1, 2, 3
    table = object_table(labels, semantic, pixel_size_um=(2, 5), semantic_classes=REGIONS)
    regions = region_table(semantic, table, pixel_size_um=(2, 5), semantic_classes=REGIONS)
    assert regions["region"].tolist() == ["background", "gland", "fat"]
    assert regions["area_um2"].tolist() == [600, 400, 0]
    assert regions["objects"].tolist() == [2, 1, 0]
    assert regions["objects_per_mm2"].tolist()[:2] == pytest.approx([2 / 6e-4, 1 / 4e-4])
    assert np.isnan(regions["objects_per_mm2"].iloc[2])


def test_memory_grows_with_the_objects_and_not_with_their_ids():
    labels = np.zeros((96, 80), np.int64)
    labels[2:9, 3:40], labels[20:30, :5], labels[60:, 70:] = 2**31 - 1, 3, 20_000_000
    regions = np.where(labels == 3, 60_000, 0).astype(np.uint16)
    known = class_table([2, 1], [0.5, 0.25], [20_000_000, 4])
    tracemalloc.start()
    found = object_table(labels, regions, pixel_size_um=(1, 1), known=known)
    index = ObjectIndex.of(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20
    assert found["id"].tolist() == index.ids.tolist() == [3, 20_000_000, 2**31 - 1]
    assert found["class_id"].tolist() == [0, 2, 0]
    assert found["class_probability"].fillna(-1).tolist() == [-1, 0.5, -1]
    assert found["region_id"].tolist() == [60_000, 0, 0]
    small = object_table(np.searchsorted([0, *found["id"]], labels), regions, pixel_size_um=(1, 1))
    kept = [column for column in found if column not in CLASS_COLUMNS]
    pd.testing.assert_frame_equal(found[kept], small[kept])
