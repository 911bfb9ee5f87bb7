"""Network maps to regions and objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from cases.synthetic import nuclei, one_hot
from napari_coseg.core.errors import ImageError, SettingsError
from napari_coseg.labels.decoding.hover import HoverSettings, classify, decode_instances
from napari_coseg.labels.decoding.hover_targets import horizontal_vertical_maps
from napari_coseg.labels.decoding.semantic import decode_semantic, remove_small_regions
from napari_coseg.labels.metrics.instances import contingency, panoptic_quality


def picture(text: str) -> np.ndarray:
    """Rows apart by a space; ``.`` is 0."""
    rows = [[0 if c == "." else int(c) for c in line] for line in text.split()]
    return np.array(rows, dtype=np.uint8)


# probabilities of each channel at one pixel, the class it gets
PIXELS = {
    "no class": ([0.2], 0),
    "one class from a half on": ([0.5, 0.5], 1),
    "one class below a half": ([0.51, 0.49], 0),
    "likeliest": ([0.2, 0.3, 0.5], 2),
    "a tie with background is background": ([0.4, 0.4, 0.2], 0),
    "a tie goes to the lower id": ([0.2, 0.4, 0.4], 1),
}


@pytest.mark.parametrize("channels, class_id", PIXELS.values(), ids=PIXELS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)], ids=["2D", "3D"])
def test_decode_semantic(channels: list[float], class_id: int, shape: tuple[int, ...]) -> None:
    probability = np.empty((len(channels), *shape), dtype=np.float32)
    probability[:] = np.reshape(channels, (-1, *[1] * len(shape)))
    labels = decode_semantic(probability)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.full(shape, class_id))


def test_class_255_is_not_wrapped() -> None:
    probability = np.zeros((256, 1, 1), dtype=np.float32)
    probability[255] = 1
    assert decode_semantic(probability) == 255


@pytest.mark.parametrize("channels", [0, 257])
def test_channels_that_cannot_be_numbered_are_refused(channels: int) -> None:
    with pytest.raises(ImageError, match=f"{channels} channels"):
        decode_semantic(np.zeros((channels, 1, 1), dtype=np.float32))


# before, smallest area, smallest hole, after
REGIONS = {
    "a speck goes": ("1.22 ..22", 2, 0, "..22 ..22"),
    "an area of the bound stays": ("1.22 ..22", 1, 0, "1.22 ..22"),
    "corners do not join": ("1.. .1. ..1", 2, 0, "... ... ..."),
    "classes are apart": ("112 112", 3, 0, "11. 11."),
    "a hole is filled": ("111 1.1 111", 0, 2, "111 111 111"),
    "a hole of the bound stays": ("1111 1..1 1111", 0, 2, "1111 1..1 1111"),
    "a bay at the border is no hole": ("111 1.1 1.1", 0, 9, "111 1.1 1.1"),
    "a hole takes its commonest neighbour": ("1122 1..2 1222", 0, 9, "1122 1222 1222"),
    "of equal neighbours the lower id": ("112 1.2 122", 0, 9, "112 112 122"),
    "an island becomes its surroundings": ("111 121 111", 2, 2, "111 111 111"),
    "a large island stays": ("1111 1221 1111", 2, 9, "1111 1221 1111"),
    "two holes, two classes": ("11122 1.12. 11122", 0, 2, "11122 1112. 11122"),
    "background alone": ("...", 5, 5, "..."),
}


@pytest.mark.parametrize("before, min_area, min_hole, after", REGIONS.values(), ids=REGIONS)
def test_remove_small_regions(before: str, min_area: int, min_hole: int, after: str) -> None:
    labels = picture(before)
    cleaned = remove_small_regions(labels, min_area, min_hole)
    np.testing.assert_array_equal(cleaned, picture(after))
    assert cleaned.dtype == labels.dtype
    np.testing.assert_array_equal(labels, picture(before))


def test_regions_of_a_stack_join_along_z() -> None:
    stack = np.zeros((3, 3, 3), dtype=np.uint8)
    stack[:, 1, 1] = 1
    np.testing.assert_array_equal(remove_small_regions(stack, 3, 0), stack)
    assert not remove_small_regions(stack, 4, 0).any()


def test_an_image_without_pixels_stays_so() -> None:
    assert remove_small_regions(np.zeros((0, 4), dtype=np.uint8), 5, 5).shape == (0, 4)


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def perfect(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (labels > 0).astype(np.float32), horizontal_vertical_maps(labels)


def painted(*masks: np.ndarray) -> np.ndarray:
    """Ids 1.. in the order given; what lies above hides what lies below."""
    labels = np.zeros(masks[0].shape, dtype=np.int32)
    for i, mask in enumerate(masks, start=1):
        labels[mask] = i
    return labels


def brick_wall() -> np.ndarray:
    """Bricks of 5 x 8 pixels, each row moved by half a brick."""
    rows, columns = np.mgrid[:40, :64]
    return 20 * (rows // 5) + (columns + 4 * (rows // 5 % 2)) // 8 + 1


def rod(angle: float) -> np.ndarray:
    """A thin ellipse, 40 pixels long and 7 wide."""
    rows, columns = np.mgrid[-24:25, -24:25]
    along = np.cos(angle) * columns + np.sin(angle) * rows
    across = np.cos(angle) * rows - np.sin(angle) * columns
    return ((along / 20) ** 2 + (across / 3.5) ** 2 <= 1).astype(np.int32)


FIELD = (48, 48)
LAYOUTS = {
    **{f"one disc of radius {r}": painted(disc(FIELD, 20, 20, r)) for r in (2, 3, 4, 6, 9, 15)},
    "ten pixels": np.pad(np.ones((2, 5), dtype=np.int32), 4),
    "small far from large": painted(disc(FIELD, 30, 30, 14), disc(FIELD, 5, 5, 2)),
    "side by side": painted(disc(FIELD, 20, 12, 7), disc(FIELD, 20, 25, 7)),
    "one above the other": painted(disc(FIELD, 12, 20, 7), disc(FIELD, 25, 20, 7)),
    "touching at a slant": painted(disc(FIELD, 14, 14, 7), disc(FIELD, 23, 24, 7)),
    "small against large": painted(disc(FIELD, 24, 24, 14), disc(FIELD, 24, 40, 3)),
    "one within another": painted(disc(FIELD, 24, 24, 16), disc(FIELD, 24, 24, 5)),
    "corner to corner": np.kron(np.diag([1, 2, 3]), np.ones((6, 6), dtype=np.int32)),
    "bricks": brick_wall(),
    "cut by the image": painted(disc(FIELD, 0, 0, 9), disc(FIELD, 47, 20, 6)),
    **{f"a rod at {round(np.degrees(a))} degrees": rod(a) for a in (0, 0.4, 0.8, 1.57)},
    "a row three pixels high": np.repeat(np.repeat([[1, 2, 3]], 6, axis=1), 3, axis=0),
    "a ring": painted(disc(FIELD, 24, 24, 12) & ~disc(FIELD, 24, 24, 6)),
}


@pytest.mark.parametrize("labels", LAYOUTS.values(), ids=LAYOUTS)
def test_perfect_maps_give_every_object_back(labels: np.ndarray) -> None:
    found = decode_instances(*perfect(labels))
    quality = panoptic_quality(contingency(labels, found))
    assert (quality.false_positives, quality.false_negatives) == (0, 0)
    assert quality.sq > 0.95


def test_an_object_in_the_way_takes_some_of_what_lies_behind_it() -> None:
    labels = painted(disc(FIELD, 24, 24, 14), disc(FIELD, 24, 34, 5))
    quality = panoptic_quality(contingency(labels, decode_instances(*perfect(labels))))
    assert (quality.true_positives, quality.false_positives) == (2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_perfect_maps_of_crowded_nuclei(seed: int) -> None:
    labels = nuclei(512, 180, seed, radius_px=(5, 22))
    quality = panoptic_quality(contingency(labels, decode_instances(*perfect(labels))))
    assert quality.recall > 0.99 and quality.precision > 0.99
    assert quality.sq > 0.99


# sigma of the blur, of the noise, smoothing, least panoptic quality
DAMAGE = {
    "blurred": (1, 0, 0, 0.96),
    "blurred, noisy": (1, 0.1, 0, 0.93),
    "blurred, very noisy": (1, 0.3, 1, 0.8),
}


@pytest.mark.parametrize(("blur", "noise", "smoothing", "least"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_maps(blur: float, noise: float, smoothing: float, least: float) -> None:
    labels = nuclei(512, 180, radius_px=(5, 22))
    probability, hv = perfect(labels)
    rng = np.random.default_rng(0)
    probability = ndimage.gaussian_filter(probability, blur) + rng.normal(0, noise, labels.shape)
    hv = ndimage.gaussian_filter(hv, (0, blur, blur)) + rng.normal(0, noise, hv.shape)
    found = decode_instances(probability, hv, HoverSettings(smoothing_px=smoothing))
    assert panoptic_quality(contingency(labels, found)).pq > least


def test_what_else_is_in_the_tile_changes_nothing() -> None:
    labels = nuclei(96, 9)
    rng = np.random.default_rng(0)
    probability, hv = perfect(labels)
    hv = ndimage.gaussian_filter(hv, (0, 1, 1))
    alone = decode_instances(np.pad(probability, 8), np.pad(hv, ((0, 0), (8, 8), (8, 8))))
    large_probability = rng.uniform(size=(300, 300)).astype(np.float32)
    large_hv = rng.uniform(-5, 5, (2, 300, 300)).astype(np.float32)
    large_probability[92:204, 92:204] = np.pad(probability, 8)
    large_hv[:, 92:204, 92:204] = np.pad(hv, ((0, 0), (8, 8), (8, 8)))
    among_others = decode_instances(large_probability, large_hv)[92:204, 92:204]
    np.testing.assert_array_equal(among_others > 0, alone > 0)
    assert panoptic_quality(contingency(alone, among_others)).pq == 1


@pytest.mark.parametrize("seed", range(4))
def test_noise_gives_connected_objects_without_holes_in_ids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probability = ndimage.gaussian_filter(rng.uniform(size=(90, 70)), 2)
    probability = (probability > np.median(probability)).astype(np.float32)
    hv = ndimage.gaussian_filter(rng.normal(0, 2, (2, 90, 70)), (0, seed / 2, seed / 2))
    labels = decode_instances(probability, hv)
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    assert ids.tolist() == list(range(1, len(ids) + 1)) and len(ids) > 5
    assert areas.min() >= 10
    assert not labels[probability < 0.5].any()
    for i in ids:
        assert ndimage.label(labels == i, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("noise", [0, 1e-7, 0.01], ids=str)
def test_maps_without_content_give_one_object_a_component(noise: float) -> None:
    mask = painted(disc(FIELD, 10, 10, 6), disc(FIELD, 30, 30, 9))
    hv = np.random.default_rng(0).normal(0, noise, (2, *FIELD))
    labels = decode_instances((mask > 0).astype(np.float32), hv)
    assert panoptic_quality(contingency(mask, labels)).pq == 1


SHAPES = [(0, 0), (0, 7), (1, 1), (1, 200), (37, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["empty", "full"])
def test_odd_shapes(shape: tuple[int, int], value: float) -> None:
    probability = np.full(shape, value, dtype=np.float32)
    labels = decode_instances(probability, np.zeros((2, *shape)))
    assert labels.shape == shape and labels.dtype == np.int32
    expected = 1 if value and labels.size >= 10 else 0
    assert labels.max(initial=0) == expected


def test_settings_are_obeyed() -> None:
    labels = painted(disc(FIELD, 10, 10, 2), disc(FIELD, 30, 30, 8))
    probability, hv = perfect(labels)
    probability *= 0.6
    count = {
        "default": decode_instances(probability, hv).max(),
        "threshold": decode_instances(probability, hv, HoverSettings(object_threshold=0.7)).max(),
        "area": decode_instances(probability, hv, HoverSettings(min_object_area_px=50)).max(),
    }
    assert count == {"default": 2, "threshold": 0, "area": 1}


def test_a_higher_border_threshold_parts_less_and_smoothing_calms_noise() -> None:
    labels = painted(disc(FIELD, 20, 12, 7), disc(FIELD, 20, 25, 7))
    probability, hv = perfect(labels)
    assert decode_instances(probability, hv, HoverSettings(border_threshold=2)).max() == 1
    noisy = hv + np.random.default_rng(0).normal(0, 0.6, hv.shape)
    counts = [
        decode_instances(probability, noisy, HoverSettings(smoothing_px=sigma)).max()
        for sigma in (0, 1.5)
    ]
    assert counts[0] > 2 and counts[1] == 2


@pytest.mark.parametrize(
    "values, says",
    [
        ({"object_threshold": 1.5}, "object_threshold"),
        ({"min_object_area_px": 0}, "min_object_area_px"),
        ({"border_treshold": 0.1}, "border_threshold"),
    ],
    ids=["out of range", "no area", "misspelt"],
)
def test_settings_out_of_range_are_refused(values: dict, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        HoverSettings.from_mapping(values)


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ImageError, match=r"\(4, 4\).*\(2, 4, 5\)"):
        decode_instances(np.zeros((4, 4)), np.zeros((2, 4, 5)))
    with pytest.raises(ImageError, match="one channel per class"):
        classify(np.zeros((4, 4), dtype=np.int32), np.zeros((3, 4, 5)))


# labels, probabilities of type 1 and 2 at each pixel (the rest is background), what is expected
TYPES = {
    "most pixels win": ("111", [[0.9, 0, 0.6], [0.1, 0.8, 0.2]], [1], [0.5]),
    "background is passed over": ("111", [[0.1, 0.1, 0.1], [0, 0.2, 0.7]], [2], [0.3]),
    "background everywhere: the highest mean": ("11", [[0.1, 0.1], [0.2, 0.3]], [2], [0.25]),
    "a tie goes to the higher mean": ("11", [[0.6, 0.1], [0.4, 0.9]], [2], [0.65]),
    "each object its own": ("1.2", [[0.9, 0, 0.1], [0, 0, 0.8]], [1, 2], [0.9, 0.8]),
    "an id without pixels": ("1.3", [[0.9, 0, 0.9], [0, 0, 0]], [1, 0, 1], [0.9, np.nan, 0.9]),
    "no object": ("...", [[1, 1, 1], [0, 0, 0]], [], []),
}


@pytest.mark.parametrize("labels, types, class_ids, probabilities", TYPES.values(), ids=TYPES)
def test_classify(labels: str, types: list, class_ids: list, probabilities: list) -> None:
    of_types = np.array(types, dtype=np.float32)[:, None]
    channels = np.concatenate([1 - of_types.sum(axis=0, keepdims=True), of_types])
    found, how_sure = classify(picture(labels), channels)
    assert found.tolist() == class_ids
    np.testing.assert_allclose(how_sure, probabilities, rtol=1e-6)


@pytest.mark.parametrize("channels", [0, 1])
def test_objects_without_types_have_class_0(channels: int) -> None:
    class_ids, probabilities = classify(picture("1.2"), np.ones((channels, 1, 3)))
    assert class_ids.tolist() == [0, 0]
    assert np.isnan(probabilities).all()


def test_classify_equals_one_pass_an_object() -> None:
    labels = nuclei(128, 25)
    probability = np.random.default_rng(0).dirichlet(np.ones(5), labels.shape)
    probability = np.moveaxis(probability, -1, 0).astype(np.float32)
    winner = probability.argmax(axis=0)
    class_ids, probabilities = classify(labels, probability)
    for i in range(1, labels.max() + 1):
        votes = np.bincount(winner[labels == i], minlength=5)[1:]
        assert votes[class_ids[i - 1] - 1] == votes.max()
        mean = probability[class_ids[i - 1]][labels == i].mean()
        assert probabilities[i - 1] == pytest.approx(mean, rel=1e-5)


def test_perfect_types_come_back() -> None:
    labels = nuclei(128, 25)
    classes = np.random.default_rng(0).integers(1, 5, labels.max())
    class_ids, probabilities = classify(labels, one_hot(labels, classes, 4))
    np.testing.assert_array_equal(class_ids, classes)
    assert (probabilities == 1).all()
