"""The loop: exact resume, frozen parts, micro batches, precision, memory, overflow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cases.stub_models import StubModel
from cases.tiny_training import draw, losses_of, make_batch, tiny_recipe, trained, without_dropout
from napari_coseg.core.errors import Cancelled, CheckpointError, CosegError, SettingsError
from napari_coseg.datasets.batches import Batch
from napari_coseg.models.coseg_plus.config import COMPACT
from napari_coseg.training.loop import train
from napari_coseg.training.memory import checkpointed_blocks, reproducible
from napari_coseg.training.settings import STATE_FILE, OptimiserSettings
from napari_coseg.training.stepping import (
    DivergedError,
    Stepper,
    make_optimiser,
)
from napari_coseg.training.trainable import train_only
from test_models import TINY, images, small_card, small_model


class _Stop:
    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self) -> bool:
        self.seen += 1
        return self.seen == self.at


# ---------------------------------------------------------------------------------------------
# Going on


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"precision": "bf16"}, id="bf16"),
        pytest.param({"precision": "fp16"}, id="fp16 with its scaler"),
        pytest.param({"accumulate": 2}, id="micro batches"),
        pytest.param({"activation_checkpointing": True}, id="activation checkpointing"),
        pytest.param({"deterministic": True, "optimiser": {"algorithm": "adam"}}, id="adam"),
    ],
)
def test_a_resumed_training_is_bit_equal(changes: dict, tmp_path: Path) -> None:
    recipe = tiny_recipe(**changes)
    whole = trained(tmp_path / "whole", recipe)
    with pytest.raises(Cancelled, match="after step 3"):
        trained(tmp_path / "cut", recipe, should_cancel=_Stop(3))
    resumed = trained(tmp_path / "cut", recipe)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "cut/log.csv").read_text()


def test_the_scaler_is_part_of_the_state(tmp_path: Path) -> None:
    """Every step that overflows halves it, which must not be forgotten."""
    told: list[str] = []
    recipe = tiny_recipe(precision="fp16")
    hooks = {"progress": lambda _, text: told.append(text), "should_cancel": _Stop(2)}
    with pytest.raises(Cancelled):
        trained(tmp_path, recipe, draw=broken_at({1}), **hooks)
    left_out = ["left out" in text for text in told]
    assert left_out[1]
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["scaler"]["scale"] == 2.0 ** (16 - sum(left_out))


def test_a_foreign_state_is_refused(tmp_path: Path) -> None:
    torch.save({"step": 3, "model": {}}, tmp_path / STATE_FILE)
    with pytest.raises(CheckpointError, match="not a state of this training"):
        trained(tmp_path, tiny_recipe())


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
    assert losses_of(tmp_path)[6, "score"] == 0.5


def _interrupted_at(step: int, asked: list[int]) -> Callable[[int, nn.Module], dict[str, float]]:
    """A validation that draws random numbers, and that Ctrl-C ends at a step."""

    def validate(now: int, model: nn.Module) -> dict[str, float]:
        if now == step:
            raise KeyboardInterrupt
        asked.append(now)
        return {"score": float(torch.rand(()))}

    return validate


@pytest.mark.parametrize(
    ("interrupted", "checkpoints", "validated"),
    [
        pytest.param(4, 2, [4, 6], id="where the state is saved"),
        pytest.param(4, 3, [4, 6], id="where it is not"),
        pytest.param(6, 2, [6], id="after the last step"),
        pytest.param(None, 2, [], id="none, all is done"),
    ],
)
def test_a_validation_that_was_interrupted_is_made_when_going_on(
    interrupted: int | None, checkpoints: int, validated: list[int], tmp_path: Path
) -> None:
    recipe = tiny_recipe(validation={"every_steps": 2}, checkpoint_every_steps=checkpoints)
    whole = trained(tmp_path / "whole", recipe, validate=_interrupted_at(-1, []))
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        trained(tmp_path / "cut", recipe, validate=_interrupted_at(interrupted or -1, []))
    asked: list[int] = []
    resumed = trained(tmp_path / "cut", recipe, validate=_interrupted_at(-1, asked))
    assert asked == validated
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole/log.csv").read_text() == (tmp_path / "cut/log.csv").read_text()


def test_a_training_cancelled_where_validation_is_due_validates_when_going_on(
    tmp_path: Path,
) -> None:
    asked: list[int] = []
    recipe = tiny_recipe(validation={"every_steps": 3})
    hooks = {"validate": _interrupted_at(-1, asked)}
    with pytest.raises(Cancelled, match="after step 3"):
        trained(tmp_path, recipe, should_cancel=_Stop(3), **hooks)
    assert asked == []
    trained(tmp_path, recipe, **hooks)
    assert asked == [3, 6]


def test_states_that_do_not_say_what_was_validated_are_gone_on_from(tmp_path: Path) -> None:
    asked: list[int] = []
    whole = trained(tmp_path, tiny_recipe())
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    state.pop("validated_step", None)
    torch.save(state, tmp_path / STATE_FILE)
    again = trained(tmp_path, tiny_recipe(), validate=_interrupted_at(-1, asked))
    assert asked == [6]
    assert all(torch.equal(whole[name], again[name]) for name in whole)


# ---------------------------------------------------------------------------------------------
# What learns, and how


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
    ("algorithm", "by_hand"),
    [
        # The first step of either is the learning rate, in the gradient's direction. Adam adds the
        # decay to the gradient, 1 - 0.5 * 2 = 0; AdamW shrinks the weight by it.
        ("adam", 2.0),
        ("adamw", 2.0 * (1 - 0.1 * 0.5) + 0.1),
        # The decayed gradient is 0, and so is the momentum of the first step.
        ("sgd", 2.0),
    ],
)
def test_the_first_step_of_an_optimiser(algorithm: str, by_hand: float) -> None:
    weight = nn.Parameter(torch.full((1, 1), 2.0))
    settings = OptimiserSettings(algorithm=algorithm, learning_rate=0.1, weight_decay=0.5)
    optimiser = make_optimiser({"decoders": [weight]}, settings)
    weight.grad = torch.full((1, 1), -1.0)
    optimiser.step()
    assert float(weight.detach()) == pytest.approx(by_hand)


def test_parts_learn_at_their_own_rates() -> None:
    """Adam's first step is the rate, whatever the gradient."""
    weights = {name: [nn.Parameter(torch.zeros(1))] for name in ("neck", "decoders")}
    settings = OptimiserSettings(learning_rate=0.1, rates={"decoders": 0.25})
    optimiser = make_optimiser(weights, settings)
    step = Stepper(small_model(), optimiser, tiny_recipe(), "cpu")
    for part in weights.values():
        part[0].grad = torch.ones(1)
    step.set_rate(0.4)
    optimiser.step()
    moved = {name: -float(part[0].detach()) for name, part in weights.items()}
    assert moved == {"neck": pytest.approx(0.4), "decoders": pytest.approx(0.1)}


def test_a_rate_of_an_unknown_part_is_refused() -> None:
    settings = OptimiserSettings(rates={"head": 0.5})
    with pytest.raises(SettingsError, match="names head; what trains is neck, decoders"):
        make_optimiser({"neck": [], "decoders": [nn.Parameter(torch.zeros(1))]}, settings)


MEANS_ALONE = {
    "first_forward": 0.5,
    "semantic_dice": 0,
    "object_dice": 0,
    "class_dice": 0,
    "hv_msge": 0,
}


@pytest.mark.parametrize("parts", [2, 3, 9], ids="{} parts".format)
def test_micro_batches_learn_what_the_batch_does(parts: int, tmp_path: Path) -> None:
    """Four crops, of two tasks. Terms that are means are the same; 9 parts become 4 of one crop."""
    changes = {**without_dropout(), "losses": MEANS_ALONE, "steps": 2}

    def of(accumulate: int) -> dict[tuple[int, str], float]:
        folder = tmp_path / str(accumulate)
        recipe = tiny_recipe(**changes, accumulate=accumulate)
        trained(folder, recipe, draw=lambda step: [make_batch(step, 4)])
        return losses_of(folder)

    assert of(parts) == pytest.approx(of(1), rel=1e-4)


def test_dice_is_that_of_the_micro_batches(tmp_path: Path) -> None:
    recipe = tiny_recipe(**without_dropout(), steps=1, accumulate=2)
    whole = trained(tmp_path / "both", recipe, draw=lambda step: [make_batch(step, 4)])
    assert whole
    # Every second crop is of the same task: each half knows one task alone, and all of its Dice.
    one = tiny_recipe(**without_dropout(), steps=1)
    for half, term in ((slice(0, None, 2), "semantic_dice"), (slice(1, None, 2), "object_dice")):
        folder = tmp_path / term
        trained(folder, one, draw=lambda step, half=half: [make_batch(step, 4).part(half)])
        assert losses_of(folder)[1, term] == losses_of(tmp_path / "both")[1, term]


@pytest.mark.parametrize("config", [TINY, COMPACT], ids=["hiera", "compact"])
def test_recomputed_blocks_give_equal_gradients(config: dict) -> None:
    torch.manual_seed(0)
    model = small_model(config={**config, "fusion_dropout": 0.0}).train()
    pixels, gradients = images(1), []
    for wanted in (False, True):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.zero_grad()
        with checkpointed_blocks(model, wanted):
            output = model(pixels)
            sum(maps.square().mean() for forward in output for maps in forward).backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
        model.load_state_dict(state)
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None and again is None) or torch.equal(plain, again)


def test_recomputed_blocks_keep_fewer_activations() -> None:
    """What autograd holds from the forward to the backward pass, in bytes."""
    model = small_model().train()

    def kept(wanted: bool) -> int:
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with (
            checkpointed_blocks(model, wanted),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        ):
            output = model.encode(images(4))
        del output
        return sum(held.values())

    assert kept(True) < 0.7 * kept(False)


def test_blocks_are_as_they_were_afterwards() -> None:
    model = small_model()
    with checkpointed_blocks(model):
        pass
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_network_without_blocks_says_so() -> None:
    with (
        pytest.raises(SettingsError, match="activation_checkpointing = false"),
        checkpointed_blocks(StubModel()),
    ):
        pass


def test_deterministic_mode_ends_with_the_training() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with reproducible():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled() == before


# ---------------------------------------------------------------------------------------------
# Overflow


def broken_at(steps: set[int]):
    """Batches of which some hold a pixel that is no number."""

    def draw_broken(step: int) -> list[Batch]:
        batch = make_batch(step)
        if step in steps:
            batch.images[0, 0, 0, 0] = np.nan
        return [batch]

    return draw_broken


def test_a_step_without_a_finite_loss_is_left_out(tmp_path: Path) -> None:
    """The network has batch normalisation, whose running statistics such a step would spoil."""
    config = {**TINY, "encoder": {**COMPACT_TRUNK}}
    recipe = tiny_recipe(card=small_card("coseg-plus", config).model_dump(), steps=3)
    told: list[str] = []
    broken = [lambda step: [big_batch(step, broken=step == 1)]]
    state = trained(
        tmp_path, recipe, draw=broken[0], progress=lambda _, message: told.append(message)
    )
    assert all(torch.isfinite(value).all() for value in state.values())
    assert ["left out" in message for message in told] == [False, True, False]


COMPACT_TRUNK = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": (1, 1, 1),
    "global_attention_blocks": (),
    "window_sizes": (8, 8, 8),
    "background_position_size": None,
    "stem_channels": (8, 8),
}


def big_batch(step: int, broken: bool) -> Batch:
    """64 x 64, which a network with a stem needs."""
    batch = make_batch(step)
    tiles = {
        name: np.tile(value, (1,) * (value.ndim - 2) + (2, 2)) if value.ndim > 2 else value
        for name, value in vars(batch).items()
        if value is not None
    }
    if broken:
        tiles["images"][0, 0, 0, 0] = np.inf
    return Batch(**tiles)


def test_training_stops_when_the_loss_stays_broken(tmp_path: Path) -> None:
    recipe = tiny_recipe(skip_at_most=1)
    with pytest.raises(
        DivergedError, match=r"step 5 .*semantic_cross_entropy nan.*is kept"
    ) as told:
        trained(tmp_path, recipe, draw=broken_at({3, 4}))
    assert isinstance(told.value, CosegError)
    state = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert state["step"] == 2
    # Nothing is lost: with the labels mended the same command goes on.
    mended = trained(tmp_path, recipe)
    whole = trained(tmp_path / "whole", recipe)
    assert all(torch.equal(whole[name], mended[name]) for name in whole)


def test_broken_from_the_start_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="no state was saved before"):
        trained(tmp_path, tiny_recipe(skip_at_most=0), draw=broken_at({0}))
