"""`segment` with models that take a task and a modality: planes, stacks and volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cases.tiny_meduniseg import meduniseg_card, tiny_meduniseg
from napari_coseg.core.card import ClassEntry, ModelCard, Normalisation, OutputMap, TaskEntry
from napari_coseg.core.errors import Cancelled, ImageError, SettingsError
from napari_coseg.core.types import Image
from napari_coseg.inference import InferenceSettings, segment
from napari_coseg.inference.tasks import z_scores
from napari_coseg.inference.windows import gaussian_weights, sliding_windows, window_starts
from napari_coseg.labels.decoding.separate import separate_objects
from napari_coseg.models.base import NO_CONDITIONS, Conditions, SegmentationModel
from napari_coseg.models.checkpoints import native

GREY = Normalisation(mean=(0.0,), std=(1.0,), values="measured")
COLOUR = Normalisation(mean=(0.0,) * 3, std=(255.0,) * 3)


def threshold_card(**changed: Any) -> ModelCard:
    """Bone in CT volumes above 300, metal above 1,000; dark spots in colour images."""
    values: dict[str, Any] = {
        "name": "threshold",
        "family": "threshold",
        "config": {},
        "channels": ("CT",),
        "dimensions": 3,
        "modalities": ("CT", "photo"),
        "tasks": (
            TaskEntry(name="bone", classes=("bone", "metal"), modalities=("CT",)),
            TaskEntry(name="pieces", classes=("bone",), objects="components", modalities=("CT",)),
            TaskEntry(
                name="spots",
                classes=("spot",),
                objects="components",
                modalities=("photo",),
                channels=("red", "green", "blue"),
                dimensions=2,
                pixel_size_um=10.0,
                normalisation=COLOUR,
            ),
        ),
        "semantic_classes": tuple(
            ClassEntry(id=n, name=name, color=(n, 0, 0))
            for n, name in enumerate(("spot", "bone", "metal"), start=1)
        ),
        "maps": (OutputMap(name="semantic", channels=4, activation="softmax"),),
        "pixel_size_um": 500.0,
        "slice_spacing_um": 1000.0,
        "normalisation": GREY,
        "tile_size_px": 64,
        "tile_slices": 16,
    }
    return ModelCard(**values | changed)


class ThresholdModel(SegmentationModel):
    """Answers by the value of each pixel; notes the conditions and sizes that it got."""

    size_multiple, depth_multiple = 16, 8

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        self.asked: list[tuple[Conditions, tuple[int, ...]]] = []

    def maps(self, images: Tensor, conditions: Conditions = NO_CONDITIONS) -> dict[str, Tensor]:
        self.check_conditions(conditions, len(images))
        self.asked.append((conditions, tuple(images.shape[1:])))
        value = images.mean(1)
        answer = value.new_full((len(images), 4, *images.shape[2:]), -torch.inf)
        answer[:, 0] = 0
        if conditions.tasks[0] == "spots":
            answer[:, 1] = 20 * (0.5 - value)
        else:
            answer[:, 2] = value - 300
            if conditions.tasks[0] == "bone":
                answer[:, 3] = 2 * value - 1300
        return {"semantic": answer}

    def parts(self) -> dict[str, list[torch.nn.Parameter]]:
        return {}


def ct(spacing_um: tuple[float, ...] = (1000.0, 500.0, 500.0)) -> tuple[Image, np.ndarray]:
    """Two bones, one with metal in it; and the true classes."""
    values = np.zeros((20, 70, 90), np.int16)
    values[3:9, 5:30, 10:40] = 700
    values[12:18, 40:60, 50:80] = 700
    values[13:16, 45:55, 55:70] = 3000
    truth = np.select([values > 1000, values > 300], [3, 2]).astype(np.uint8)
    return Image(values, "ZYX", spacing_um), truth


def photo() -> tuple[np.ndarray, np.ndarray]:
    picture = np.full((70, 90, 3), 230, np.uint8)
    picture[10:30, 10:40] = picture[40:60, 50:80] = 20
    return picture, (picture[..., 0] < 128).astype(np.uint8)


@pytest.mark.parametrize("flips", [False, True])
def test_a_volume_is_segmented_as_a_whole(flips: bool) -> None:
    model = ThresholdModel(threshold_card())
    image, truth = ct()
    found = segment(image, model, settings=InferenceSettings(test_time_augmentation=flips))
    np.testing.assert_array_equal(found.regions, truth)
    assert found.instances.labels.max() == 0
    assert found.provenance["task"] == "bone"
    assert found.provenance["modality"] == "CT"
    assert found.pixel_size_um == (1000.0, 500.0, 500.0)
    assert {shape for _, shape in model.asked} == {(1, 16, 64, 64)}


def test_each_axis_goes_to_the_models_spacing() -> None:
    model = ThresholdModel(threshold_card())
    image, truth = ct((2000.0, 250.0, 250.0))
    found = segment(image, model)
    assert {shape for _, shape in model.asked} == {(1, 16, 48, 48)}
    assert found.regions.shape == truth.shape
    assert np.mean(found.regions != truth) < 0.05


def test_objects_are_components_where_the_card_says_so() -> None:
    image, truth = ct()
    found = segment(
        image, ThresholdModel(threshold_card()), settings=InferenceSettings(task="pieces")
    )
    assert len(found.instances) == 2
    assert found.instances.table["class"].tolist() == ["bone", "bone"]
    np.testing.assert_array_equal(found.instances.labels > 0, truth > 0)


@pytest.mark.parametrize("stack", [False, True])
def test_tasks_of_planes_take_planes_and_slices(stack: bool) -> None:
    picture, truth = photo()
    image, truth = (np.stack([picture] * 2), np.stack([truth] * 2)) if stack else (picture, truth)
    size = (50.0, 10.0, 10.0)[-truth.ndim :]
    settings = InferenceSettings(task="spots")
    model = ThresholdModel(threshold_card())
    found = segment(image, model, size, settings=settings)
    np.testing.assert_array_equal(found.regions, truth)
    assert found.provenance["modality"] == "photo"
    assert {len(shape) for _, shape in model.asked} == {3}
    assert len(found.instances) == 2


@pytest.mark.parametrize(
    ("image", "task"), [(photo()[0], "spots"), (ct()[0], "bone")], ids=["photo", "volume"]
)
def test_the_task_follows_from_the_image(image: Any, task: str) -> None:
    assert segment(image, ThresholdModel(threshold_card())).provenance["task"] == task


@pytest.mark.parametrize(
    ("image", "settings", "error", "message"),
    [
        (photo()[0], {"task": "hip"}, SettingsError, "no task 'hip'; its tasks are bone, pieces"),
        (photo()[0], {"modality": "MR"}, SettingsError, "takes no modality 'MR'.*one of photo"),
        (photo()[0], {"task": "bone"}, ImageError, "the task 'bone' needs a volume"),
        (np.zeros((9, 9, 9, 2)), {"task": "bone"}, ImageError, "reads the channels CT; got"),
        (np.full((9, 64, 64), np.nan), {"task": "bone"}, ImageError, "values that are no numbers"),
    ],
)
def test_what_does_not_fit_is_said(
    image: np.ndarray, settings: dict, error: type[Exception], message: str
) -> None:
    axes = "ZYXC" if image.ndim == 4 else None
    with pytest.raises(error, match=message):
        segment(
            image,
            ThresholdModel(threshold_card()),
            1000.0,
            axes=axes,
            settings=InferenceSettings(**settings),
        )


def test_a_part_of_a_volume() -> None:
    image, truth = ct()
    region = ((2, 18), (0, 64), (10, 74))
    found = segment(image, ThresholdModel(threshold_card()), region=region)
    np.testing.assert_array_equal(found.regions, truth[2:18, :64, 10:74])
    assert found.provenance["region_offset"] == [2, 0, 10]


def test_a_run_stops_when_asked() -> None:
    with pytest.raises(Cancelled):
        segment(ct()[0], ThresholdModel(threshold_card()), should_cancel=lambda: True)


def test_a_weights_file_runs_through_the_same_function(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    native.save(path, tiny_meduniseg(meduniseg_card(1)))
    volume = np.random.default_rng(0).normal(40, 200, (8, 64, 64)).astype(np.float32)
    found = segment(Image(volume, "ZYX", (3000.0, 500.0, 500.0)), path)
    assert found.regions.shape == volume.shape
    assert set(np.unique(found.regions)) <= {0, 1, 2}
    assert found.provenance["weights"]["file"] == "tiny.safetensors"


# ---------------------------------------------------------------------------------------------
# Windows


@pytest.mark.parametrize(
    ("length", "side", "starts"),
    [
        (64, 64, [0]),
        (40, 64, [0]),
        (80, 64, [0, 16]),
        (250, 192, [0, 58]),
        (130, 64, [0, 22, 44, 66]),
        (512, 192, [0, 80, 160, 240, 320]),
        (775, 512, [0, 132, 263]),
    ],
)
def test_starts_are_those_of_nnunet(length: int, side: int, starts: list[int]) -> None:
    assert window_starts(length, side, 0.5) == starts


def test_weights_are_those_of_nnunet() -> None:
    weights = gaussian_weights((32, 64, 96))
    assert np.unravel_index(weights.argmax(), weights.shape) == (16, 32, 48)
    assert weights.sum() == pytest.approx(6046.6552734375, rel=1e-5)
    assert weights[8, 16, 24] == pytest.approx(0.0024787522852420807, rel=1e-5)
    assert weights[31, 63, 95] == pytest.approx(2.2629054186040776e-10, rel=1e-5)
    assert weights[0, 0, 0] == pytest.approx(3.775134371775124e-11, rel=1e-5)


@pytest.mark.parametrize("shape", [(20, 30), (5, 30), (9, 20, 30), (3, 4, 5)])
def test_windows_put_together_are_the_image(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    sides = (8, 8, 16)[-len(shape) :]
    found = sliding_windows(image, sides, 2, lambda windows: windows, batch=3)
    np.testing.assert_allclose(found, image, rtol=1e-5)


# ---------------------------------------------------------------------------------------------
# Objects


def two_discs(distance: int) -> np.ndarray:
    y, x = np.mgrid[:60, :100]
    near = [(y - 30) ** 2 + (x - c) ** 2 < 15**2 for c in (30, 30 + distance)]
    return (near[0] | near[1]).astype(np.uint8)


@pytest.mark.parametrize(
    ("distance", "how", "count"),
    [
        (40, "components", 2),
        (24, "components", 1),
        (24, "watershed", 2),
        (40, "watershed", 2),
        (0, "watershed", 1),
    ],
)
def test_discs_become_objects(distance: int, how: Any, count: int) -> None:
    regions = two_discs(distance)
    labels, class_ids = separate_objects(regions, how, (1.0, 1.0))
    assert labels.max() == len(class_ids) == count
    assert set(class_ids) == {1}
    np.testing.assert_array_equal(labels > 0, regions > 0)


def test_touching_classes_are_objects_of_their_own_and_small_ones_go() -> None:
    regions = np.array([[1, 1, 2, 2, 2], [0, 0, 0, 0, 0], [3, 0, 0, 1, 1]], np.uint8)
    labels, class_ids = separate_objects(regions, "components", (1.0, 1.0), min_size_px=2)
    assert class_ids.tolist() == [1, 2, 1]
    assert labels.tolist() == [[1, 1, 2, 2, 2], [0, 0, 0, 0, 0], [0, 0, 0, 3, 3]]


def test_z_scores_are_of_each_channel() -> None:
    values = np.stack([np.arange(8.0), 100 + 5 * np.arange(8.0), np.full(8, 3.0)])
    scores = z_scores(values.reshape(3, 2, 2, 2).astype(np.float32)).reshape(3, 8)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)
    assert scores[0].std() == pytest.approx(1)
    assert not scores[2].any()
