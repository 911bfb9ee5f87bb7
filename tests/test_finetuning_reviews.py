"""What is learnt from: reviewed pixels and no others, parts held back, classes by their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cases.finetuning_cases import (
    GLAND,
    TYPES,
    reviewed_image,
    reviewed_set,
    settings,
)
from cases.tiny_models import tiny_card
from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import CosegError, DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.transforms import AugmentationSettings
from napari_coseg.finetuning.classes import plan_classes
from napari_coseg.finetuning.crops import CropPlaces, ReviewedCrops
from napari_coseg.finetuning.held_out import hold_out
from napari_coseg.finetuning.input_match import candidates, changed, match_input
from napari_coseg.finetuning.reviewed import ReviewedImage, ReviewedSet
from napari_coseg.finetuning.settings import FINETUNING_LOSSES
from napari_coseg.images.intake import RgbSource, understand
from napari_coseg.models.base import FirstForward, TaskMaps, TwoForwards
from napari_coseg.training.losses import two_forward_loss
from napari_coseg.training.stepping import to_tensors

SIZE = 64


def left_half(size: int = SIZE) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[:, : size // 2] = True
    return mask


# ---------------------------------------------------------------------------------------------
# Masks


def whole_crop(image: ReviewedImage) -> Any:
    """The image as one crop, neither moved nor changed."""
    return crops_of([image]).draw(0, 1)


def crops_of(
    images: Sequence[ReviewedImage],
    size_px: int = SIZE,
    seed: int = 0,
    augmentation: AugmentationSettings | None = None,
) -> ReviewedCrops:
    """Crops at the images' own pixel size; without augmentation unless it is given."""
    chosen = augmentation or AugmentationSettings.none()
    return ReviewedCrops(CropPlaces(images, 0.5, seed, chosen), size_px, 0.5, seed)


def gradients(image: ReviewedImage) -> dict[str, torch.Tensor]:
    """Where a loss of random maps would move them: (Y, X) bool by map."""
    torch.manual_seed(0)
    channels = {"semantic": 2, "object": 1, "classes": 3, "hv": 2}
    maps = {name: torch.randn(1, n, SIZE, SIZE).requires_grad_() for name, n in channels.items()}
    coarse = [torch.randn(1, n, SIZE // 4, SIZE // 4).requires_grad_() for n in (1, 1, 2, 2)]
    output = TwoForwards(FirstForward(*coarse), TaskMaps(**maps))
    _, targets = to_tensors(whole_crop(image), "cpu")
    two_forward_loss(output, targets, FINETUNING_LOSSES)[0].backward()
    found = {name: m.grad for name, m in maps.items()}
    found |= {"first semantic": coarse[0].grad, "first instance": coarse[1].grad}
    return {
        name: torch.zeros(SIZE, SIZE, dtype=torch.bool) if grad is None else grad[0].ne(0).any(0)
        for name, grad in found.items()
    }


NONE = {"semantic": None, "semantic_known": None}


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        pytest.param({}, {"semantic": 1, "object": 1, "classes": 1, "hv": 1}, id="all of it"),
        pytest.param(
            {"semantic_known": left_half()},
            {"semantic": 0.5, "object": 1, "classes": 1, "hv": 1},
            id="half of the regions",
        ),
        pytest.param(
            {"instances_known": left_half()},
            {"semantic": 1, "object": 0.5, "classes": 0.5, "hv": 0.5},
            id="half of the objects",
        ),
        pytest.param(NONE, {"semantic": 0, "object": 1, "classes": 1, "hv": 1}, id="no regions"),
        pytest.param(
            {"instance_types": None},
            {"semantic": 1, "object": 1, "classes": 0, "hv": 1},
            id="no types",
        ),
        pytest.param(
            {"instances": None, "instances_known": None, "instance_types": None},
            {"semantic": 1, "object": 0, "classes": 0, "hv": 0},
            id="no objects",
        ),
    ],
)
def test_only_reviewed_pixels_count(changes: Any, moved: dict[str, float]) -> None:
    image = reviewed_image(size=SIZE, **changes)
    found = gradients(image)
    for name, share in moved.items():
        beyond = ~left_half() if share == 0.5 else np.zeros((SIZE, SIZE), bool)
        assert not found[name].numpy()[beyond].any()
        assert found[name].float().mean() <= share
        assert bool(found[name].any()) is bool(share)
    for task, map_name in (("semantic", "first semantic"), ("object", "first instance")):
        assert bool(found[map_name].any()) is bool(moved[task])


def test_a_type_that_nobody_told_is_not_learnt() -> None:
    image = reviewed_image(size=SIZE)
    first = image.instances == 1
    moved = gradients(
        replace(image, instance_types=np.where(first, 0, image.instance_types).astype(np.uint8))
    )
    inside = first & (image.instances > 0)
    assert inside.any() and not moved["classes"].numpy()[inside].any()
    assert moved["object"].numpy()[inside].any()


@pytest.mark.parametrize("number", [1, 254, 255])
def test_every_class_id_of_a_card_is_learnt(number: int) -> None:
    image = reviewed_image(size=SIZE)
    assert image.instances is not None and image.semantic is not None
    regions, types = (image.semantic * np.uint8(number), np.where(image.instances > 0, number, 0))
    batch = whole_crop(replace(image, semantic=regions, instance_types=types.astype(np.uint8)))
    for labels, known in (
        (batch.semantic, batch.semantic_known),
        (batch.types, batch.types_known),
    ):
        assert set(np.unique(labels[known])) == {0, number}


def test_objects_that_a_border_cuts_are_known_nowhere() -> None:
    part = np.zeros((96, 96), bool)
    part[:, :33] = True  # discs lie every 25 pixels, from 8 on
    image = reviewed_image(instances_known=part).without_cut_objects()
    assert image.instances is not None and image.instances_known is not None
    reviewed = set(np.unique(image.instances[image.instances_known])) - {0}
    beyond = set(np.unique(image.instances[~part])) - {0}
    assert reviewed and not reviewed & beyond
    cut = beyond & set(np.unique(image.instances[part]))
    assert cut and not image.instances_known[np.isin(image.instances, list(cut))].any()


def test_crops_are_functions_of_their_number() -> None:
    crops = crops_of(reviewed_set().images, seed=3, augmentation=settings().augmentation)
    one, again, other = (crops.draw(n, 2).images for n in (5, 5, 6))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_crops_show_what_was_reviewed() -> None:
    corner = np.zeros((96, 96), bool)
    corner[80:, 80:] = True
    image = reviewed_image(semantic_known=corner, instances_known=np.zeros_like(corner))
    crops = crops_of([image], 32)
    assert all(crops.draw(n, 1).semantic_known.any() for n in range(10))


# ---------------------------------------------------------------------------------------------
# Held back


@pytest.mark.parametrize("images", [1, 3, 4, 10])
def test_a_part_is_held_out(images: int) -> None:
    reviewed = reviewed_set(images)
    learnt, held = hold_out(reviewed, 0.2)
    areas = [sum(int(i.reviewed.sum()) for i in part) for part in (learnt, held)]
    assert 0.1 < areas[1] / sum(areas) < 0.3
    for image in held:
        for other in learnt:
            assert image.name != other.name or not (image.reviewed & other.reviewed).any()
    again = hold_out(replace(reviewed, images=reviewed.images[::-1]), 0.2).held_out
    assert {image.name for image in held} == {image.name for image in again}


@pytest.mark.parametrize("images", [1, 3, 4, 10])
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param((slice(0, 60), slice(60, 96)), id="each task in its own area"),
        pytest.param((slice(0, 96), slice(70, 96)), id="objects in a corner"),
        pytest.param((slice(0, 20), slice(0, 96)), id="regions in a corner"),
    ],
)
def test_each_task_has_something_to_learn_and_something_to_score(
    rows: tuple[slice, slice], images: int
) -> None:
    regions, objects = (np.zeros((96, 96), bool) for _ in rows)
    regions[rows[0]], objects[rows[1]] = True, True
    reviewed = reviewed_set(images, semantic_known=regions, instances_known=objects)
    for part in hold_out(reviewed, 0.2):
        assert any(_reviewed(image.semantic_known) for image in part)
        assert any(_reviewed(image.instances_known) for image in part)


def test_images_of_one_task_do_not_all_go_to_one_side() -> None:
    """Regions of one image of six alone: a strip of it scores, and the rest is learnt."""
    plain = [replace(reviewed_image(i), semantic=None, semantic_known=None) for i in range(5)]
    reviewed = replace(reviewed_set(1), images=(*plain, reviewed_image(5)))
    for part in hold_out(reviewed, 0.2):
        assert any(_reviewed(image.semantic_known) for image in part)


def _reviewed(mask: np.ndarray | None) -> bool:
    return mask is not None and bool(mask.any())


def test_nothing_is_held_out_where_nobody_wants_it() -> None:
    assert hold_out(reviewed_set(5), 0).held_out == ()


# ---------------------------------------------------------------------------------------------
# Classes


def classes(*names: str) -> tuple[LabelClass, ...]:
    return tuple(LabelClass(i, name, (0, 0, 0)) for i, name in enumerate(names, 1))


@pytest.mark.parametrize(
    ("theirs", "choice", "names", "origins", "numbers"),
    [
        pytest.param(("round", "long"), {}, ["round", "long"], ((1,), (2,)), [1, 2], id="the same"),
        pytest.param(
            ("LONG", "Round"), {}, ["round", "long"], ((1,), (2,)), [2, 1], id="another order"
        ),
        pytest.param((), {}, ["round", "long"], ((1,), (2,)), [0, 0], id="none"),
        pytest.param(
            ("round", "third"),
            {"add_classes": True},
            ["round", "long", "third"],
            ((1,), (2,), ()),
            [1, 3],
            id="one more",
        ),
        pytest.param(
            ("disc", "long"),
            {"rename": {"round": "disc"}},
            ["disc", "long"],
            ((1,), (2,)),
            [1, 2],
            id="renamed",
        ),
        pytest.param(
            ("any",), {"merge": {"any": ["long", "round"]}}, ["any"], ((2, 1),), [1], id="merged"
        ),
        pytest.param(
            ("round", "long"),
            {"merge": {"any": ["round", "long"]}},
            ["any"],
            ((1, 2),),
            [1, 1],
            id="merged, labelled by the old names",
        ),
    ],
)
def test_classes_are_planned(
    theirs: tuple[str, ...],
    choice: Any,
    names: list[str],
    origins: Any,
    numbers: list[int],
) -> None:
    reviewed = replace(reviewed_set(), instance_classes=classes(*theirs))
    if not theirs:
        reviewed = replace(reviewed_set(instance_types=None), instance_classes=())
    if len(theirs) == 1:
        image = reviewed_image()
        one = replace(image, instance_types=np.minimum(image.instance_types, 1))
        reviewed = replace(reviewed, images=(one,))
    plan = plan_classes(tiny_card(), reviewed, settings(**choice))
    assert [entry.name for entry in plan.card.instance_classes] == names
    assert plan.instance_origins == origins
    assert [plan.instance_numbers.get(name.lower(), 0) for name in theirs] == numbers[: len(theirs)]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"rename": {"round": "long"}}, "two classes would be called 'long'"),
        ({"merge": {"a": ["round"], "b": ["round"]}}, "round cannot be merged into two classes"),
    ],
    ids=str,
)
def test_names_that_clash(choice: Any, told: str) -> None:
    with pytest.raises(CosegError, match=told):
        plan_classes(tiny_card(), reviewed_set(), settings(**choice))


# ---------------------------------------------------------------------------------------------
# How images look


def test_a_change_of_intensities_is_a_normalisation() -> None:
    base, values = Normalisation(), np.array([[10.0, 100, 200], [0, 255, 3]])
    gain, offset = (-0.5, 2.0, 1.0), (200.0, -3.0, 7.0)
    made = changed(base, gain, offset)
    wanted = (values * gain + offset - base.mean) / base.std
    np.testing.assert_allclose((values - made.mean) / made.std, wanted)


def test_objects_and_background_are_brought_to_the_colours_of_h_and_e() -> None:
    image = reviewed_image()
    inverted = replace(image, image=255 - image.image)
    base = Normalisation()
    made = candidates(base, [inverted])["tinted as H&E"]
    background = np.median(inverted.image[inverted.instances == 0], axis=0)
    seen = (background - made.mean) / made.std * base.std + base.mean
    np.testing.assert_allclose(seen, (232, 214, 230), atol=1e-3)


def test_a_stretch_is_that_of_the_whole_image() -> None:
    image = reviewed_image()
    dim = replace(image, image=(20 + image.image // 8).astype(np.uint8))
    dim.image[60:] += 100
    source = RgbSource(understand(dim.image), stretch=True)
    inference = source.read(0, slice(0, 40), slice(0, 96))
    ours = dim.stretched().image[:40]
    np.testing.assert_allclose(ours, inference, atol=0.51)
    part = replace(reviewed_image(size=40), image=dim.image[:40, :40])
    assert not np.array_equal(part.stretched().image, ours[:, :40])
    told = replace(part, range=(source.intensity.low, source.intensity.high))
    assert np.array_equal(told.stretched().image, ours[:, :40])


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ((1.0, 0.5, 0.9), "inverted"),
        ((1.0, 0.99, 0.98), "as it is"),
        ((1.0, 0.9, 0.5), "stretched"),
        ((float("nan"), 0.5, 0.5), "as it is"),
    ],
    ids=str,
)
def test_a_change_must_be_worth_it(losses: tuple[float, ...], chosen: str) -> None:
    no_objects = reviewed_image(instances=None, instances_known=None, instance_types=None)
    told = iter(losses)
    assert match_input(Normalisation(), [no_objects], lambda n: next(told))[0] == chosen


def test_a_class_without_a_name_matters_only_where_its_task_was_reviewed() -> None:
    strange = reviewed_image(semantic_known=np.zeros((96, 96), bool))
    assert strange.semantic is not None
    strange = replace(strange, semantic=np.full_like(strange.semantic, 7))
    reviewed = replace(reviewed_set(1), images=(strange,))
    assert reviewed.checked().images[0].instances_known is not None
    everywhere = replace(strange, semantic_known=np.ones((96, 96), bool))
    with pytest.raises(DatasetError, match=r"hold the classes \[7\]"):
        replace(reviewed, images=(everywhere,)).checked()


def test_sets_are_counted() -> None:
    reviews = ReviewedSet(reviewed_set(1).images, GLAND, TYPES).reviews()
    assert reviews.images == 1 and reviews.area_px == 96 * 96
    assert reviews.objects == sum(reviews.objects_by_class.values()) > 4
    assert reviews.region_px_by_class == {"gland": 96 * 48}
