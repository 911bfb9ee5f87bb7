"""Losses by hand, exact resume, frozen parts, recipes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_coseg.datasets.batches import Batch
from napari_coseg.errors import Cancelled, CheckpointError, SettingsError
from napari_coseg.models.base import FirstForward, TaskMaps, TwoForwards
from napari_coseg.training import losses
from napari_coseg.training.loop import STATE_FILE, TrainingHooks, learning_rate, train
from napari_coseg.training.losses import LossSettings, Targets, two_forward_loss
from napari_coseg.training.recipe import OptimiserSettings, Recipe, read_recipe, recipe_names
from napari_coseg.training.run import StepSource, Turn
from napari_coseg.training.trainable import train_only
from test_models import TINY, small_card, small_model

SIZE = 32


def make_batch(step: int) -> Batch:
    rng = np.random.default_rng(step)
    instances = np.zeros((2, SIZE, SIZE), np.int32)
    instances[:, 4:12, 6:14] = 1
    objects = instances > 0
    return Batch(
        images=rng.uniform(0, 255, (2, 3, SIZE, SIZE)).astype(np.float32),
        semantic=objects.astype(np.uint8),
        has_semantic=np.array([True, False]),
        instances=instances,
        types=objects.astype(np.uint8) * 2,
        hv=rng.uniform(-1, 1, (2, 2, SIZE, SIZE)).astype(np.float32) * objects[:, None],
        has_instances=np.array([False, True]),
        has_types=np.array([False, True]),
        valid=np.ones((2, SIZE, SIZE), bool),
    )


def draw(step: int) -> list[Batch]:
    return [make_batch(step)]


def tiny_recipe(**changes: object) -> Recipe:
    values = {
        "name": "tiny",
        "steps": 6,
        "precision": "fp32",
        "card": small_card("coseg-plus", {**TINY, "fusion_dropout": 0.2}).model_dump(),
        "batches": [{"dataset": "consep", "crop_px": 32, "crops": 1}],
        "optimiser": {"learning_rate": 1e-3, "ema_decay": 0.9, "weight_decay": 0.1},
        "checkpoint_every_steps": 2,
    }
    return Recipe.from_mapping({**values, **changes})


def perfect(targets: Targets, confidence: float = 20.0) -> TwoForwards:
    """The output that answers every question rightly."""

    def one_hot(labels: torch.Tensor, channels: int) -> torch.Tensor:
        hot = torch.nn.functional.one_hot(labels, channels).permute(0, 3, 1, 2).float()
        return confidence * (2 * hot - 1)

    coarse = slice(None, None, 4)
    objects = one_hot(targets.objects.long(), 2)[:, 1:]
    regions = one_hot((targets.semantic > 0).long(), 2)[:, 1:]
    flat = torch.zeros(2, 2, 2, 2)
    return TwoForwards(
        FirstForward(regions[..., coarse, coarse], objects[..., coarse, coarse], flat, flat),
        TaskMaps(one_hot(targets.semantic, 2), objects, one_hot(targets.classes, 5), targets.hv),
    )


def make_targets() -> Targets:
    semantic = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    semantic[:, 8:24, 8:24] = 1
    objects = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    objects[:, 4:12, 4:12] = True
    return Targets(
        semantic=semantic,
        objects=objects,
        classes=objects.long() * 3,
        hv=torch.rand(2, 2, SIZE, SIZE) * objects[:, None],
        has_semantic=torch.tensor([True, False]),
        has_instances=torch.tensor([False, True]),
        valid=torch.ones(2, SIZE, SIZE, dtype=torch.bool),
    )


ALL_TERMS = LossSettings(first_dice=1, object_cross_entropy=1)


def test_a_perfect_answer_costs_nothing() -> None:
    targets = make_targets()
    total, terms = two_forward_loss(perfect(targets), targets, ALL_TERMS)
    assert float(total) == pytest.approx(0, abs=0.02), terms


@pytest.mark.parametrize(
    ("wrong", "charged"),
    [("semantic", True), ("object", True), ("classes", True), ("hv", True)],
)
def test_each_task_pays_for_its_own_mistake(wrong: str, charged: bool) -> None:
    targets = make_targets()
    output = perfect(targets)
    worse = {wrong: -getattr(output.second, wrong)}
    output = output._replace(second=output.second._replace(**worse))
    _, terms = two_forward_loss(output, targets, ALL_TERMS)
    family = {"classes": "class"}.get(wrong, wrong)
    guilty = {name for name, value in terms.items() if value > 0.1}
    assert guilty
    assert {name.split("_")[0] for name in guilty} == {family}


@pytest.mark.parametrize("wrong", ["semantic", "object", "classes", "hv"])
def test_images_without_a_label_are_not_judged(wrong: str) -> None:
    """Image 0 has regions only, image 1 objects only: errors in the other task cost nothing."""
    targets = make_targets()
    output = perfect(targets)
    maps = getattr(output.second, wrong).clone()
    unlabelled = 1 if wrong == "semantic" else 0
    maps[unlabelled] = -maps[unlabelled]
    output = output._replace(second=output.second._replace(**{wrong: maps}))
    total, _ = two_forward_loss(output, targets, ALL_TERMS)
    assert float(total) == pytest.approx(0, abs=0.02)


def test_pixels_beyond_the_image_are_not_judged() -> None:
    targets = make_targets()
    output = perfect(targets)
    valid = targets.valid.clone()
    valid[:, 16:] = False
    semantic = output.second.semantic.clone()
    semantic[:, :, 16:] *= -1
    output = output._replace(second=output.second._replace(semantic=semantic))
    total, _ = two_forward_loss(output, targets._replace(valid=valid), ALL_TERMS)
    assert float(total) == pytest.approx(0, abs=0.05)


def test_a_batch_without_any_label_gives_zero_and_a_gradient() -> None:
    targets = make_targets()._replace(
        has_semantic=torch.zeros(2, dtype=torch.bool),
        has_instances=torch.zeros(2, dtype=torch.bool),
    )
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


def test_dice_loss_by_hand() -> None:
    probability = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    truth = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    loss = losses.dice_loss(probability, truth, torch.ones(1, 4))
    assert float(loss) == pytest.approx(1 - (2 * 1 + 1) / (4 + 1))


class _Stop:
    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self) -> bool:
        self.seen += 1
        return self.seen == self.at


def trained(folder: Path, recipe: Recipe, **hooks: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = small_model(config=recipe.card.config)
    return train(model, draw, recipe, folder, TrainingHooks(**hooks), workers=0).state_dict()


def test_a_resumed_training_is_bit_equal(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    whole = trained(tmp_path / "whole", recipe)
    with pytest.raises(Cancelled, match="after step 3"):
        trained(tmp_path / "cut", recipe, should_cancel=_Stop(3))
    resumed = trained(tmp_path / "cut", recipe)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "cut/log.csv").read_text()


def test_training_reports_and_validates(tmp_path: Path) -> None:
    told: list[float] = []
    asked: list[int] = []
    recipe = tiny_recipe(validation={"every_steps": 4})
    trained(
        tmp_path,
        recipe,
        progress=lambda fraction, message: told.append(fraction),
        validate=lambda step, model: asked.append(step) or {"score": 0.5},
    )
    assert told == pytest.approx([step / 6 for step in range(1, 7)])
    assert asked == [4, 6]
    assert "6,score,0.5" in (tmp_path / "log.csv").read_text()


def test_a_foreign_state_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "model": {}}, tmp_path / STATE_FILE)
    with pytest.raises(CheckpointError, match="not a state of this training"):
        trained(tmp_path, tiny_recipe())


def test_frozen_parts_stay_as_they_were(tmp_path: Path) -> None:
    recipe = tiny_recipe(trained_parts=["adapters", "decoders"])
    torch.manual_seed(0)
    model = small_model(config=recipe.card.config)
    before = {name: [p.clone() for p in part] for name, part in model.parts().items()}
    train(model, draw, recipe, tmp_path, workers=0)
    changed = {
        name
        for name, part in model.parts().items()
        if any(not torch.equal(now, then) for now, then in zip(part, before[name], strict=True))
    }
    assert changed == {"adapters", "decoders"}


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(SettingsError, match="no part head; it has trunk, adapters"):
        train_only(small_model(), ["head"])


@pytest.mark.parametrize(
    ("step", "settings", "rate"),
    [
        (0, {"warmup_steps": 10}, 0.1),
        (9, {"warmup_steps": 10}, 1.0),
        (50, {"schedule": "cosine"}, 0.5),
        (99, {"schedule": "cosine"}, 0.5 * (1 + math.cos(math.pi * 0.99))),
        (40, {"schedule": "cosine", "restart_step": 40, "restart_rate": 0.2}, 0.2),
        (70, {"schedule": "cosine", "restart_step": 40, "restart_rate": 0.2}, 0.1),
        (20, {"schedule": "cosine", "restart_step": 40, "restart_rate": 0.2}, 0.5),
        (25, {"schedule": "exponential", "steps_per_epoch": 10}, 0.98**2),
    ],
)
def test_learning_rate(step: int, settings: dict, rate: float) -> None:
    chosen = OptimiserSettings(learning_rate=1.0, **settings)
    assert learning_rate(step, 100, chosen) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("step", "sizes"),
    [(0, [32, 64]), (1, [32]), (4, [32, 64, 96]), (5, [32]), (6, [32, 64, 96])],
)
def test_parts_take_turns(step: int, sizes: list[int]) -> None:
    class Sampler:
        def __init__(self, size: int) -> None:
            self.size = size

        def draw(self, step: int) -> int:
            return self.size

    turns = (Turn(0, 1, 32), Turn(0, 2, 64), Turn(3, 2, 96))
    source = StepSource(tuple((turn, Sampler(turn.crop_px)) for turn in turns))
    assert source(step) == sizes


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid(name: str) -> None:
    assert read_recipe(name).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stesp = 3", "unknown setting 'stesp'; did you mean 'steps'"),
        ("steps = 0", "setting 'steps'.*greater than or equal to 1"),
        ("steps = ", "not valid TOML"),
    ],
)
def test_a_recipe_with_a_slip_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_recipe(path)


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(SettingsError, match=r"'colon'.*colon-default"):
        read_recipe("colon")
