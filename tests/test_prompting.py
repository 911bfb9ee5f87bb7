"""Prompts from the truth: what may be given, how it is damaged, and what the network is fed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cases.tiny_training import make_batch, make_folder, tiny_recipe, trained, without_dropout
from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.datasets.batches import NOT_GIVEN, Batch
from napari_coseg.datasets.derived import LEAST_OBJECTS, derived_region, with_derived_region
from napari_coseg.datasets.transforms import AugmentationSettings, training_crop
from napari_coseg.models.base import PAINTED_LOGIT, GivenMasks, prompts_from
from napari_coseg.training.prompting import (
    OBJECTS,
    REGIONS,
    DamageSettings,
    PromptSettings,
    damage,
    draw_prompts,
)
from napari_coseg.training.run import step_source
from napari_coseg.training.stepping import given_masks
from test_models import FAMILIES, images, small_model
from test_transforms import discs as discs_sample

WHOLE = PromptSettings(truth=1, damaged=0, partial=0)
QUIET = {"dropped": 0, "added": 0, "merged": 0, "border": 0, "shifted": 0, "erased": 0}


# ---------------------------------------------------------------------------------------------
# What may be given


@pytest.mark.parametrize(
    ("channel", "labelled", "truth"),
    [
        pytest.param(REGIONS, "semantic_known", "semantic", id="regions"),
        pytest.param(OBJECTS, "instances_known", "instances", id="objects"),
    ],
)
def test_the_truth_of_labelled_crops_alone_is_given(channel, labelled, truth) -> None:
    batch = draw_prompts(make_batch(0, crops=4), WHOLE, (0, 0))
    for i, known in enumerate(getattr(batch, labelled)):
        wanted = getattr(batch, truth)[i] > 0 if known.all() else np.full((32, 32), NOT_GIVEN)
        assert np.array_equal(batch.prompts[i, channel], wanted)


def test_a_derived_region_stands_in_for_regions_only() -> None:
    plain = make_batch(0, crops=3)  # regions, objects, regions
    derived = np.zeros((3, 32, 32), np.uint8)
    derived[:2, :5], derived[2] = 1, NOT_GIVEN
    batch = draw_prompts(replace(plain, derived=derived), WHOLE, (0, 0))
    given = batch.prompts[:, REGIONS]
    assert np.array_equal(given[0], plain.semantic[0] > 0)
    assert np.array_equal(given[1], derived[1])
    assert np.array_equal(batch.prompts[1, OBJECTS], plain.instances[1] > 0)


def test_nothing_is_given_where_nobody_annotated() -> None:
    batch = make_batch(0)
    batch.semantic_known[:, 20:] = batch.instances_known[:, 20:] = False
    given = draw_prompts(batch, WHOLE, (0, 0)).prompts
    assert (given[:, :, 20:] == NOT_GIVEN).all()
    assert (given[0, REGIONS, :20] != NOT_GIVEN).all()


@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0])
def test_as_many_crops_are_prompted_as_asked(truth: float) -> None:
    settings = PromptSettings(truth=truth)
    drawn = [draw_prompts(make_batch(0, 50), settings, (0, step)).prompts for step in range(8)]
    if not truth:
        assert drawn == [None] * 8
        return
    prompted = [(prompts[::2, REGIONS] != NOT_GIVEN).any(axis=(1, 2)) for prompts in drawn]
    assert np.mean(prompted) == pytest.approx(truth, abs=0.1)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_prompts_are_alike_however_many_processes_draw_them(processes: int) -> None:
    settings, batch = PromptSettings(truth=0.7), make_batch(0, 6)
    whole = draw_prompts(batch, settings, (0, 5)).prompts
    for rank in range(processes):
        share = slice(rank, None, processes)
        part = draw_prompts(batch.part(share), settings, (0, 5), first=rank, every=processes)
        assert np.array_equal(part.prompts, whole[share])
    assert not np.array_equal(draw_prompts(batch, settings, (0, 6)).prompts, whole)


# ---------------------------------------------------------------------------------------------
# Damage


def nuclei() -> np.ndarray:
    """Sixteen discs of radius 8 in 128 x 128, ids 1 to 16."""
    y, x = np.mgrid[:128, :128]
    inside = ((y % 32) - 16) ** 2 + ((x % 32) - 16) ** 2 <= 64
    return np.where(inside, 1 + 4 * (y // 32) + x // 32, 0)


@pytest.mark.parametrize(
    ("kind", "amount", "told"),
    [
        pytest.param("dropped", 1.0, lambda new, old: not (new & ~old).any(), id="dropped"),
        pytest.param("added", 1.0, lambda new, old: not (old & ~new).any(), id="added"),
        pytest.param("merged", 4.0, lambda new, old: not (old & ~new).any(), id="merged"),
        pytest.param("border", 0.5, lambda new, old: (old & new).any(), id="border"),
        pytest.param("shifted", 2.0, lambda new, old: _alike(new.sum(), old.sum()), id="shifted"),
        pytest.param("erased", 1.0, lambda new, old: not (new & ~old).any(), id="erased"),
    ],
)
def test_each_kind_of_damage_does_its_own(kind: str, amount: float, told) -> None:
    labels, amounts = nuclei(), DamageSettings(**{**QUIET, kind: amount})
    mask = labels > 0
    damaged = [damage(mask, labels, amounts, np.random.default_rng(i)) for i in range(20)]
    changed = [one for one in damaged if not np.array_equal(one, mask)]
    assert len(changed) >= 2
    assert all(told(one, mask) for one in changed)


def _alike(one: int, other: int) -> bool:
    return abs(int(one) - int(other)) < 0.2 * other


def test_no_amount_is_no_damage() -> None:
    labels, none = nuclei(), DamageSettings(**QUIET)
    for seed in range(20):
        after = damage(labels > 0, labels, none, np.random.default_rng(seed))
        assert np.array_equal(after, labels > 0)


def test_an_empty_mask_survives_every_damage() -> None:
    empty = np.zeros((64, 64), int)
    for seed in range(20):
        assert not damage(empty > 0, empty, DamageSettings(), np.random.default_rng(seed)).any()


# ---------------------------------------------------------------------------------------------
# What the network is fed


def test_given_masks_are_what_a_perfect_first_forward_says() -> None:
    model = small_model().eval()
    with torch.no_grad():
        first = model.first_forward(model.encode(images(1)))
    mask = torch.zeros(1, 1, *images(1).shape[-2:])
    mask[..., :4, :4], mask[..., 4:8, :2] = 1, 1
    mask[..., 8:, :] = float("nan")
    mask[..., 7, 9] = float("nan")
    fed = prompts_from(first, GivenMasks(mask, torch.full_like(mask, float("nan"))))
    assert fed.semantic[0, 0, 0, 0] == pytest.approx(PAINTED_LOGIT, abs=1e-4)
    assert fed.semantic[0, 0, 1, 0] == pytest.approx(0)  # half of these pixels is inside
    assert fed.semantic[0, 0, 0, 3] == pytest.approx(-PAINTED_LOGIT, abs=1e-4)
    assert torch.equal(fed.semantic[..., 2:, :], first.semantic_mask[..., 2:, :])
    assert fed.semantic[0, 0, 1, 2] == first.semantic_mask[0, 0, 1, 2]  # given in part only
    assert torch.equal(fed.instance, first.instance_mask)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_given_mask_changes_the_other_task_alone(family: str) -> None:
    name, config = FAMILIES[family]
    torch.manual_seed(0)
    model = small_model(name, config).eval()
    pixels = images(1)
    nothing = torch.full((1, 1, *pixels.shape[-2:]), float("nan"))
    mask = (torch.rand_like(nothing) > 0.5).float()
    with torch.no_grad():
        plain = model(pixels).second
        same = model(pixels, GivenMasks(nothing, nothing)).second
        regions_given = model(pixels, GivenMasks(mask, nothing)).second
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert torch.equal(regions_given.semantic, plain.semantic)
    assert not torch.equal(regions_given.object, plain.object)


def test_batches_become_given_masks() -> None:
    assert given_masks(make_batch(0), "cpu") is None
    batch = draw_prompts(make_batch(0), WHOLE, (0, 0))
    given = given_masks(batch, "cpu")
    assert given is not None
    assert torch.equal(given.semantic[0, 0] > 0, torch.as_tensor(batch.semantic[0] > 0))
    assert given.semantic[1].isnan().all()
    assert given.instance[0].isnan().all()


def test_training_with_truth_differs_and_without_it_does_not(tmp_path: Path) -> None:
    """A mask prompts the other task: crops need the labels of both for it to be felt."""

    def draw(step: int) -> list[Batch]:
        batch = make_batch(step)
        both = np.ones_like(batch.semantic_known)
        return [replace(batch, semantic_known=both, instances_known=both, types_known=both)]

    def prompted(step: int) -> list[Batch]:
        return [draw_prompts(batch, PromptSettings(truth=1), (0, step)) for batch in draw(step)]

    recipe = tiny_recipe(**without_dropout(), steps=3)
    plain = trained(tmp_path / "plain", recipe, draw=draw)
    other = trained(tmp_path / "prompted", recipe, draw=prompted)
    again = trained(tmp_path / "again", recipe, draw=prompted)
    assert any(not torch.equal(plain[name], other[name]) for name in plain)
    assert all(torch.equal(again[name], other[name]) for name in other)


# ---------------------------------------------------------------------------------------------
# The derived region


def rows_of_nuclei(gap_px: int, count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Objects of class 2 on a square ring around (150, 150); one of class 1 far away."""
    instances = np.zeros((300, 300), np.int32)
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    for number, angle in enumerate(angles, 1):
        y, x = (150 + gap_px * np.array([np.sin(angle), np.cos(angle)])).astype(int)
        instances[y - 5 : y + 5, x - 5 : x + 5] = number
    types = np.where(instances > 0, 2, 0).astype(np.uint8)
    instances[2:12, 2:12], types[2:12, 2:12] = count + 1, 1
    return instances, types


@pytest.mark.parametrize(
    ("class_id", "count", "stroma", "inside", "lumen"),
    [
        pytest.param(2, 24, False, True, True, id="a ring of nuclei is joined, its lumen filled"),
        pytest.param(2, 24, True, True, False, id="a hole full of other nuclei is not filled"),
        pytest.param(2, LEAST_OBJECTS - 1, False, False, False, id="a few are no region"),
        pytest.param(1, 24, False, False, False, id="nor is a single one"),
        pytest.param(7, 24, False, False, False, id="of a class that is not there: nothing"),
    ],
)
def test_what_a_region_is_derived_from(class_id, count, stroma, inside, lumen) -> None:
    instances, types = rows_of_nuclei(70, count)
    if stroma:
        instances[140:160, 140:160], types[140:160, 140:160] = 99, 1
    region = derived_region(instances, types, class_id, 0.5)
    assert region[150, 220] == inside  # the first nucleus of the ring
    assert region[150, 150] == lumen
    assert not region[:60, :60].any()


def test_a_region_does_not_depend_on_the_pixel_size() -> None:
    instances, types = rows_of_nuclei(70)
    fine = derived_region(np.kron(instances, np.ones((2, 2), int)), np.kron(types, np.ones((2, 2))),
                          2, 0.25)  # fmt: skip
    coarse = derived_region(instances, types, 2, 0.5)
    assert (fine[::2, ::2] != coarse).mean() < 0.01


def test_a_derived_region_is_cut_as_its_image_is() -> None:
    sample = with_derived_region(discs_sample(), 2)
    crop = training_crop(
        sample, 64, sample.pixel_size_um, np.random.default_rng(0), AugmentationSettings.none()
    )
    assert crop.derived is not None
    assert not crop.semantic_known.any() or sample.semantic is not None
    assert set(np.unique(crop.derived)) <= {0, 1}


def test_objects_without_classes_have_no_derived_region() -> None:
    with pytest.raises(DatasetError, match="objects have no classes"):
        with_derived_region(replace(discs_sample(), instance_types=None), 2)


def test_a_recipe_derives_regions_and_draws_prompts(tmp_path: Path) -> None:
    make_folder(tmp_path)
    part = {"dataset": "folder", "split": "all", "crop_px": 32, "crops": 2}
    held_out = str(tmp_path / "held-out.json")
    name = tiny_recipe().card.instance_classes[0].name
    recipe = tiny_recipe(
        batches=[{**part, "derived_region_of": name}], held_out=held_out, prompts={"truth": 1.0}
    )
    source = step_source(recipe, tmp_path)
    (batch,), (again,) = source(3), source(3)
    assert batch.derived is not None and batch.prompts is not None
    assert np.array_equal(batch.prompts, again.prompts)
    plain = tiny_recipe(batches=[part], held_out=held_out)
    (batch,) = step_source(plain, tmp_path)(3)
    assert batch.derived is None and batch.prompts is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompts": {"truht": 0.5}}, "did you mean 'truth'"),
        ({"prompts": {"truth": 1.5}}, "less than or equal to 1"),
    ],
)
def test_a_slip_in_the_settings_is_told(changes: dict, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        tiny_recipe(**changes)


def test_an_unknown_class_to_derive_from_is_told(tmp_path: Path) -> None:
    make_folder(tmp_path)
    part = {"dataset": "folder", "split": "all", "crop_px": 32, "crops": 2}
    recipe = tiny_recipe(
        batches=[{**part, "derived_region_of": "fat"}], held_out=str(tmp_path / "held-out.json")
    )
    with pytest.raises(SettingsError, match="no object class 'fat'"):
        step_source(recipe, tmp_path)
