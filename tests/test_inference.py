"""`segment`: tiles, kinds of images, stacks, progress, cancelling and memory."""

from __future__ import annotations

import gc
import json
import weakref

import numpy as np
import pytest
import tifffile
import torch

from cases.stub_models import (
    BLUE,
    OracleModel,
    StubModel,
    disc_picture,
    spread_discs,
    stub_card,
    truth_picture,
)
from cases.synthetic import nuclei
from napari_coseg.core.errors import Cancelled, ImageError, SettingsError
from napari_coseg.images.intake import RgbSource
from napari_coseg.inference import InferenceSettings, segment, understand
from napari_coseg.labels.measure import OBJECT_COLUMNS, STACK_OBJECT_COLUMNS, region_table
from napari_coseg.labels.metrics.instances import contingency, panoptic_quality
from test_stitch import same_partition

SHAPE = (200, 312)
EXACT = InferenceSettings(min_object_area_um2=0, min_region_area_um2=0, max_hole_area_um2=0)
TILED = EXACT.model_copy(update={"tile_size_px": 96, "halo_px": 24, "decode_block_px": 96})
WHOLE = EXACT.model_copy(update={"tile_size_px": 1024, "decode_block_px": 2048})


@pytest.fixture(scope="module")
def model():
    return StubModel()


@pytest.fixture(scope="module")
def picture():
    tissue = (slice(40, 160), slice(50, 260))
    return disc_picture(SHAPE, spread_discs(SHAPE), tissue=tissue)


# ---------------------------------------------------------------------------------------------
# Tiles


def test_every_disc_is_found_once_with_its_class_and_region(model, picture):
    image, labels = picture
    found = segment(image, model, 0.5, settings=WHOLE)
    assert found.semantic.dtype == np.uint8
    assert found.instances.labels.dtype == np.int32
    assert same_partition(found.instances.labels, labels)
    assert tuple(found.instances.table.columns) == OBJECT_COLUMNS
    table = found.instances.table
    assert table["id"].tolist() == list(range(1, labels.max() + 1))
    for row in table.itertuples():
        y, x = round(row.centroid_y), round(row.centroid_x)
        assert row.class_id == 1 + (labels[y, x] - 1) % 2
        assert row.class_probability > 0.9
        inside = labels == labels[y, x]
        assert row.area_um2 == pytest.approx(inside.sum() * 0.25)
    assert set(table["region"]) == {"tissue"}, "objects are darker than tissue, so they are in it"


def test_tiled_equals_whole(model, picture):
    image, _ = picture
    whole = segment(image, model, 0.5, settings=WHOLE)
    tiled = segment(image, model, 0.5, settings=TILED)
    np.testing.assert_array_equal(tiled.semantic, whole.semantic)
    assert same_partition(tiled.instances.labels, whole.instances.labels)
    by = ["bbox_y0", "bbox_x0"]
    a, b = (p.instances.table.sort_values(by).drop(columns="id") for p in (whole, tiled))
    np.testing.assert_array_equal(a["class_id"], b["class_id"])
    np.testing.assert_allclose(a["centroid_y"], b["centroid_y"])


@pytest.mark.parametrize("pixel_size_um", [0.25, 0.37, 1.0, (0.25, 0.5)], ids=str)
def test_tiled_equals_whole_on_another_grid(model, pixel_size_um):
    shape = (160, 208)
    image, _ = disc_picture(shape, spread_discs(shape, step=40), radius=11)
    whole = segment(image, model, pixel_size_um, settings=WHOLE)
    tiled = segment(image, model, pixel_size_um, settings=TILED)
    np.testing.assert_array_equal(tiled.semantic, whole.semantic)
    assert same_partition(tiled.instances.labels, whole.instances.labels)


@pytest.mark.parametrize("settings", [WHOLE, TILED], ids=["whole", "tiled"])
def test_exact_maps_give_every_touching_nucleus(settings):
    labels = nuclei(300, 200, seed=4)
    settings = settings.model_copy(update={"min_object_area_um2": 2.5})
    found = segment(truth_picture(labels), OracleModel(), 0.5, settings=settings)
    quality = panoptic_quality(contingency(labels, found.instances.labels))
    assert quality.recall > 0.99
    assert quality.precision > 0.99
    assert quality.sq > 0.99


@pytest.mark.parametrize("position", [(64, 96), (64, 90), (30, 96), (65.5, 93.5)], ids=str)
def test_a_nucleus_across_a_seam_is_one_nucleus(model, position):
    image, labels = disc_picture((128, 192), [position])
    found = segment(image, model, 0.5, settings=TILED)
    assert len(found.instances) == 1
    np.testing.assert_array_equal(found.instances.labels, labels)


def test_results_are_on_the_image_s_grid_if_it_is_finer(model):
    image, labels = disc_picture((240, 240), [(60, 60), (60, 140), (150, 100)], radius=12)
    found = segment(image, model, 0.25, settings=EXACT)
    assert found.instances.labels.shape == (240, 240)
    assert len(found.instances) == 3
    assert ((found.instances.labels > 0) == (labels > 0)).mean() > 0.99


def test_flips_change_nothing_for_a_symmetric_network(model, picture):
    image, _ = picture
    plain = segment(image, model, 0.5, settings=WHOLE)
    flipped = WHOLE.model_copy(update={"test_time_augmentation": True})
    averaged = segment(image, model, 0.5, settings=flipped)
    np.testing.assert_array_equal(plain.semantic, averaged.semantic)
    assert same_partition(plain.instances.labels, averaged.instances.labels)


def test_small_objects_regions_and_holes_are_removed_by_area_in_um2(model):
    tissue = np.full((160, 160, 3), 250, np.uint8)
    tissue[20:100, 20:100] = (240, 190, 215)
    tissue[50:54, 50:54] = 250
    tissue[130:134, 130:134] = (240, 190, 215)
    settings = InferenceSettings(
        min_object_area_um2=0, min_region_area_um2=4.1, max_hole_area_um2=4.1
    )
    found = segment(tissue, model, 0.5, settings=settings)
    expected = np.zeros((160, 160), np.uint8)
    expected[20:100, 20:100] = 1
    np.testing.assert_array_equal(found.semantic, expected)
    image, _ = disc_picture((64, 64), [(20, 20)], radius=6)
    area = (113 - 4) * 0.25
    for least, count in ((area * 0.9, 1), (area * 1.2, 0)):
        settings = InferenceSettings(min_object_area_um2=least)
        assert len(segment(image, model, 0.5, settings=settings).instances) == count


@pytest.mark.parametrize("unlimited", [float("inf"), 1e308, "inf"])
def test_unlimited_areas_remove_everything(model, unlimited):
    image, _ = disc_picture((64, 64), [(20, 20), (44, 44)], tissue=(slice(8, 60), slice(8, 60)))
    image[30:34, 20:24] = disc_picture((4, 4), [], tissue=(slice(0), slice(0)))[0]
    found = {}
    for area in ("min_object_area_um2", "min_region_area_um2", "max_hole_area_um2"):
        settings = InferenceSettings.from_mapping(EXACT.model_dump() | {area: unlimited})
        found[area] = segment(image, model, 0.5, settings=settings)
        json.dumps(found[area].provenance, allow_nan=False)
    assert len(found["min_object_area_um2"].instances) == 0
    assert not found["min_region_area_um2"].semantic.any()
    assert found["min_object_area_um2"].semantic[30:34, 20:24].min() == 0
    assert found["max_hole_area_um2"].semantic[30:34, 20:24].all()


def test_large_planes_are_cleaned_in_windows_with_the_same_result(model, monkeypatch):
    rng = np.random.default_rng(5)
    image = np.full((200, 304, 3), 250, np.uint8)
    for y, x in rng.integers(0, (196, 300), (150, 2)):
        image[y : y + 4, x : x + 6] = (240, 190, 215)
    image[30:170, 40:200] = (240, 190, 215)
    for y, x in rng.integers((32, 42), (165, 195), (40, 2)):
        image[y : y + 3, x : x + 3] = 250
    settings = EXACT.model_copy(update={"min_region_area_um2": 9, "max_hole_area_um2": 5})
    whole = segment(image, model, settings=settings).semantic
    assert (whole != segment(image, model, settings=EXACT).semantic).any()
    monkeypatch.setattr("napari_coseg.inference.plane.CLEANED_AT_ONCE_PX", 112)
    np.testing.assert_array_equal(segment(image, model, settings=settings).semantic, whole)


def test_models_without_regions_or_types_give_empty_ones():
    bare = StubModel(stub_card(semantic_classes=[], instance_classes=[]))
    image, labels = disc_picture((64, 64), [(20, 20), (40, 44)])
    found = segment(image, bare, settings=EXACT)
    assert not found.semantic.any()
    assert same_partition(found.instances.labels, labels)
    assert found.instances.table["class"].tolist() == ["object", "object"]
    assert found.instances.table["region"].tolist() == ["background", "background"]
    assert found.instances.table["class_probability"].isna().all()


# ---------------------------------------------------------------------------------------------
# Kinds of images

RGB = disc_picture((64, 96), [(20, 20), (40, 60)])[0]
TINY = [(1, 1), (1, 40), (37, 1501), (5, 3), (63, 65)]


@pytest.mark.parametrize("shape", TINY, ids=str)
def test_odd_sizes(model, shape):
    image = np.full((*shape, 3), 250, np.uint8)
    image[: shape[0] // 2 + 1] = BLUE
    found = segment(image, model, axes="YXC", settings=EXACT)
    assert found.semantic.shape == found.instances.labels.shape == shape
    np.testing.assert_array_equal(found.semantic, image[..., 1] < 225)


def test_a_few_non_finite_values_are_replaced_with_a_warning(model):
    image = RGB.astype(np.float32)
    image[0, 0, 0], image[0, 1, 0], image[0, 2, 0] = np.nan, np.inf, -np.inf
    with pytest.warns(UserWarning, match="3 values are not finite"):
        found = segment(image, model, settings=EXACT)
    assert "3 values that are not finite" in found.provenance["intensity"]
    assert len(found.instances) == 2


REFUSED = [
    pytest.param(np.zeros((0, 5)), {}, "empty", id="empty"),
    pytest.param(np.zeros(7), {}, "ambiguous or not supported", id="one axis"),
    pytest.param(np.zeros((2, 2, 2, 2, 2)), {}, "ambiguous or not supported", id="five axes"),
    pytest.param(np.zeros((2, 9, 9, 2)), {}, "name the axes", id="four axes without colour"),
    pytest.param(np.zeros((9, 9), complex), {}, "whole or real", id="complex"),
    pytest.param(np.array([["a", "b"]]), {}, "whole or real", id="text"),
    pytest.param(np.array([[None, 1]]), {}, "whole or real", id="objects"),
    pytest.param("no/such/file.tif", {}, "no/such/file.tif", id="a missing file"),
    pytest.param([[1, 2], [3]], {}, "not an image", id="a ragged list"),
    pytest.param(np.full((9, 9), np.nan), {}, "finite", id="only NaN"),
    pytest.param(np.array([[-1.7e308, 1.7e308]]), {}, "too large a range", id="all of float64"),
    pytest.param(np.zeros((9, 9, 5)), {"axes": "YXC"}, "5 channels", id="five channels"),
    pytest.param(np.zeros((9, 9, 3)), {"channels": (0, 7, 1)}, "do not fit", id="channel 7"),
    pytest.param(np.zeros((9, 9)), {"axes": "XY"}, "not understood", id="unknown axes"),
    pytest.param(np.zeros((9, 9)), {"axes": "YXC"}, "name every axis", id="too many axes"),
    pytest.param(np.zeros((9, 9)), {"pixel_size_um": -1}, "positive", id="negative size"),
    pytest.param(np.zeros((9, 9)), {"pixel_size_um": (1, 1, 1)}, "has 3 numbers", id="3 sizes"),
    pytest.param(np.zeros((9, 9)), {"pixel_size_um": 250.0}, "in micrometres", id="a wrong unit"),
    pytest.param(np.zeros((9, 9)), {"region": ((0, 12), (0, 3))}, "beyond", id="region outside"),
    pytest.param(np.zeros((9, 9)), {"region": ((4, 4), (0, 3))}, "empty", id="empty region"),
]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("image", "options", "message"), REFUSED)
def test_unsupported_images_are_an_error(model, image, options, message):
    with pytest.raises(ImageError, match=message):
        segment(image, model, **options)


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_arrays_give_the_same_result(model, picture, kind):
    image, _ = picture
    if kind == "dask":
        lazy = pytest.importorskip("dask.array").from_array(image, chunks=(50, 70, 3))
    else:
        lazy = pytest.importorskip("zarr").array(image, chunks=(50, 70, 3))
    expected = segment(image, model, settings=TILED)
    found = segment(lazy, model, settings=TILED)
    np.testing.assert_array_equal(found.semantic, expected.semantic)
    np.testing.assert_array_equal(found.instances.labels, expected.instances.labels)


class Watched:
    """An array that records its largest read."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.largest = data, data.shape, data.dtype, 0

    def __getitem__(self, index):
        part = self.data[index]
        self.largest = max(self.largest, part.size)
        return part


def test_no_read_is_larger_than_a_tile_needs(model):
    image = Watched(np.full((400, 600, 3), 250, np.uint8))
    segment(image, model, 0.25, settings=TILED)
    assert image.largest <= (2 * 96 + 8) ** 2 * 3


def test_intensities_of_very_large_lazy_images_are_sampled(monkeypatch):
    monkeypatch.setattr("napari_coseg.images.intensity.SCAN_LIMIT", 1000)
    values = np.zeros((900, 900), np.uint16)
    values[200:700, 200:700] = 4000
    image = Watched(values)
    assert RgbSource(understand(image)).intensity.rule == (
        "12 bits of integers, full range (judged from a sample)"
    )
    assert image.largest <= 256**2


def test_a_path_is_read_and_its_pixel_size_taken(model, tmp_path):
    image, labels = disc_picture((64, 96), [(20, 20), (40, 60)])
    dots = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "discs.tif", image, photometric="rgb", **dots)
    found = segment(str(tmp_path / "discs.tif"), model, settings=EXACT)
    assert found.pixel_size_um == pytest.approx((0.5, 0.5))
    assert found.provenance["image"] == "discs"
    assert same_partition(found.instances.labels, labels)


def test_a_region_is_segmented_with_the_whole_image_s_intensities(model):
    image, _ = disc_picture((128, 128), [(30, 30), (90, 100)])
    deep = image.astype(np.uint16)
    deep[0, 0] = 4095
    found = segment(deep, model, 0.5, region=((60, 128), (64, 128)), settings=EXACT)
    assert found.semantic.shape == (68, 64)
    assert found.provenance["intensity"].startswith("12 bits")
    assert found.provenance["region_offset"] == [60, 64]
    found = segment(image, model, 0.5, region=(slice(60, 128), slice(64, None)), settings=EXACT)
    assert len(found.instances) == 1
    assert found.instances.table.loc[0, "centroid_y"] == pytest.approx(30)
    assert found.instances.table.loc[0, "centroid_x"] == pytest.approx(36)


def test_an_unknown_pixel_size_is_assumed_and_recorded(model):
    source = segment(RGB, model).provenance["pixel_size_from"]
    assert source.startswith("assumed")
    assert segment(RGB, model).pixel_size_um == (0.5, 0.5)
    assert not segment(RGB, model, 0.5).provenance["pixel_size_from"].startswith("assumed")


# ---------------------------------------------------------------------------------------------
# Stacks


def test_objects_of_a_stack_are_linked_across_slices(model):
    planes = [
        disc_picture((64, 96), centres)[0]
        for centres in ([(20, 20)], [(21, 22), (40, 70)], [(22, 23), (40, 71)], [(40, 72)])
    ]
    found = segment(np.stack(planes), model, (2.0, 0.5, 0.5), settings=EXACT)
    table = found.instances.table
    assert tuple(table.columns) == STACK_OBJECT_COLUMNS
    assert found.semantic.shape == found.instances.labels.shape == (4, 64, 96)
    assert table["id"].tolist() == [1, 2]
    assert table["bbox_z0"].tolist() == [0, 1]
    assert table["bbox_z1"].tolist() == [3, 4]
    assert table["centroid_z"].tolist() == pytest.approx([1, 2])
    sections = [
        (found.instances.labels == 1).sum((1, 2)),
        (found.instances.labels == 2).sum((1, 2)),
    ]
    assert table["area_um2"].tolist() == pytest.approx([s.max() * 0.25 for s in sections])
    assert table["volume_um3"].tolist() == pytest.approx([s.sum() * 0.5 for s in sections])


def test_regions_are_measured_with_their_objects(model, picture):
    image, _ = picture
    found = segment(image, model, 0.5, settings=EXACT)
    regions = region_table(
        found.semantic,
        found.instances.table,
        pixel_size_um=found.pixel_size_um,
        semantic_classes=found.semantic_classes,
    )
    assert regions["region"].tolist() == ["background", "tissue"]
    assert regions["area_um2"].sum() == pytest.approx(SHAPE[0] * SHAPE[1] * 0.25)
    assert regions["objects"].tolist() == [0, len(found.instances)]


# ---------------------------------------------------------------------------------------------
# Progress, cancelling, memory


def test_progress_rises_to_one(model, picture):
    steps = []
    segment(picture[0], model, settings=TILED, progress=lambda f, m: steps.append((f, m)))
    fractions = [fraction for fraction, _ in steps]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert any(message.startswith("tiles: ") for _, message in steps)


def test_cancelling_stops_at_the_next_tile_and_frees_arrays(picture):
    alive = []

    class Recording(StubModel):
        def second_forward(self, features, prompts, tasks=None):
            alive.append(weakref.ref(features.embedding))
            return super().second_forward(features, prompts, tasks)

    model = Recording()
    settings = TILED.model_copy(update={"batch_size": 1})
    with pytest.raises(Cancelled) as caught:
        segment(picture[0], model, settings=settings, should_cancel=lambda: len(model.seen) >= 3)
    assert len(model.seen) == 3
    gc.collect()
    assert not any(ref() is not None for ref in alive)
    frames = [entry.name for entry in caught.traceback]
    assert frames[-1] == "segment", "no deeper frame may keep arrays alive"


@pytest.mark.parametrize(
    ("fits", "adapted"),
    [
        pytest.param(4 * 128 * 128, [], id="enough"),
        pytest.param(128 * 128, ["batch 4 -> 2", "batch 2 -> 1"], id="one tile at a time"),
    ],
)
def test_out_of_memory_halves_the_batch_with_a_message(picture, fits, adapted):
    model, steps = StubModel(fits=fits), []
    settings = EXACT.model_copy(update={"tile_size_px": 128, "halo_px": 24, "batch_size": 4})
    found = segment(picture[0], model, settings=settings, progress=lambda f, m: steps.append(m))
    assert found.provenance["adapted"] == [f"out of memory: {change}" for change in adapted]
    assert set(found.provenance["adapted"]) <= set(steps)
    expected = segment(picture[0], StubModel(), settings=settings)
    np.testing.assert_array_equal(found.instances.labels, expected.instances.labels)


def test_out_of_memory_with_one_tile_halves_the_tile(picture):
    settings = EXACT.model_copy(update={"tile_size_px": 256, "halo_px": 24, "batch_size": 1})
    found = segment(picture[0], StubModel(fits=128 * 128), settings=settings)
    assert found.provenance["adapted"] == ["out of memory: tile 256 -> 128"]
    assert found.provenance["tile_size_px"] == 128
    expected = segment(picture[0], StubModel(), settings=settings)
    assert same_partition(found.instances.labels, expected.instances.labels)


def test_a_device_too_small_for_the_smallest_tile_is_an_error():
    image = np.zeros((300, 300), np.uint8)
    with pytest.raises(SettingsError, match="not enough memory for a tile"):
        segment(image, StubModel(fits=10), settings=EXACT)


def test_other_errors_of_the_network_are_raised():
    class Broken(StubModel):
        def encode(self, images):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        segment(RGB, Broken())


def test_training_mode_of_the_model_is_restored(model):
    model.train()
    segment(RGB, model)
    assert model.training
    model.eval()
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile_size_px": 64, "halo_px": 32}, "larger than twice"),
        ({"tile_sise_px": 64}, "did you mean 'tile_size_px'"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_invalid_settings_are_an_error(model, values, message):
    with pytest.raises(SettingsError, match=message):
        segment(RGB, model, settings=InferenceSettings.from_mapping(values))


def test_the_same_image_gives_the_same_result(model, picture):
    a, b = (segment(picture[0], model, settings=TILED) for _ in range(2))
    np.testing.assert_array_equal(a.instances.labels, b.instances.labels)
    assert a.instances.table.equals(b.instances.table)
    assert a.provenance == b.provenance


@pytest.mark.parametrize(
    ("slices", "region", "first", "shape"),
    [
        (1, None, 1, (1, 128, 128)),
        ((1, 3), None, 1, (2, 128, 128)),
        ((0, 2), [(0, 64), (0, 128)], 0, (2, 64, 128)),
        (None, None, 0, (3, 128, 128)),
    ],
    ids=["one", "a range", "with a region", "all"],
)
def test_some_slices_of_a_stack(model, slices, region, first, shape):
    picture, _ = disc_picture((128, 128), [(40, 40), (90, 90)])
    stack = np.stack([picture] * 3)
    found = segment(stack, model, (2.0, 0.5, 0.5), slices=slices, region=region, settings=EXACT)
    assert found.semantic.shape == shape
    assert found.provenance["region_offset"] == [first, 0, 0]
    assert found.provenance["settings"]["link_max_gap"] == 3


@pytest.mark.parametrize(
    ("slices", "region", "message"),
    [
        ((2, 5), None, "beyond the image"),
        ((2, 2), None, "empty"),
        (0, [(0, 1), (0, 64), (0, 64)], "not by both"),
    ],
)
def test_slices_that_a_stack_does_not_have(model, slices, region, message):
    with pytest.raises(ImageError, match=message):
        segment(np.zeros((3, 64, 64, 3), np.uint8), model, slices=slices, region=region)


def test_slices_of_a_picture_are_an_error(model):
    with pytest.raises(ImageError, match="no stack"):
        segment(np.zeros((64, 64, 3), np.uint8), model, slices=0)
