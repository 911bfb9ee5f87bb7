"""Batch normalisation of the moving average: measured over many batches, nothing else changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_coseg.datasets.batches import Batch
from napari_coseg.errors import Cancelled
from napari_coseg.training.loop import TrainingHooks, train
from napari_coseg.training.statistics import with_measured_statistics
from test_models import DETAILED, TINY, small_card, small_model
from tiny_training import make_batch, tiny_recipe, trained

PLAIN = tiny_recipe().optimiser.model_dump()


def draw(step: int) -> list[Batch]:
    """Crops of 64 pixels, as a network with a stem wants them."""
    small = make_batch(step)
    spatial = {
        name: value.repeat(2, axis=-1).repeat(2, axis=-2)
        for name, value in vars(small).items()
        if isinstance(value, np.ndarray) and value.ndim > 1
    }
    return [replace(small, **spatial)]


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return small_model(config=DETAILED)


def test_they_are_the_mean_of_all_batches(model: torch.nn.Module) -> None:
    """By hand, for the first layer: what it sees depends on no other statistics."""
    convolution, layer, _ = model.encoder.stem.down[0]
    seen = []
    for step in range(3):
        (batch,) = draw(step)
        with torch.no_grad():
            seen.append(convolution(model.normalise(torch.as_tensor(batch.images))))
    measured = with_measured_statistics(model, (draw(step) for step in range(3)), "cpu")
    found = measured.encoder.stem.down[0][1]
    means = torch.stack([pixels.mean(dim=(0, 2, 3)) for pixels in seen]).mean(dim=0)
    variances = torch.stack([pixels.var(dim=(0, 2, 3)) for pixels in seen]).mean(dim=0)
    torch.testing.assert_close(found.running_mean, means)
    torch.testing.assert_close(found.running_var, variances)
    assert not torch.equal(layer.running_mean, found.running_mean)


def test_nothing_else_changes(model: torch.nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    measured = with_measured_statistics(model, [draw(0)], "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed = {n for n, v in measured.state_dict().items() if not torch.equal(v, before[n])}
    kinds = {name.rpartition(".")[2] for name in changed}
    assert kinds == {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(module.training for module in measured.modules())
    assert all(
        getattr(module, "momentum", 0.1) == 0.1
        for module in measured.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    )


def test_a_network_without_them_comes_back_as_it_is() -> None:
    model = small_model(config=TINY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measured = with_measured_statistics(model, [], "cpu")
    assert all(torch.equal(value, before[n]) for n, value in measured.state_dict().items())


def test_training_validates_and_returns_them(tmp_path: Path) -> None:
    scored = []

    def validate(step: int, model: torch.nn.Module) -> dict[str, float]:
        norm = model.encoder.stem.down[0][1]
        scored.append((step, int(norm.num_batches_tracked), norm.running_mean.clone()))
        return {}

    recipe = tiny_recipe(
        card=small_card("coseg-plus", DETAILED).model_dump(),
        optimiser={"statistics_steps": 2},
        validation={"every_steps": 2, "start_step": 0},
    )
    result = train(
        small_model(config=DETAILED),
        draw,
        recipe,
        tmp_path,
        TrainingHooks(validate=validate),
        workers=0,
    )
    assert all(counted == 2 for _, counted, _ in scored)
    np.testing.assert_array_equal(result.encoder.stem.down[0][1].running_mean, scored[-1][2])


def test_the_weights_that_train_do_not_notice(tmp_path: Path) -> None:
    config = {"card": small_card("coseg-plus", DETAILED).model_dump()}
    plain = trained(tmp_path / "plain", tiny_recipe(**config), draw)
    measuring = tiny_recipe(**config, optimiser={**PLAIN, "statistics_steps": 2})
    measured = trained(tmp_path / "measured", measuring, draw)
    differs = {name for name in plain if not torch.equal(plain[name], measured[name])}
    assert {n.rpartition(".")[2] for n in differs} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.parametrize(
    ("from_step", "batches_seen"),
    [
        pytest.param(None, 6, id="never"),
        pytest.param(0, 0, id="from the first step on"),
        pytest.param(4, 4, id="after four of six steps"),
        pytest.param(99, 6, id="after the end"),
    ],
)
def test_statistics_are_frozen_from_a_step_on(
    from_step: int | None, batches_seen: int, tmp_path: Path
) -> None:
    """Also where the training was interrupted after that step."""
    recipe = tiny_recipe(
        card=small_card("coseg-plus", DETAILED).model_dump(),
        optimiser={**PLAIN, "freeze_statistics_from_step": from_step},
    )
    whole = trained(tmp_path / "whole", recipe, draw)
    counted = [int(v) for n, v in whole.items() if n.endswith("stem.down.0.1.num_batches_tracked")]
    assert counted == [batches_seen]
    with pytest.raises(Cancelled):
        trained(tmp_path / "cut", recipe, draw, should_cancel=_After(5))
    resumed = trained(tmp_path / "cut", recipe, draw)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class _After:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0
