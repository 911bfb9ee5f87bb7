"""All that is measured of labels: cases by hand, and scikit-image's numbers by object."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cases.synthetic import nuclei
from napari_coseg.core.errors import Cancelled, ImageError, SettingsError
from napari_coseg.core.geometry import Geometry
from napari_coseg.core.types import Image, Instances, LabelClass, Prediction
from napari_coseg.formats.registry import export
from napari_coseg.labels.measure import (
    OBJECT_COLUMNS,
    STACK_OBJECT_COLUMNS,
    class_table,
    labelled,
    object_table,
    windows,
)
from napari_coseg.labels.measure.neighbours import (
    border_distances,
    border_points,
    nearest_distances,
)
from napari_coseg.labels.measure.run import Measurements, MeasureSettings, measure

GLAND = LabelClass(1, "gland", (0, 200, 0))
EPITHELIAL, INFLAMMATORY = (
    LabelClass(1, "epithelial", (0, 0, 1)),
    LabelClass(2, "inflam", (1, 0, 0)),
)
CLASSES = (EPITHELIAL, INFLAMMATORY)


def drawn(*rows: str) -> np.ndarray:
    """Digits are labels, dots are background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in rows], np.int32)


def prediction(
    labels: np.ndarray,
    semantic: np.ndarray | None = None,
    size: tuple[float, ...] | None = None,
    class_ids: list[int] | None = None,
) -> Prediction:
    semantic = np.zeros(labels.shape, np.uint8) if semantic is None else semantic
    size = size or (1.0,) * labels.ndim
    kinds = np.ones(int(labels.max(initial=0)), int) if class_ids is None else np.array(class_ids)
    table = object_table(labels, semantic, pixel_size_um=size, known=class_table(kinds))
    return Prediction(semantic, (GLAND,), Instances(labels, table, CLASSES), size)


def of_one(*rows: str, size: tuple[float, float] = (1.0, 1.0)) -> pd.Series:
    return measure(prediction(drawn(*rows), size=size)).objects.iloc[0]


# ---------------------------------------------------------------------------------------------
# Shape


QUARTER = math.pi / 4
DIAGONAL = math.sqrt(0.5)
SHAPES = [
    # One passage in each direction; lines lie 1, 1, 0.71 and 0.71 apart.
    pytest.param(("1",), {"perimeter_um": QUARTER * (2 + 2 * DIAGONAL)}, id="one pixel: perimeter"),
    pytest.param(
        ("1",),
        {"eccentricity": 0, "major_axis_um": 0, "solidity": 1, "area_um2": 1},
        id="one pixel: the rest",
    ),
    # 1 row, 4 columns, 4 diagonals each way.
    pytest.param(
        (".....", ".1111", "....."), {"perimeter_um": QUARTER * (1 + 4 + 8 * DIAGONAL)}, id="a line"
    ),
    # Variance of 0, 1, 2, 3 is 5/4, so the axis is 4 sqrt(5/4).
    pytest.param(
        ("1111",),
        {"eccentricity": 1, "major_axis_um": 4 * math.sqrt(1.25), "minor_axis_um": 0},
        id="a line's axes",
    ),
    # Variances 5/4 and 1/4.
    pytest.param(
        ("1111", "1111"),
        {"eccentricity": math.sqrt(1 - 0.2), "minor_axis_um": 2, "solidity": 1},
        id="a rectangle",
    ),
    # Two arms of a square of 3: the hull cuts off a triangle of 2 x 2.
    pytest.param(("1..", "1..", "111"), {"solidity": 5 / 7}, id="a corner is not solid"),
    pytest.param(("111", "1.1", "111"), {"solidity": 8 / 9}, id="nor is a ring"),
    # Inside out, a hole of one pixel has one passage more in each direction.
    pytest.param(
        ("111", "1.1", "111"),
        {"perimeter_um": QUARTER * (4 + 4 + 12 * DIAGONAL)},
        id="a hole has an outline",
    ),
]


@pytest.mark.parametrize(("rows", "expected"), SHAPES)
def test_shapes_by_hand(rows: tuple[str, ...], expected: dict[str, float]) -> None:
    row = of_one(*rows)
    assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_lengths_and_areas_grow_with_the_pixel_size() -> None:
    once, twice = (of_one(".11.", "1111", ".1..", size=(s, s)) for s in (1.0, 2.0))
    for column in ("perimeter_um", "major_axis_um", "minor_axis_um"):
        assert twice[column] == pytest.approx(2 * once[column])
    for column in ("eccentricity", "circularity", "solidity"):
        assert twice[column] == pytest.approx(once[column])


@pytest.mark.parametrize("size", [(1.0, 1.0), (0.5, 0.5), (1.0, 0.4)])
def test_a_disc_is_round_whatever_the_shape_of_pixels(size: tuple[float, float]) -> None:
    radius = 30.0
    y, x = np.indices([round(80 / s) for s in size]) * np.reshape(size, (2, 1, 1)) - 40
    disc = (np.hypot(y, x) <= radius).astype(np.int32)
    row = measure(prediction(disc, size=size)).objects.iloc[0]
    assert row["perimeter_um"] == pytest.approx(2 * math.pi * radius, rel=0.01)
    assert row["major_axis_um"] == pytest.approx(2 * radius, rel=0.01)
    assert row["circularity"] > 0.97
    assert row["solidity"] > 0.95


def random_map(seed: int, shape: tuple[int, ...] = (60, 70)) -> np.ndarray:
    """Blobs that touch, ids with holes, some objects in several pieces."""
    from skimage.filters import gaussian

    rng = np.random.default_rng(seed)
    field = gaussian(rng.uniform(size=shape), 2)
    labels = (np.digitize(field, np.quantile(field, [0.3, 0.5, 0.6, 0.8])) * 3).astype(np.int32)
    return np.where(labels == 6, 0, labels)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that objects reach across many."""
    monkeypatch.setattr(windows, "WINDOW_PX", (16, 9))


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("labels", [*map(random_map, range(4)), nuclei(120, 40)])
@pytest.mark.parametrize("size", [(1.0, 1.0), (0.5, 0.2)], ids=["square", "flat pixels"])
def test_planes_agree_with_scikit_image(labels: np.ndarray, size: tuple[float, float]) -> None:
    from skimage.measure import regionprops

    image = np.random.default_rng(1).normal(1000, 50, labels.shape)
    table = measure(prediction(labels, size=size), Image(image, "YX")).objects
    expected = regionprops(labels, image, spacing=size)
    assert tuple(table.columns[: len(OBJECT_COLUMNS)]) == OBJECT_COLUMNS
    assert table["id"].tolist() == [region.label for region in expected]
    for row, region in zip(table.to_dict("records"), expected, strict=True):
        assert row["area_um2"] == pytest.approx(region.area)
        assert row["eccentricity"] == pytest.approx(region.eccentricity, abs=1e-6)
        assert row["major_axis_um"] == pytest.approx(region.axis_major_length)
        assert row["minor_axis_um"] == pytest.approx(region.axis_minor_length, abs=1e-5)
        assert row["intensity_mean"] == pytest.approx(region.intensity_mean)
        assert row["intensity_std"] == pytest.approx(region.intensity_std)
        if size == (1.0, 1.0):
            assert row["perimeter_um"] == pytest.approx(region.perimeter_crofton)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("labels", [*map(random_map, range(4)), nuclei(120, 40)])
def test_solidity_agrees_with_hulls_of_squares(labels: np.ndarray) -> None:
    shapely = pytest.importorskip("shapely")

    table = measure(prediction(labels, size=(0.5, 0.2))).objects
    for row in table.to_dict("records"):
        y, x = np.nonzero(labels == row["id"])
        hull = shapely.union_all(shapely.box(x, y, x + 1, y + 1)).convex_hull
        assert row["solidity"] == pytest.approx(len(y) / hull.area)


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("seed", range(3))
def test_stacks_agree_with_scikit_image(seed: int) -> None:
    from skimage.measure import regionprops

    labels, size = random_map(seed, (7, 30, 20)), (2.0, 0.5, 0.25)
    table = measure(prediction(labels, size=size)).objects
    assert tuple(table.columns[: len(STACK_OBJECT_COLUMNS)]) == STACK_OBJECT_COLUMNS
    for row, region in zip(
        table.to_dict("records"), regionprops(labels, spacing=size), strict=True
    ):
        assert row["volume_um3"] == pytest.approx(region.area)
        assert row["equivalent_diameter_um"] == pytest.approx(region.equivalent_diameter_area)
        variances = sorted(np.linalg.eigvalsh(np.cov(region.coords.T * np.reshape(size, (3, 1)))))
        axes = [row[f"{name}_axis_um"] for name in ("minor", "middle", "major")]
        expected = 2 * np.sqrt(5 * np.array(variances) * (1 - 1 / len(region.coords)))
        assert axes == pytest.approx(expected, rel=1e-6)


def test_of_volumes_in_mm_volume_and_extent_are_in_mm(tmp_path: Path) -> None:
    labels = np.zeros((9, 10, 12), np.int32)
    labels[2:5, 3:9, 1:11] = 4
    hounsfield = np.where(labels, 1200, -1000).astype(np.int16)
    place = Geometry.from_parts(np.diag((0.8, 0.5, -0.4)), (0, 0, 0), unit="mm", space="patient")
    found = labelled(labels, geometry=place)
    row = measure(found, Image(hounsfield, "ZYX", found.pixel_size_um, "head")).objects.iloc[0]
    assert row["volume_mm3"] == pytest.approx(3 * 6 * 10 * 0.8 * 0.5 * 0.4)
    sides = [row[f"extent_{axis}_mm"] for axis in "zyx"]
    assert sides == pytest.approx([2.4, 3.0, 4.0])
    assert row["intensity_mean"] == 1200
    (path,) = export(found, None, tmp_path, ["csv"], name="head")
    assert pd.read_csv(path)["volume_mm3"].tolist() == pytest.approx([28.8])


def test_a_ball_has_the_axes_of_its_diameter() -> None:
    z, y, x = np.indices((13, 51, 51)) * np.reshape((4.0, 1.0, 1.0), (3, 1, 1, 1)) - 25
    ball = ((z + 1) ** 2 + y**2 + x**2 <= 20**2).astype(np.int32)
    row = measure(prediction(ball, size=(4.0, 1.0, 1.0))).objects.iloc[0]
    found = [row[f"{name}_axis_um"] for name in ("minor", "middle", "major")]
    assert found == pytest.approx([40] * 3, rel=0.03)
    assert row["equivalent_diameter_um"] == pytest.approx(40, rel=0.03)


# ---------------------------------------------------------------------------------------------
# Intensity


PAIR = drawn("1122", "1122")
H, E = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])
H, E = H / np.linalg.norm(H), E / np.linalg.norm(E)


def stained(hematoxylin: float, eosin: float) -> np.ndarray:
    return 255 * 10 ** -(hematoxylin * H + eosin * E)


def test_stains_are_told_apart() -> None:
    picture = np.full((2, 4, 3), 255.0)
    picture[:, :2] = stained(0.6, 0.1)
    picture[0, 2:], picture[1, 2:] = stained(0, 0.4), stained(0, 0.2)
    table = measure(prediction(PAIR), Image(picture.round().astype(np.uint8), "YXC")).objects
    assert table["hematoxylin_od_mean"].tolist() == pytest.approx([0.6, 0], abs=0.01)
    assert table["eosin_od_mean"].tolist() == pytest.approx([0.1, 0.3], abs=0.01)
    assert table["eosin_od_std"].tolist() == pytest.approx([0, 0.1], abs=0.01)


def test_black_counts_as_one_grey_level() -> None:
    black, darkest = (
        measure(prediction(PAIR), Image(np.full((2, 4, 3), grey, np.uint8), "YXC")).objects
        for grey in (0, 1)
    )
    pd.testing.assert_frame_equal(black, darkest)


@pytest.mark.parametrize(
    ("axes", "shape", "choice", "names"),
    [
        ("YX", (2, 4), "auto", ["intensity"]),
        ("YXC", (2, 4, 3), "auto", ["hematoxylin_od", "eosin_od"]),
        ("YXC", (2, 4, 4), "hdab", ["hematoxylin_od", "dab_od"]),
        ("YXC", (2, 4, 3), "channels", ["red", "green", "blue"]),
        ("CYX", (2, 2, 4), "auto", ["channel_0", "channel_1"]),
        ("CYX", (3, 2, 4), "auto", ["channel_0", "channel_1", "channel_2"]),
        ("CYX", (4, 2, 4), "auto", [f"channel_{n}" for n in range(4)]),
        ("CYX", (3, 2, 4), "he", ["hematoxylin_od", "eosin_od"]),
        ("YXC", (2, 4, 5), "auto", [f"channel_{n}" for n in range(5)]),
        ("YXC", (2, 4, 3), "none", []),
    ],
)
def test_what_is_measured_of_an_image(
    axes: str, shape: tuple[int, ...], choice: str, names: list[str]
) -> None:
    image = Image(np.full(shape, 9, np.uint8), axes)
    settings = MeasureSettings.from_mapping({"intensity": choice})
    table = measure(prediction(PAIR), image, settings).objects
    found = [column for column in table if column.endswith(("_mean", "_std"))]
    assert found == [f"{name}_{kind}" for name in names for kind in ("mean", "std")]


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("axes", ["ZYX", "ZYXC", "ZCYX"])
def test_channels_of_stacks_are_read_window_by_window(axes: str) -> None:
    labels = random_map(5, (3, 40, 30))
    sizes = dict(zip("ZYXC", (*labels.shape, 2), strict=True))
    shape = tuple(sizes[axis] for axis in axes)
    values = np.random.default_rng(2).integers(0, 60_000, shape).astype(np.uint16)
    table = measure(prediction(labels), Image(_Windowed(values), axes)).objects
    last = np.moveaxis(values, axes.index("C"), -1)[..., 1] if "C" in axes else values
    expected = [last[labels == i].mean() for i in table["id"]]
    name = "channel_1" if "C" in axes else "intensity"
    assert table[f"{name}_mean"].tolist() == pytest.approx(expected)


class _Windowed:
    """An array that may not be read as a whole."""

    def __init__(self, data: np.ndarray) -> None:
        self._data, self.shape, self.dtype = data, data.shape, data.dtype

    def __getitem__(self, index: tuple) -> np.ndarray:
        part = self._data[index]
        assert part.size < self._data.size / 4
        return part


# ---------------------------------------------------------------------------------------------
# Distances


def test_distances_by_hand() -> None:
    points, kinds = np.array([[0.0, 0], [3, 4], [0, 12], [100, 0]]), np.array([1, 2, 1, 3])
    found = nearest_distances(points, kinds)
    assert found["nearest_um"].tolist() == pytest.approx(
        [5, 5, math.hypot(3, 8), math.hypot(97, 4)]
    )
    assert found["nearest_same_class_um"][[0, 2]].tolist() == [12, 12]
    assert np.isnan(found["nearest_same_class_um"][[1, 3]]).all()


def test_distance_to_where_regions_meet() -> None:
    semantic = np.zeros((6, 10), np.uint8)
    semantic[:, 4:] = 1
    points = np.array([[2.0, 0.0], [2.0, 9.0]]) * (2.0, 0.5)
    found = border_distances(points, semantic, (2.0, 0.5))
    assert found.tolist() == pytest.approx([3.5 * 0.5, 5.5 * 0.5])
    assert np.isnan(border_distances(points, semantic * 0, (2.0, 0.5))).all()


@pytest.mark.parametrize("shape", [(23, 31), (5, 23, 31), (1, 23, 31)])
def test_borders_do_not_depend_on_windows(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    semantic = random_map(3, shape).astype(np.uint8)
    whole = border_points(semantic)
    faces = sum(int((np.diff(semantic.astype(int), axis=a) != 0).sum()) for a in range(len(shape)))
    assert len(whole) == faces
    monkeypatch.setattr(windows, "WINDOW_PX", (8, 7))
    np.testing.assert_array_equal(
        np.unique(border_points(semantic), axis=0), np.unique(whole, axis=0)
    )


# ---------------------------------------------------------------------------------------------
# By region and class


def test_densities_and_fractions_by_hand() -> None:
    """20 x 20 pixels of 10 um: 0.04 mm2, the left quarter gland."""
    semantic, labels = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.int32)
    semantic[:, :5] = 1
    labels[0, 0:2], labels[3, 0:2], labels[6:8, 3:6], labels[10, 10] = 1, 2, 3, 4
    found = measure(prediction(labels, semantic, (10.0, 10.0), [1, 2, 2, 2])).summary
    rows = found.set_index(["region", "class"])
    assert list(rows.index) == [
        (region, kind)
        for region in ("background", "gland", "all regions")
        for kind in ("epithelial", "inflam", "all classes")
    ]
    gland, outside = rows.loc[("gland", "inflam")], rows.loc[("background", "inflam")]
    assert (gland["objects"], outside["objects"]) == (2, 1)
    assert gland["objects_per_mm2"] == pytest.approx(2 / 0.01)
    assert outside["objects_per_mm2"] == pytest.approx(1 / 0.03)
    # Object 3 has 6 pixels, 2 of them outside.
    assert gland["area_fraction"] == pytest.approx((2 + 4) / 100)
    assert outside["area_fraction"] == pytest.approx((2 + 1) / 300)
    assert gland["share_of_objects"] == pytest.approx(2 / 3)
    assert gland["mean_area_um2"] == pytest.approx((200 + 600) / 2)
    assert (gland["region_area_um2"], gland["region_fraction"]) == (10_000, 0.25)
    everything = rows.loc[("all regions", "all classes")]
    assert (everything["objects"], everything["region_area_um2"]) == (4, 40_000)
    assert everything["area_fraction"] == pytest.approx(11 / 400)


@pytest.mark.usefixtures("small_windows")
def test_sums_over_classes_and_regions_are_those_of_all() -> None:
    labels, semantic = nuclei(90, 40), random_map(2, (90, 90)).astype(np.uint8) // 3
    kinds = [1 + i % 2 for i in range(labels.max())]
    found = measure(prediction(labels, semantic, class_ids=kinds)).summary
    single = found[(found["region_id"] >= 0) & (found["class_id"] >= 0)]
    everything = found[(found["region_id"] < 0) & (found["class_id"] < 0)].iloc[0]
    assert single["objects"].sum() == everything["objects"] == labels.max()
    covered = (single["area_fraction"] * single["region_area_um2"]).sum()
    assert covered == pytest.approx((labels > 0).sum())
    assert {"region 3", "region 4"} <= set(found["region"]), "regions nobody named"


def test_regions_without_objects_and_names_are_listed() -> None:
    semantic = np.full(PAIR.shape, 7, np.uint8)
    semantic[:, 0] = 1
    found = measure(prediction(PAIR, semantic, class_ids=[1, 5]))
    assert list(dict.fromkeys(found.summary["region"])) == [
        "background",
        "gland",
        "region 7",
        "all regions",
    ]
    assert found.objects["region"].tolist() == ["gland", "region 7"]
    assert found.objects["class"].tolist() == ["epithelial", "class 5"]
    assert found.summary.iloc[0]["region_area_um2"] == 0
    assert np.isnan(found.summary.iloc[0]["objects_per_mm2"])


def test_densities_of_stacks_are_per_volume() -> None:
    found = measure(prediction(np.stack([PAIR] * 5), size=(10.0, 10.0, 10.0))).summary
    row = found[(found["region"] == "background") & (found["class"] == "epithelial")].iloc[0]
    assert row["objects_per_mm3"] == pytest.approx(2 / (40 * 1e-6))
    assert (row["volume_fraction"], row["region_volume_um3"]) == (1, 40_000)


# ---------------------------------------------------------------------------------------------
# The whole


@pytest.mark.parametrize("shape", [(8, 9), (3, 8, 9)])
def test_nothing_is_measured_as_nothing(shape: tuple[int, ...]) -> None:
    image = Image(np.zeros(shape, np.uint8), "ZYX"[-len(shape) :])
    found = measure(prediction(np.zeros(shape, np.int32)), image)
    assert len(found.objects) == 0
    assert found.summary["objects"].sum() == 0
    assert set(found.objects) == set(measure(prediction(np.ones(shape, np.int32)), image).objects)


def test_classes_come_by_id_and_the_rest_from_the_labels() -> None:
    before = prediction(drawn("1.22", "1.22"), class_ids=[1, 2])
    edited = Instances(drawn(".122", "7122"), before.instances.table, CLASSES)
    table = measure(Prediction(before.semantic, (GLAND,), edited, (1.0, 1.0))).objects
    assert table["id"].tolist() == [1, 2, 7]
    assert table["class"].tolist() == ["epithelial", "inflam", "object"]
    assert table["area_um2"].tolist() == [2, 4, 1]


@pytest.mark.parametrize(
    ("image", "choice", "error", "message"),
    [
        (Image(np.zeros((2, 5)), "YX"), "auto", ImageError, r"\(2, 5\), the labels \(2, 4\)"),
        (Image(np.zeros((2, 4)), "YX"), "he", ImageError, "measure its channels"),
        (Image(np.zeros((2, 4)), "YX"), "pas", SettingsError, "intensity"),
    ],
    ids=["another shape", "no colours", "no such stain"],
)
def test_what_cannot_be_measured(
    image: Image, choice: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure(prediction(PAIR), image, MeasureSettings.from_mapping({"intensity": choice}))


@pytest.mark.parametrize("steps", range(5))
def test_it_stops_when_asked(steps: int) -> None:
    answers = iter([False] * steps + [True] * 100)
    with pytest.raises(Cancelled):
        measure(prediction(nuclei(90, 40)), should_cancel=lambda: next(answers))


def test_progress_rises_from_nothing_to_all() -> None:
    seen: list[float] = []
    found = measure(prediction(nuclei(90, 40)), progress=lambda part, doing: seen.append(part))
    assert isinstance(found, Measurements)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 1)
