"""Training crops: labels stay on what they label, and the same dice give the same crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.datasets.base import Sample
from napari_coseg.datasets.batches import CropSampler, CropSource, drawn_ahead
from napari_coseg.datasets.stain import StainSettings, augment_stain
from napari_coseg.datasets.transforms import AugmentationSettings, training_crop

PLAIN = AugmentationSettings.none()
QUIET = PLAIN.stain


def discs(shape: tuple[int, int] = (160, 200), seed: int = 0, types: int = 3) -> Sample:
    """Dark discs on white; the first type is rare. Regions are the left half."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    instances = np.zeros(shape, np.int32)
    kinds = np.zeros(shape, np.uint8)
    centres = [(cy, cx) for cy in range(12, shape[0], 24) for cx in range(12, shape[1], 24)]
    for number, (cy, cx) in enumerate(centres, start=1):
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= 9**2
        instances[disc] = number
        kinds[disc] = 1 if number == 1 else 2 + number % (types - 1)
    image = np.where(instances[..., None] > 0, 30, 240).astype(np.uint8).repeat(3, axis=2)
    image[..., 1] = np.random.default_rng(seed).integers(0, 256, shape)
    return Sample(
        name=f"discs_{seed}",
        image=image,
        pixel_size_um=0.25,
        semantic=(x < shape[1] // 2).astype(np.uint8),
        instances=instances,
        instance_types=kinds,
    )


@pytest.mark.parametrize("shift", range(3))
def test_a_plain_crop_is_a_piece_of_the_sample(shift: int) -> None:
    sample = discs()
    crop = training_crop(sample, 64, 0.25, np.random.default_rng(shift), PLAIN)
    image = crop.image.round().astype(np.uint8)
    pieces = np.lib.stride_tricks.sliding_window_view(sample.image[..., 1], (64, 64))
    where = np.argwhere((pieces == image[1]).all(axis=(2, 3)))
    assert len(where) == 1
    y, x = where[0]
    piece = np.s_[y : y + 64, x : x + 64]
    np.testing.assert_array_equal(image, np.moveaxis(sample.image[piece], 2, 0))
    np.testing.assert_array_equal(crop.semantic, sample.semantic[piece])
    kept = crop.instances_known
    assert kept.mean() > 0.98
    np.testing.assert_array_equal(crop.instances[kept], sample.instances[piece][kept])
    np.testing.assert_array_equal(crop.types[kept], sample.instance_types[piece][kept])


@pytest.mark.parametrize("shift", range(3))
def test_halving_the_resolution_averages_whole_blocks(shift: int) -> None:
    sample = discs()
    crop = training_crop(sample, 64, 0.5, np.random.default_rng(shift), PLAIN)
    blocks = [
        sample.image[y : y + 128, x : x + 128, 1].reshape(64, 2, 64, 2).mean(axis=(1, 3))
        for y in range(160 - 128 + 1)
        for x in range(200 - 128 + 1)
    ]
    nearest = min(float(np.abs(block - crop.image[1]).max()) for block in blocks)
    assert nearest <= 0.6  # rounding of the mean to 8 bits


GEOMETRIES = {
    "flips and quarter turns": {"free_probability": 0.0, "flip": True},
    "scale, turn and shear": {"free_probability": 1.0, "elastic_probability": 0.0},
    "bending": {"free_probability": 1.0, "elastic_probability": 1.0, "elastic_grid_px": 32},
}


@pytest.mark.parametrize("pixel_size_um", [0.125, 0.25, 0.4, 0.5, 0.75])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
@pytest.mark.parametrize("seed", range(3))
def test_labels_stay_on_what_they_label(geometry: dict, pixel_size_um: float, seed: int) -> None:
    settings = AugmentationSettings(**geometry, stain=QUIET)
    sample = discs()
    crop = training_crop(sample, 96, pixel_size_um, np.random.default_rng(seed), settings)
    seen, labelled = crop.image[0] < 135, crop.instances > 0
    union = ((seen | labelled) & crop.instances_known).sum()
    assert union > 0
    assert ((seen & labelled) & crop.instances_known).sum() / union > 0.85  # a pixel's shift: 0.75
    np.testing.assert_array_equal(crop.types > 0, labelled)


@pytest.mark.parametrize("pixel_size_um", [0.25, 0.5, 0.6])
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_no_pixel_of_an_image_is_left_unfilled(geometry: dict, pixel_size_um: float) -> None:
    settings = AugmentationSettings(**geometry, stain=QUIET)
    grey = Sample("grey", np.full((50, 300, 3), 200, np.uint8), pixel_size_um=0.25)
    for seed in range(5):
        crop = training_crop(grey, 96, pixel_size_um, np.random.default_rng(seed), settings)
        np.testing.assert_allclose(crop.image, 200, atol=1)


def test_beyond_the_sample_nothing_is_labelled_nor_valid() -> None:
    sample = discs((40, 200))
    crop = training_crop(sample, 64, 0.25, np.random.default_rng(0), PLAIN)
    assert crop.instances_known.sum() <= 40 * 64
    assert crop.instances_known.sum() > 30 * 64
    assert not crop.instances[~crop.instances_known].any()
    assert not crop.types[~crop.instances_known].any()
    assert crop.image[0].min() >= 29


def test_slivers_at_the_border_are_left_out_and_not_learned_as_background() -> None:
    sample = discs()
    for seed in range(20):
        crop = training_crop(sample, 60, 0.25, np.random.default_rng(seed), PLAIN)
        ids, sizes = np.unique(crop.instances, return_counts=True)
        assert sizes[ids > 0].min() >= PLAIN.sliver_px
        dark = crop.image[0] < 135
        np.testing.assert_array_equal(dark & crop.instances_known, crop.instances > 0)


def test_what_nobody_looked_at_is_not_learned_as_background() -> None:
    sample = discs()
    known = np.arange(sample.image.shape[0])[:, None] < 80
    half = replace(sample, instances_known=np.broadcast_to(known, sample.image.shape[:2]))
    crops = [
        training_crop(one, 64, 0.25, np.random.default_rng(3), PLAIN) for one in (sample, half)
    ]
    assert crops[0].instances_known.all()
    assert 0 < crops[1].instances_known.mean() < 1
    rows = crops[1].instances_known.any(axis=1)
    assert (crops[1].instances_known == rows[:, None]).all()
    assert rows[0] > rows[-1]


@pytest.mark.parametrize(
    ("missing", "mask"),
    [
        ("semantic", "semantic_known"),
        ("instances", "instances_known"),
        ("instance_types", "types_known"),
    ],
)
def test_missing_labels_are_told_from_background(missing: str, mask: str) -> None:
    sample = discs()
    bare = Sample(**{**vars(sample), missing: None})
    crop = training_crop(bare, 64, 0.25, np.random.default_rng(0), PLAIN)
    assert not getattr(crop, mask).any()
    whole = training_crop(sample, 64, 0.25, np.random.default_rng(0), PLAIN)
    assert getattr(whole, mask).any()


@pytest.mark.parametrize("stain", [StainSettings(), StainSettings(noise_probability=1.0)])
def test_stain_augmentation_changes_colours_within_bounds(stain: StainSettings) -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    results = [augment_stain(image, np.random.default_rng(seed), stain) for seed in range(6)]
    assert all(r.shape == (3, 48, 48) and r.dtype == np.float32 for r in results)
    assert all(r.min() >= 0 and r.max() <= 255 for r in results)
    assert np.std([r.mean() for r in results]) > 1


def test_without_spread_colours_stay_as_they_are() -> None:
    image = np.random.default_rng(1).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    still = augment_stain(image, np.random.default_rng(0), QUIET)
    np.testing.assert_allclose(still, np.moveaxis(image, 2, 0), atol=0.01)


def test_white_stays_near_white() -> None:
    white = np.full((8, 8, 3), 245, np.uint8)
    means = [augment_stain(white, np.random.default_rng(s), StainSettings()) for s in range(30)]
    assert np.median([m.mean() for m in means]) > 225


def means_of(image: np.ndarray, **settings: float) -> np.ndarray:
    """(60, 3): mean of each channel after as many draws of one change."""
    stain = QUIET.model_copy(update=settings)
    drawn = [augment_stain(image, np.random.default_rng(seed), stain) for seed in range(60)]
    return np.array([crop.mean(axis=(1, 2)) for crop in drawn])


def test_density_is_multiplied_by_a_factor_within_its_bounds() -> None:
    tissue = np.full((4, 4, 3), (180, 120, 170), np.uint8)
    means = means_of(tissue, density_probability=1, density_min=0.3, density_max=2.5)
    factors = np.log((means + 1) / 256) / np.log((tissue[0, 0] + 1.0) / 256)
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones(3), rtol=1e-3)
    assert 0.3 <= factors.min() < 0.5 and 1.6 < factors.max() <= 2.5
    assert np.median(factors) == pytest.approx(1, abs=0.25)


def test_a_white_point_moves_channels_apart_and_never_brightens() -> None:
    white = np.full((4, 4, 3), 250, np.uint8)
    means = means_of(white, white_probability=1, white_sigma=0.1, exposure_min=0.65)
    assert means.max() <= 250.01
    assert 0.65 * 250 - 1 <= means.max(axis=1).min() < 200
    assert np.ptp(means, axis=1).max() > 30


@pytest.mark.parametrize(
    "values",
    [{"scale_min": 2.0}, {"stain": {"blur_max": 1.0}}, {"elastic_sigma_px": -1.0}],
    ids=["out of range", "unknown inside", "negative"],
)
def test_wrong_settings_are_refused(values: dict) -> None:
    with pytest.raises(SettingsError, match=next(iter(values))):
        AugmentationSettings.from_mapping(values)


def sampler(seed: int = 0, object_fraction: float = 0.5) -> CropSampler:
    regions = Sample(**{**vars(discs(seed=2)), "instances": None, "instance_types": None})
    nuclei = Sample(**{**vars(discs(seed=1)), "semantic": None})
    return CropSampler(
        [CropSource((nuclei,), 3, object_fraction), CropSource((regions,), 2)], 64, 0.25, seed
    )


@pytest.mark.parametrize(
    "shares", [(2, 1), (1.5, 1, 0.5), (0.5, 0.25, 0.25), (1 / 3, 1 / 3, 4 / 3)]
)
def test_sources_come_as_often_as_their_shares_say(shares: tuple[float, ...]) -> None:
    names = [f"source {n}" for n in range(len(shares))]
    sources = [
        CropSource((replace(discs((40, 40), seed=n), name=name),), share, object_fraction=0)
        for n, (name, share) in enumerate(zip(names, shares, strict=True))
    ]
    drawn = CropSampler(sources, 32, 0.25, seed=0)
    counts = np.array(
        [
            np.bincount([n for n, _ in drawn._slots(step)], minlength=len(shares))
            for step in range(400)
        ]
    )
    assert (counts.sum(axis=1) == round(sum(shares))).all()
    assert (np.abs(counts - shares) < 1).all()
    np.testing.assert_allclose(counts.mean(axis=0), shares, atol=0.08)
    assert drawn.draw(3).images.shape[0] == round(sum(shares))
    assert drawn._slots(5) == CropSampler(sources, 32, 0.25, seed=0)._slots(5)


def test_shares_that_leave_a_crop_unfinished_are_refused() -> None:
    with pytest.raises(DatasetError, match="whole number"):
        CropSampler([CropSource((discs(),), 1.5), CropSource((discs(),), 1)], 64, 0.25, 0)


def test_a_batch_holds_every_source_in_order() -> None:
    batch = sampler().draw(0)
    assert batch.images.shape == (5, 3, 64, 64)
    assert batch.images.dtype == np.float32
    assert batch.hv.shape == (5, 2, 64, 64)
    assert batch.instances_known.any(axis=(1, 2)).tolist() == [True, True, True, False, False]
    assert batch.semantic_known.any(axis=(1, 2)).tolist() == [False, False, False, True, True]
    assert np.abs(batch.hv[:3]).max() == 1
    assert not batch.hv[3:].any()
    assert not batch.hv[:3].any(axis=1)[batch.instances[:3] == 0].any()


def test_a_mosaic_is_of_several_places_and_keeps_their_objects_apart() -> None:
    sample = discs(seed=1)
    source = CropSource((sample,), 1, mosaic=2)
    batch = CropSampler([source], 64, 0.25, 0, AugmentationSettings.none()).draw(0)
    ids, (size,) = batch.instances[0], set(batch.instances.shape[1:])
    half = size // 2
    quarters = [ids[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    found = [set(np.unique(quarter)) - {0} for quarter in quarters]
    assert size == 64 and all(found)
    assert sum(map(len, found)) == len(set.union(*found))
    assert len({quarter.tobytes() for quarter in (q > 0 for q in quarters)}) == 4
    assert ((batch.types[0] > 0) == (ids > 0)).all()
    assert np.abs(batch.hv[0][:, ids == 0]).max() == 0


def arrays_equal(one: object, other: object) -> bool:
    return all(
        np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
    )


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    first = sampler()
    first.draw(0)
    assert arrays_equal(first.draw(7), sampler().draw(7))
    assert not arrays_equal(first.draw(7), first.draw(8))
    assert not arrays_equal(first.draw(7), sampler(seed=1).draw(7))


@pytest.mark.parametrize("threads", [1, 3])
def test_drawing_ahead_gives_the_same_batches_in_order(threads: int) -> None:
    ahead = list(drawn_ahead(sampler().draw, 4, 12, threads))
    assert len(ahead) == 8
    assert all(arrays_equal(batch, sampler().draw(4 + i)) for i, batch in enumerate(ahead))


def test_rare_types_are_seen_more_often_when_crops_lie_around_objects() -> None:
    rare = [
        np.mean(
            [(sampler(object_fraction=f).draw(s).types[:3] == 1).any((1, 2)) for s in range(15)]
        )
        for f in (0.0, 1.0)
    ]
    assert rare[1] > rare[0] + 0.1


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(DatasetError, match="0 samples"):
        CropSource((), 2)
