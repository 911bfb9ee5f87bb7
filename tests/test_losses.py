"""Losses: by hand, task by task, shared by processes, and as papers and code have them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cases.tiny_training import SIZE, make_targets, perfect
from napari_coseg.core.errors import SettingsError
from napari_coseg.models.base import FirstForward, TaskMaps, TwoForwards
from napari_coseg.training import losses
from napari_coseg.training.loss_settings import PRESETS, LossSettings
from napari_coseg.training.losses import near_two_objects, two_forward_loss
from test_models import small_model

ALL_TERMS = LossSettings(first_dice=1, object_cross_entropy=1)


def test_a_perfect_answer_costs_nothing() -> None:
    targets = make_targets()
    total, terms = two_forward_loss(perfect(targets), targets, ALL_TERMS)
    assert float(total) == pytest.approx(0, abs=0.02), terms


@pytest.mark.parametrize("wrong", ["semantic", "object", "classes", "hv"])
def test_each_task_pays_for_its_own_mistake(wrong: str) -> None:
    targets = make_targets()
    output = perfect(targets)
    worse = {wrong: -getattr(output.second, wrong)}
    output = output._replace(second=output.second._replace(**worse))
    _, terms = two_forward_loss(output, targets, ALL_TERMS)
    family = {"classes": "class"}.get(wrong, wrong)
    guilty = {name for name, value in terms.items() if value > 0.1}
    assert guilty
    assert {name.split("_")[0] for name in guilty} == {family}


@pytest.mark.parametrize("over", ["batch", "image"])
@pytest.mark.parametrize("wrong", ["semantic", "object", "classes", "hv"])
def test_images_without_a_label_are_not_judged(wrong: str, over: str) -> None:
    """Image 0 has regions only, image 1 objects only: errors in the other task cost nothing."""
    targets = make_targets()
    output = perfect(targets)
    settings = ALL_TERMS.model_copy(update={"dice_over": over})
    before, _ = two_forward_loss(output, targets, settings)
    maps = getattr(output.second, wrong).clone()
    unlabelled = 1 if wrong == "semantic" else 0
    maps[unlabelled] = -maps[unlabelled]
    output = output._replace(second=output.second._replace(**{wrong: maps}))
    total, _ = two_forward_loss(output, targets, settings)
    assert float(total) == pytest.approx(float(before))


def test_pixels_beyond_the_image_are_not_judged() -> None:
    targets = make_targets()
    output = perfect(targets)
    known = targets.semantic_known.clone()
    known[:, 16:] = False
    semantic = output.second.semantic.clone()
    semantic[:, :, 16:] *= -1
    output = output._replace(second=output.second._replace(semantic=semantic))
    total, _ = two_forward_loss(output, targets._replace(semantic_known=known), ALL_TERMS)
    assert float(total) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("gap", "count"), [(0, 6 * 12), (1, 5 * 12), (6, 0)])
def test_crowded_pixels_lie_within_reach_of_two_objects(gap: int, count: int) -> None:
    """Two bars of 12 rows, `gap` pixels apart: 6 - gap columns of each other's reach overlap."""
    ids = torch.zeros(1, 12, 30, dtype=torch.int32)
    ids[..., 5:10], ids[..., 10 + gap : 15 + gap] = 7, 3
    assert int(near_two_objects(ids).sum()) == count


def test_a_mistake_between_objects_costs_more() -> None:
    targets = make_targets()
    output = perfect(targets)
    wrong = output.second._replace(object=-output.second.object, hv=-output.second.hv)
    crowded = targets._replace(crowded=torch.ones_like(targets.crowded))
    terms = [
        two_forward_loss(output._replace(second=wrong), truth, settings)[1]
        for truth in (targets, crowded)
        for settings in (ALL_TERMS, ALL_TERMS.model_copy(update={"crowded": 2.0}))
    ]
    for name in ("object_cross_entropy", "hv_mse"):
        plain, *same, dearer = (term[name] for term in terms)
        assert same == [plain, plain]
        assert dearer == pytest.approx(3 * plain)
    assert terms[3]["object_dice"] == terms[0]["object_dice"]


def test_a_batch_without_any_label_gives_zero_and_a_gradient() -> None:
    nowhere = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    kinds = ("semantic_known", "objects_known", "classes_known")
    targets = make_targets()._replace(**dict.fromkeys(kinds, nowhere))
    output = small_model().train()(torch.randn(2, 3, SIZE, SIZE))
    total, _ = two_forward_loss(output, targets, LossSettings(consistency=0))
    total.backward()
    assert float(total.detach()) == 0


@pytest.mark.parametrize(
    ("axis", "ramp", "answers"),
    [("right", "x", True), ("right", "y", False), ("as_released", "x", False)],
)
def test_the_gradient_of_the_horizontal_map_is_taken_along_x(axis, ramp, answers) -> None:
    hv = torch.zeros(1, 2, 16, 16)
    rise = torch.linspace(-1, 1, 16)
    hv[0, 0] = rise[None, :] if ramp == "x" else rise[:, None]
    inside = torch.zeros(1, 16, 16)
    inside[:, 4:12, 4:12] = 1
    loss = losses.gradient_loss(hv, torch.zeros_like(hv), inside, axis)
    assert (float(loss) > 1e-6) == answers


def test_gradient_loss_by_hand() -> None:
    """A unit ramp under the kernel x / (x^2 + y^2)."""
    hv = torch.zeros(1, 2, 9, 9)
    hv[0, 0] = torch.arange(9.0)
    inside = torch.zeros(1, 9, 9)
    inside[0, 4, 4] = 1
    by_hand = sum(
        x * x / (x * x + y * y) for x in range(-2, 3) for y in range(-2, 3) if (x, y) != (0, 0)
    )
    loss = losses.gradient_loss(hv, torch.zeros_like(hv), inside)
    assert float(loss) == pytest.approx(by_hand**2 / 2)  # the mean of both maps; one is right


def test_consistency_is_the_divergence_of_the_two_maps() -> None:
    p, q = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    maps = [t.log().view(1, 2, 1, 1) for t in (p, q)]
    divergence = float((q * (q / p).log()).sum())
    back = float((p * (p / q).log()).sum())
    assert float(losses.consistency_loss(*maps, symmetric=False)) == pytest.approx(divergence / 2)
    both = float(losses.consistency_loss(*maps, symmetric=True))
    assert both == pytest.approx((divergence + back) / 4)


@pytest.mark.parametrize(
    ("over", "by_hand"),
    [
        # Three pixels found, two there, one of them found; the smoothing is 1.
        ("batch", 1 - (2 * 1 + 1) / (5 + 1)),
        # Image by image: 1 - 2 * 1 / 4, and 1 - 0 where one pixel is found and none is there.
        ("image", (0.5 + 1) / 2),
    ],
)
def test_dice_by_hand(over: str, by_hand: float) -> None:
    probability = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]]])
    truth = torch.tensor([[[1.0, 0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])
    loss = losses.dice_loss(probability, truth, torch.ones(2, 1, 4), over)
    assert float(loss) == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize(
    ("over", "by_hand"),
    [
        ("batch", 1 - (2 * 1 + 1) / (3 + 1)),  # class 1 alone: class 2 is absent
        ("image", (1 - 2 * 2 / 5 + 1 - 2 * 1 / 3 + 0) / 3),  # background, class 1, absent class
    ],
)
def test_dice_of_classes_by_hand(over: str, by_hand: float) -> None:
    """Four pixels of which 1 and 2 are class 1, and only 1 is found."""
    truth = torch.tensor([[[1, 1, 0, 0]]])
    found = torch.tensor([[[1, 0, 0, 0]]])
    logits = 100 * torch.nn.functional.one_hot(found, 3).permute(0, 3, 1, 2).float()
    loss = losses.class_dice_loss(logits, truth, torch.ones(1, 1, 4), over)
    assert float(loss) == pytest.approx(by_hand, abs=1e-4)


# ---------------------------------------------------------------------------------------------
# Presets

# Terms by their factors: (first forward: cross-entropy or focal, Dice, of regions; of objects;
# consistency), (regions: cross-entropy, Dice), (objects: cross-entropy, focal, Dice),
# (classes: cross-entropy, focal, Dice), (HV: MSE, MSGE).
FACTORS = {
    "coseg-plus-paper": ((0.5, 0, 0.5, 0, 0.5), (1, 1), (0, 1, 1), (0.5, 0.5, 0.2), (2.5, 8)),
    "coseg-plus-released": ((0.5, 0.5, 0.5, 0.5, 5), (0.5, 0.5), (1, 0, 1), (1, 0, 1), (8, 2.5)),
    "coseg-paper": ((2, 2, 1, 1, 0), (1, 1), (0, 1, 1), (0.5, 0.5, 0.2), (2.5, 8)),
    "coseg-released": ((1, 1, 1, 1, 0), (1, 1), (1, 0, 1), (1, 0, 1), (10, 2.5)),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_factors_of_a_preset(preset: str) -> None:
    s = LossSettings.from_mapping({"preset": preset})
    regions, objects = s.first_forward * s.first_semantic, s.first_forward * s.first_instance
    first = (
        regions * s.first_cross_entropy,
        regions * s.first_dice,
        objects * s.first_cross_entropy,
        objects * s.first_dice,
        s.first_forward * s.consistency,
    )
    assert (
        first,
        (s.semantic_cross_entropy, s.semantic_dice),
        (s.object_cross_entropy, s.object_focal, s.object_dice),
        (s.class_cross_entropy, s.class_focal, s.class_dice),
        (s.hv_mse, s.hv_msge),
    ) == FACTORS[preset]
    released = preset.endswith("released")
    assert s.gradient_axis == ("as_released" if released else "right")
    assert s.dice_over == ("image" if released else "batch")
    assert s.first_object == ("focal" if preset == "coseg-paper" else "cross_entropy")
    assert s.consistency_symmetric == (preset == "coseg-plus-released")


def test_a_setting_goes_over_its_preset_and_survives_a_round_trip() -> None:
    chosen = LossSettings.from_mapping({"preset": "coseg-released", "hv_mse": 3.0})
    assert (chosen.hv_mse, chosen.hv_msge) == (3.0, 2.5)
    assert LossSettings.from_mapping(chosen.model_dump()) == chosen


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(SettingsError, match=r"'preset'.*coseg-plus-paper"):
        LossSettings.from_mapping({"preset": "papers"})


def test_focal_takes_the_place_of_cross_entropy_on_the_first_object_mask() -> None:
    targets = make_targets()
    flat = torch.zeros(2, 1, 8, 8)
    output = TwoForwards(FirstForward(flat, flat, None, None), perfect(targets).second)
    _, plain = two_forward_loss(output, targets, LossSettings())
    _, focal = two_forward_loss(output, targets, LossSettings(first_object="focal"))
    assert focal["first_semantic"] == plain["first_semantic"]
    # At a probability of one half: (1 - 1/2) squared.
    assert focal["first_instance"] == pytest.approx(plain["first_instance"] / 4)


# ---------------------------------------------------------------------------------------------
# A batch in shares


class OtherProcess:
    """The `Sum` of one of two processes; the other's sums were computed before."""

    def __init__(self, sums: list[torch.Tensor] | None = None) -> None:
        self.others: Iterator[torch.Tensor] | None = iter(sums) if sums is not None else None
        self.mine: list[torch.Tensor] = []

    def __call__(self, local: torch.Tensor) -> torch.Tensor:
        self.mine.append(local.detach())
        return local if self.others is None else local + next(self.others)


def _part(values, crops: slice):
    """Some images of a nested tuple of tensors."""
    if isinstance(values, torch.Tensor):
        return values[crops]
    return type(values)(*(_part(value, crops) for value in values))


@pytest.mark.parametrize("preset", PRESETS)
def test_two_shares_give_the_loss_and_the_gradient_of_the_whole(preset: str) -> None:
    """Shares of 3 and 2 images, labelled unevenly, and one reaching beyond its border."""
    settings = LossSettings(preset=preset)
    targets = make_targets(5)
    within = torch.ones(5, SIZE, SIZE, dtype=torch.bool)
    within[1, 20:] = False
    kinds = ("semantic_known", "objects_known", "classes_known")
    targets = targets._replace(**{kind: getattr(targets, kind) & within for kind in kinds})
    generator = torch.Generator().manual_seed(1)

    def maps(*shape: int) -> torch.Tensor:
        made = torch.randn(5, *shape, generator=generator)
        return made.requires_grad_()

    full = (SIZE, SIZE)
    output = TwoForwards(
        FirstForward(maps(1, 8, 8), maps(1, 8, 8), maps(2, 4, 4), maps(2, 4, 4)),
        TaskMaps(maps(2, *full), maps(1, *full), maps(5, *full), maps(2, *full)),
    )
    leaves = [*output.first, *output.second]
    total, terms = two_forward_loss(output, targets, settings)
    total.backward()
    whole = [None if leaf.grad is None else leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    shares = [slice(0, None, 2), slice(1, None, 2)]
    sums = []
    for share in shares:
        told = OtherProcess()
        two_forward_loss(_part(output, share), _part(targets, share), settings, add=told)
        sums.append(told.mine)
    for share, others in zip(shares, reversed(sums), strict=True):
        add = OtherProcess(others)
        mine, its_terms = two_forward_loss(
            _part(output, share), _part(targets, share), settings, add=add
        )
        mine.backward()
        assert its_terms == pytest.approx(terms, rel=1e-5, abs=1e-7)
    for leaf, expected in zip(leaves, whole, strict=True):
        if expected is None:
            assert leaf.grad is None
        else:
            torch.testing.assert_close(leaf.grad, expected, rtol=1e-4, atol=1e-7)
