"""Before the first step: scores of the base, the input's match, what a step costs, how many fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from napari_coseg.core.card import Normalisation
from napari_coseg.core.errors import SettingsError
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.costs import Cost, measure
from napari_coseg.finetuning.hooks import Gate
from napari_coseg.finetuning.input_match import AS_IT_IS, match_input
from napari_coseg.finetuning.plan import Origin, RunPlan, read_plan, share_out, write_plan
from napari_coseg.finetuning.preparing import Prepared, replace_crop
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.finetuning.scores import Scores, score
from napari_coseg.finetuning.stepping import OutOfMemory, StepCrops, Tuner
from napari_coseg.models.adapted import take_over
from napari_coseg.training.stepping import cut

MATCHING_CROPS = 6
SMALLEST_CROP_PX = 64
TWICE = "computing blocks twice"
UNSCORED = (
    "what is held back has neither whole objects nor regions: nothing scores the result; review "
    "more, or larger regions"
)


class Fitting(NamedTuple):
    """What fits the device: the cost of a step, the crop, and whether blocks are computed twice."""

    cost: Cost
    crop_px: int
    activation_checkpointing: bool
    told: tuple[str, ...]


def settle(
    prepared: Prepared,
    folder: Path,
    origin: Origin,
    gate: Gate,
    began: float,
    base_images: tuple[ReviewedImage, ...],
) -> RunPlan:
    """The plan that an earlier call wrote to `folder`, or a new one, written there.

    Parameters
    ----------
    began
        By the gate's clock.
    """
    plan = read_plan(folder, origin)
    if plan is None:
        plan = _new_plan(prepared, origin, gate, began, base_images)
        write_plan(folder, plan)
    told = plan.model_dump(mode="json", exclude={"origin"})
    gate.hooks.report("plan", {**told, "parts": list(prepared.parts)})
    normalise(prepared, plan.normalisation)
    return plan


def fit(prepared: Prepared, gate: Gate | None = None) -> Fitting:
    """Measure a step; where one crop does not fit, with blocks computed twice, then smaller ones.

    Raises
    ------
    SettingsError
        Where not even the smallest crop fits.
    """
    crop_px, through = prepared.settings.crop_px, prepared.settings.speed == "adapters"
    asked = prepared.settings.activation_checkpointing
    twice = through and bool(asked)
    told: list[str] = []
    while True:
        settings = replace_crop(prepared.settings, crop_px)
        tuner = tuner_of(replace(prepared, settings=settings), gate)
        if twice:
            tuner.checkpoint_activations()
        crops = prepared.crops(prepared.divided.to_learn, crop_px, prepared.settings.seed)
        count = settings.crops if tuner.device.type == "cuda" else 1
        try:
            cost = measure(tuner, StepCrops(crops.draw(0, count)), not through)
            return Fitting(cost, crop_px, twice, tuple(told))
        except OutOfMemory:
            pass
        finally:
            tuner.close()
        if through and not twice and asked is not False:
            twice = True
            told.append(f"out of memory: {TWICE}")
            continue
        smaller = smaller_crop(prepared, crop_px)
        told.append(f"out of memory: crops of {crop_px} -> {smaller} pixels")
        crop_px = smaller


def smaller_crop(prepared: Prepared, crop_px: int) -> int:
    """Half the side, as the network takes it.

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
    return smaller


def tuner_of(prepared: Prepared, gate: Gate | None = None, precision: str = "fp32") -> Tuner:
    """What takes steps."""
    settings = prepared.settings
    tuner = Tuner(prepared.network, prepared.trained, settings, precision, settings.crops)
    if gate is not None:
        tuner.gate, tuner.clock = gate, gate.clock
    return tuner


def normalise(prepared: Prepared, normalisation: Normalisation) -> None:
    """Let the network see images through this normalisation."""
    card = prepared.network.card.model_copy(update={"normalisation": normalisation})
    take_over(prepared.network, card)


def _new_plan(
    prepared: Prepared,
    origin: Origin,
    gate: Gate,
    began: float,
    base_images: tuple[ReviewedImage, ...],
) -> RunPlan:
    settings = prepared.settings
    scoring_began = gate.clock()
    before = _scores(prepared, prepared.divided.held_back, "before", gate)
    scoring_s = gate.clock() - scoring_began
    base_before = _scores(prepared, base_images, "base_before", gate)
    scoring_all_s = gate.clock() - scoring_began
    gate.progress(0.02, "measuring what a step takes")
    fitting = fit(prepared, gate)  # before looking: that takes crops of a size that fits
    gate.progress(0.03, "looking at how the base sees these images")
    name, normalisation = AS_IT_IS, prepared.network.card.normalisation
    if settings.match_input:
        name, normalisation = _matched(prepared, gate, fitting.crop_px)
        normalise(prepared, normalisation)
    left = 60 * settings.minutes - (gate.clock() - began) - scoring_all_s
    fitted = replace_crop(settings, fitting.crop_px)
    shares = share_out(fitted, fitting.cost, prepared.area_px(), left, scoring_s)
    return RunPlan(
        origin=origin,
        steps=shares.steps,
        validate_every=max(1, -(-shares.steps // settings.validations)),
        precision=fitting.cost.precision,
        crop_px=fitting.crop_px,
        micro=settings.crops,
        activation_checkpointing=fitting.activation_checkpointing,
        cached_crops=shares.cached_crops,
        seconds_a_step=round(fitting.cost.step_s, 4),
        input=name,
        normalisation=normalisation,
        scores_before=before,
        base_scores_before=base_before,
        notes=(
            *fitting.told,
            *((f"images are taken {name}",) if name != AS_IT_IS else ()),
            *((UNSCORED,) if prepared.divided.held_back and not before else ()),
        ),
    )


def _scores(prepared: Prepared, images: tuple[ReviewedImage, ...], when: str, gate: Gate) -> Scores:
    if not images:
        return {}
    gate.progress(0.01, "scoring the base model")
    prepared.network.eval()
    found = score(prepared.network, images, should_cancel=gate)
    gate.hooks.report("scores", {"when": when, "step": 0, "scores": found})
    return found


def _matched(prepared: Prepared, gate: Gate, crop_px: int) -> tuple[str, Normalisation]:
    """The change of intensities under which the base's loss is lowest, on crops that fit."""
    own = prepared.network.card.normalisation
    while True:
        try:
            return _match(prepared, gate, own, crop_px)
        except OutOfMemory:
            crop_px = smaller_crop(prepared, crop_px)


def _match(
    prepared: Prepared, gate: Gate, own: Normalisation, crop_px: int
) -> tuple[str, Normalisation]:
    images, settings = prepared.divided.to_learn, prepared.settings
    tuner = tuner_of(prepared)
    prepared.network.eval()
    batches: dict[bool, Batch] = {}

    def loss(normalisation: Normalisation) -> float:
        normalise(prepared, normalisation)
        stretch, total = normalisation.stretch, 0.0
        if stretch not in batches:
            crops = prepared.crops(images, crop_px, settings.seed)
            batches[stretch] = crops.draw(0, MATCHING_CROPS, augmented=False)
        batch = batches[stretch]
        for i in range(MATCHING_CROPS):
            gate()
            total += tuner.measure_loss(StepCrops(cut(batch, slice(i, i + 1))))
        return total

    return match_input(own, images, loss)
