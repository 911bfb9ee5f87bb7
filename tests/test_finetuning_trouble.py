"""What goes wrong in a fine-tuning, and what is told, kept or begun anew then."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases.finetuning_cases import (
    StopAfter,
    base_file,
    reviewed_image,
    reviewed_set,
    settings,
    tuned,
)
from napari_coseg.core.errors import Cancelled, DatasetError
from napari_coseg.core.types import LabelClass
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning import learning
from napari_coseg.finetuning.held_out import hold_out
from napari_coseg.finetuning.learning import Learning
from napari_coseg.finetuning.plan import LEAST_STEPS
from napari_coseg.finetuning.planning import UNSCORED
from napari_coseg.finetuning.preparing import prepare
from napari_coseg.finetuning.reviewed import ReviewedSet
from napari_coseg.models.checkpoints.safe import load_state_dict
from napari_coseg.training.memory import OutOfMemory
from napari_coseg.training.settings import STATE_FILE
from napari_coseg.training.stepping import DivergedError, Outcome, Stepper

RUN = "mine-run"


# ---------------------------------------------------------------------------------------------
# Which weights are taken


@pytest.mark.parametrize(
    ("scores", "taken"),
    [
        pytest.param([{}, {}], 4, id="nothing can be scored: the last"),
        pytest.param([{"object_f1": 0.0, "object_pq": 0.0}] * 2, 4, id="equal: the latest"),
        pytest.param([{"mean_region_dice": 0.6}, {"mean_region_dice": 0.5}], 2, id="the best"),
    ],
)
def test_which_weights_are_taken(
    scores: list[Any], taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(scores)
    monkeypatch.setattr(learning, "score", lambda *_, **__: next(found))
    assert (
        tuned(tmp_path, steps=4, validations=2, interpolate=False).card.settings["steps_taken"]
        == taken
    )


def test_a_held_out_part_that_scores_nothing_is_told(tmp_path: Path) -> None:
    reviewed = reviewed_set(4, semantic=None, semantic_known=None)
    (held,) = hold_out(reviewed, 0.2).held_out
    empty = replace(
        held,
        instances=np.zeros_like(held.instances),
        instance_types=np.zeros_like(held.instance_types),
    )
    images = tuple(empty if image.name == held.name else image for image in reviewed.images)
    watch = StopAfter("plan", 1)
    with pytest.raises(Cancelled):
        tuned(tmp_path, replace(reviewed, images=images), hooks=watch.hooks())
    assert UNSCORED in dict(watch.seen)["plan"]["notes"]


# ---------------------------------------------------------------------------------------------
# Pauses


def test_a_pause_is_no_time_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other time that it asks, it is paused for a quarter of an hour."""
    ahead, plain = [0.0], {name: getattr(time, name) for name in ("monotonic", "perf_counter")}
    for name, clock in plain.items():
        monkeypatch.setattr(time, name, lambda clock=clock: clock() + ahead[0])
    monkeypatch.setattr(time, "sleep", lambda _: ahead.__setitem__(0, ahead[0] + 900))
    pauses, watch = cycle([True, False]), StopAfter("plan", 1)
    hooks = replace(watch.hooks(), should_pause=lambda: next(pauses))
    with pytest.raises(Cancelled):
        tuned(tmp_path, steps=None, minutes=5, hooks=hooks)
    plan = dict(watch.seen)["plan"]
    assert ahead[0] > 0 and plan["steps"] > LEAST_STEPS and plan["seconds_a_step"] < 900


# ---------------------------------------------------------------------------------------------
# Steps that cannot be taken


def spoilt(monkeypatch: pytest.MonkeyPatch, *spoil: bool) -> None:
    """Of the steps that follow, these have no finite loss."""
    plain, coming = Stepper.__call__, iter(spoil)

    def step(self: Stepper, *arguments: Any) -> Outcome:
        return Outcome({}, False) if next(coming, False) else plain(self, *arguments)

    monkeypatch.setattr(Stepper, "__call__", step)


def test_a_short_run_without_any_step_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch, *repeat(True, 4))
    for _ in ("at first", "gone on with"):
        with pytest.raises(DivergedError, match="none of the 4 steps had a finite loss"):
            tuned(tmp_path)
    assert not (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("stop", [None, 3], ids=["in one", "stopped after three"])
def test_steps_left_out_are_told(
    stop: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt(monkeypatch, False, True, True, False)
    if stop is not None:
        with pytest.raises(Cancelled):
            tuned(tmp_path, hooks=StopAfter("step", stop).hooks())
    told = "2 of 4 steps were left out: no finite loss or gradient"
    result = tuned(tmp_path)
    assert told in result.notes and told in result.card.notes


# ---------------------------------------------------------------------------------------------
# Images of the base's own kind


def named(regions: str = "gland", types: tuple[str, ...] = ("round", "long")) -> ReviewedSet:
    colour = (1, 2, 3)
    kinds = tuple(LabelClass(i, name, colour) for i, name in enumerate(types, 1))
    return replace(
        reviewed_set(1),
        semantic_classes=(LabelClass(1, regions, colour),),
        instance_classes=kinds,
        source="the others",
    )


@pytest.mark.parametrize("use", ["base_validation", "replay"])
@pytest.mark.parametrize(
    ("others", "told"),
    [
        pytest.param(
            named("villus"),
            "the others: the model does not know the region class 'villus'; it knows gland",
            id="a region",
        ),
        pytest.param(
            named("villus", ("square", "star")),
            "'villus'; it knows gland, nor the object classes 'square', 'star'; it knows round",
            id="regions and objects",
        ),
        pytest.param(
            reviewed_set(1, instances_known=np.zeros((96, 96), bool), semantic=None,
                         semantic_known=None),
            "nothing is reviewed",
            id="nothing is reviewed",
        ),
    ],
)  # fmt: skip
def test_others_with_unknown_classes_are_refused(
    use: str, others: ReviewedSet, told: str, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=told):
        tuned(tmp_path, **{use: others})
    assert not (tmp_path / RUN).exists()


def test_images_that_lose_all_their_masks_are_dropped(tmp_path: Path) -> None:
    """Of a model without classes of regions."""
    prepared = prepare(reviewed_set(), base_file(tmp_path), settings(), "cpu")
    classes = replace(prepared.classes, semantic_numbers={})
    regions = replace(reviewed_image(7), instances=None, instances_known=None, instance_types=None)
    others = replace(reviewed_set(1), images=(regions, reviewed_image(8)))
    found = replace(prepared, classes=classes).of_base_kind(others)
    assert [image.name for image in found] == ["image 8"]


def test_a_class_that_nothing_is_labelled_with_does_no_harm(tmp_path: Path) -> None:
    prepared = prepare(reviewed_set(), base_file(tmp_path), settings(), "cpu")
    unused = (*named().semantic_classes, LabelClass(2, "villus", (0, 0, 0)))
    assert len(prepared.of_base_kind(replace(named(), semantic_classes=unused))) == 1


# ---------------------------------------------------------------------------------------------
# What a process that was killed leaves


def test_what_a_run_left_without_its_plan_is_no_part_of_the_next(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        tuned(tmp_path, hooks=StopAfter("step", 2).hooks())
    run = tmp_path / RUN
    (run / "plan.json").unlink()
    (run / f".{STATE_FILE}.4711.tmp").touch()
    (run / "features" / "mine.txt").touch()
    (tmp_path / "other").mkdir()
    expected = load_state_dict(tuned(tmp_path / "other", seed=1).adapter)
    found = load_state_dict(tuned(tmp_path, seed=1).adapter)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    left = {path.name for path in run.rglob("*") if path.suffix != ".png"}
    assert left == {"log.csv", "pictures", "features", "mine.txt"}


def test_a_crash_while_scoring_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError("crash")

    monkeypatch.setattr(learning, "score", crash)
    with pytest.raises(RuntimeError, match="crash"):
        tuned(tmp_path, steps=4, validations=2)
    assert torch.load(tmp_path / RUN / STATE_FILE, weights_only=True)["step"] == 2


# ---------------------------------------------------------------------------------------------
# Memory


FULL = torch.OutOfMemoryError("CUDA out of memory")


def test_looking_at_images_takes_crops_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Stepper.loss

    def loss(self: Stepper, batch: Batch, *shares: Any) -> Any:
        if batch.semantic.shape[-1] > 64:
            raise FULL
        return plain(self, batch, *shares)

    monkeypatch.setattr(Stepper, "loss", loss)
    result = tuned(tmp_path, crop_px=128, match_input=True, steps=1)
    assert result.notes[0] == "out of memory: crops of 128 -> 64 pixels"


@pytest.mark.parametrize(
    ("speed", "told"),
    [
        ("heads", "out of memory: 1 crop at once in place of 2"),
        ("adapters", "out of memory: computing blocks twice"),
    ],
)
def test_the_optimiser_may_not_fit_at_first(
    speed: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, steps = torch.optim.AdamW.step, iter(range(100))

    def step(self: Any, *arguments: Any) -> Any:
        done = plain(self, *arguments)
        if next(steps) == 0:  # some weights were changed, and some state was made
            raise FULL
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    result = tuned(tmp_path, speed=speed)
    assert told in result.notes and next(steps) == 5, "its first step was taken once more"


def test_a_step_that_does_not_fit_changes_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(reviewed_set(), base_file(tmp_path), settings(speed="adapters"), "cpu")
    plain, origin = torch.optim.AdamW.step, {n: p.clone() for n, p in prepared.trained.items()}

    def step(self: Any, *arguments: Any) -> Any:
        plain(self, *arguments)
        raise FULL

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with prepared.stepper() as stepper:
        with pytest.raises(OutOfMemory):
            stepper([prepared.crops(64).draw(0, 2)], 1e-3)
        assert not stepper.optimiser.state
    assert all(torch.equal(p, origin[name]) for name, p in prepared.trained.items())


# ---------------------------------------------------------------------------------------------
# The proof


def test_a_frozen_weight_that_changed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(self: Learning) -> None:
        parameters = self.prepared.network.named_parameters()
        frozen = next(p for name, p in parameters if name not in self.prepared.trained)
        with torch.no_grad():
            frozen.add_(1e-3)

    monkeypatch.setattr(Learning, "take_best", change)
    with pytest.raises(RuntimeError, match="weights changed that do not train"):
        tuned(tmp_path, steps=1)
    assert not (tmp_path / "mine.safetensors").exists()
