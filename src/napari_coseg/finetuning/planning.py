"""Makes the plan: scores of the base, the input's match, what a step costs, and how many fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import SettingsError
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.costs import StepCost, measure
from napari_coseg.finetuning.hooks import RunControl
from napari_coseg.finetuning.input_match import AS_IT_IS, match_input
from napari_coseg.finetuning.plan import Origin, RunPlan, divide_time, read_plan, write_plan
from napari_coseg.finetuning.preparing import Prepared
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.finetuning.scores import Scores, score
from napari_coseg.training.memory import OutOfMemory, catching_out_of_memory
from napari_coseg.training.stepping import RECOMPUTED

MATCHING_CROPS = 6
SMALLEST_CROP_PX = 64
UNSCORED = (
    "the held-out part has neither whole objects nor regions: nothing scores the result; review "
    "more, or larger regions"
)


class FittedStep(NamedTuple):
    """What fits the device: the cost of a step, the crop, and whether blocks are computed twice."""

    cost: StepCost
    crop_px: int
    activation_checkpointing: bool
    notes: tuple[str, ...]


def settle(
    prepared: Prepared,
    folder: Path,
    origin: Origin,
    control: RunControl,
    started: float,
    base_images: tuple[ReviewedImage, ...],
) -> RunPlan:
    """The plan that an earlier call wrote to `folder`, or a new one, written there.

    Parameters
    ----------
    started
        By the control's clock.
    """
    plan = read_plan(folder, origin)
    if plan is None:
        plan = _new_plan(prepared, origin, control, started, base_images)
        write_plan(folder, plan)
    values = plan.model_dump(mode="json", exclude={"origin"})
    control.hooks.report("plan", {**values, "parts": list(prepared.parts)})
    prepared.normalise(plan.normalisation)
    return plan


def fit(prepared: Prepared, control: RunControl | None = None) -> FittedStep:
    """Measure a step; where one crop does not fit, with blocks computed twice, then smaller ones.

    Raises
    ------
    SettingsError
        Where not even the smallest crop fits.
    """
    settings, crop_px = prepared.settings, prepared.settings.crop_px
    asked = settings.activation_checkpointing
    can_recompute = settings.speed == "adapters" and asked is not False
    recompute = can_recompute and bool(asked)
    notes: list[str] = []
    while True:
        try:
            cost = measure(prepared, crop_px, recompute, control)
            return FittedStep(cost, crop_px, recompute, tuple(notes))
        except OutOfMemory:
            pass
        if can_recompute and not recompute:
            recompute, change = True, RECOMPUTED
        else:
            crop_px, change = smaller_crop(prepared, crop_px)
        notes.append(f"out of memory: {change}")


def smaller_crop(prepared: Prepared, crop_px: int) -> tuple[int, str]:
    """Half the side, as the network takes it, and the change in words.

    Raises
    ------
    SettingsError
        At the smallest.
    """
    multiple = prepared.network.size_multiple
    smaller = crop_px // 2 // multiple * multiple
    if smaller < max(SMALLEST_CROP_PX, multiple):
        raise SettingsError(
            f"the device has not enough memory for one crop of {crop_px} pixels; close other "
            "programs that use it, or choose the device 'cpu'"
        )
    return smaller, f"crops of {crop_px} -> {smaller} pixels"


def _new_plan(
    prepared: Prepared,
    origin: Origin,
    control: RunControl,
    started: float,
    base_images: tuple[ReviewedImage, ...],
) -> RunPlan:
    settings = prepared.settings
    scoring_started = control.clock()
    before = _scores(prepared, prepared.divided.held_out, "before", control)
    scoring_s = control.clock() - scoring_started
    base_before = _scores(prepared, base_images, "base_before", control)
    scoring_all_s = control.clock() - scoring_started
    control.progress(0.02, "measuring what a step takes")
    fitted = fit(prepared, control)  # before the match: that takes crops of a size that fits
    control.progress(0.03, "matching the images to what the base knows")
    name, normalisation = AS_IT_IS, prepared.network.card.normalisation
    if settings.match_input:
        name, normalisation = _matched(prepared, control, fitted.crop_px)
        prepared.normalise(normalisation)
    left = 60 * settings.minutes - (control.clock() - started) - scoring_all_s
    budget = divide_time(
        settings.with_crop(fitted.crop_px), fitted.cost, prepared.area_px(), left, scoring_s
    )
    return RunPlan(
        origin=origin,
        steps=budget.steps,
        validate_every=max(1, -(-budget.steps // settings.validations)),
        precision=fitted.cost.precision,
        crop_px=fitted.crop_px,
        activation_checkpointing=fitted.activation_checkpointing
        or settings.activation_checkpointing,
        cached_crops=budget.cached_crops,
        seconds_a_step=round(fitted.cost.step_s, 4),
        input=name,
        normalisation=normalisation,
        scores_before=before,
        base_scores_before=base_before,
        notes=(
            *fitted.notes,
            *((f"images are taken {name}",) if name != AS_IT_IS else ()),
            *((UNSCORED,) if prepared.divided.held_out and not before else ()),
        ),
    )


def _scores(
    prepared: Prepared, images: tuple[ReviewedImage, ...], when: str, control: RunControl
) -> Scores:
    if not images:
        return {}
    control.progress(0.01, "scoring the base model")
    prepared.network.eval()
    found = score(prepared.network, images, should_cancel=control)
    control.hooks.report("scores", {"when": when, "step": 0, "scores": found})
    return found


def _matched(prepared: Prepared, control: RunControl, crop_px: int) -> tuple[str, Normalisation]:
    """The change of intensities under which the base's loss is lowest, on crops that fit."""
    own = prepared.network.card.normalisation
    while True:
        try:
            with prepared.stepper() as stepper:
                loss = _loss_under(prepared, control, crop_px, stepper.loss)
                return match_input(own, prepared.divided.training, loss)
        except OutOfMemory:
            crop_px, _ = smaller_crop(prepared, crop_px)
        finally:
            prepared.normalise(own)


def _loss_under(
    prepared: Prepared, control: RunControl, crop_px: int, loss_of: Callable[..., tuple]
) -> Callable[[Normalisation], float]:
    """The loss of a few crops, as a function of the normalisation."""
    prepared.network.eval()
    batches: dict[bool, Batch] = {}

    @torch.no_grad()
    def loss(normalisation: Normalisation) -> float:
        prepared.normalise(normalisation)
        stretch, total = normalisation.stretch, 0.0
        if stretch not in batches:
            batches[stretch] = prepared.crops(crop_px).draw(0, MATCHING_CROPS, augmented=False)
        for i in range(MATCHING_CROPS):
            control()
            with catching_out_of_memory(prepared.device):
                total += float(loss_of(batches[stretch].part(slice(i, i + 1)))[0])
        return total

    return loss
