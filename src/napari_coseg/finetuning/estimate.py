"""Estimates what a fine-tuning would train on and take, before it is started."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from napari_coseg.core.errors import SettingsError
from napari_coseg.finetuning.inputs_snapshot import size_mb
from napari_coseg.finetuning.plan import TimeBudget, divide_time, validations_of
from napari_coseg.finetuning.planning import FittedStep, fit
from napari_coseg.finetuning.preparing import Prepared, prepare
from napari_coseg.finetuning.reviewed import ReviewedSet, Reviews
from napari_coseg.finetuning.scores import Scores, score
from napari_coseg.finetuning.settings import FEWEST_USEFUL_STEPS, FinetuneSettings
from napari_coseg.inference.loading import DEFAULT_MODEL
from napari_coseg.training.memory import OutOfMemory, catching_out_of_memory

ITSELF_MB = 400
"""Of Python and torch, before anything is loaded."""


@dataclass(frozen=True)
class Estimate:
    """As plain values.

    Parameters
    ----------
    reviews
        What is trained on and what is held out, together.
    held_out_images, held_out_objects
        Of these, what scores.
    parts
        What trains, and its number of weights.
    steps, seconds_a_step, seconds
        That fit into the time there is; all of it with scores and features.
    proposed_speed
        "adapters" where enough steps of it fit into the time here to gain from them, else "heads";
        None where steps are given in place of time, or nobody asked.
    base_scores
        Of the base as it is, on the first of the held-out images (`scores.score`).
    memory_mb
        Of the process; on a card, of the card.
    disk_mb
        Of the features cached and of a copy of the inputs, until the end.
    notes
        For the user.
    """

    device: str
    reviews: Reviews
    held_out_images: int
    held_out_objects: int
    parts: tuple[str, ...]
    trained_weights: int
    steps: int
    seconds_a_step: float
    seconds: float
    memory_mb: float
    disk_mb: float
    precision: str
    proposed_speed: str | None
    base_scores: Scores
    notes: tuple[str, ...]


def estimate(
    reviewed: ReviewedSet,
    *,
    base: str | Path = DEFAULT_MODEL,
    settings: FinetuneSettings | None = None,
    device: str = "auto",
    propose: bool = True,
) -> Estimate:
    """Prepare a fine-tuning and measure one step of it; nothing is written.

    Parameters
    ----------
    propose
        Propose a speed: to speed heads a step of speed adapters is measured as well.

    Raises
    ------
    CosegError
        Whatever would keep the fine-tuning from starting.
    """
    prepared = prepare(reviewed, base, settings or FinetuneSettings(), device)
    settings = prepared.settings
    held = prepared.divided.held_out
    began, scores = time.monotonic(), {}
    if held:
        prepared.network.eval()
        scores = score(prepared.network, held[:1])
    scoring_s = (time.monotonic() - began) * max(1, len(held)) if held else 0.0
    fitted, (cached, steps) = _steps_in_time(prepared, scoring_s)
    cost = fitted.cost
    scorings = 2 + (validations_of(settings) if held else 0)
    seconds = steps * cost.step_s + cached * cost.encode_s + scorings * scoring_s
    on_cpu = prepared.device == "cpu"
    memory = cost.weights_mb + settings.crops * cost.activations_mb
    notes = [*prepared.notes, *fitted.notes]
    if steps < FEWEST_USEFUL_STEPS and settings.steps is None:
        notes.append(f"only {steps} steps fit into {settings.minutes:g} minutes; give it more time")
    found = Estimate(
        device=torch.cuda.get_device_name() if "cuda" in prepared.device else prepared.device,
        reviews=prepared.reviewed.reviews(),
        held_out_images=len({image.name for image in held}),
        held_out_objects=ReviewedSet(held).reviews().objects,
        parts=prepared.parts,
        trained_weights=sum(p.numel() for p in prepared.trained.values()),
        steps=steps,
        seconds_a_step=round(cost.step_s, 3),
        seconds=round(seconds, 1),
        memory_mb=round(memory + on_cpu * ITSELF_MB),
        disk_mb=round(cached * cost.features_mb + size_mb(reviewed), 1),
        precision=cost.precision,
        proposed_speed=None,
        base_scores=scores,
        notes=tuple(notes),
    )
    if settings.steps is not None or not propose:
        return found
    if settings.speed == "heads":
        actual = prepared.device
        del prepared  # the memory that the other one needs
        other = settings.model_copy(update={"speed": "adapters", "parts": None})
        try:
            with catching_out_of_memory(actual):
                _, (_, steps) = _steps_in_time(prepare(reviewed, base, other, device), scoring_s)
        except (SettingsError, OutOfMemory):  # no memory for one step
            steps = 0
    proposed = "adapters" if steps >= FEWEST_USEFUL_STEPS else "heads"
    return replace(found, proposed_speed=proposed)


def _steps_in_time(prepared: Prepared, scoring_s: float) -> tuple[FittedStep, TimeBudget]:
    """What a step takes, and how many fit."""
    fitted, settings = fit(prepared), prepared.settings
    left = 60 * settings.minutes - 2 * scoring_s
    chosen = settings.with_crop(fitted.crop_px)
    return fitted, divide_time(chosen, fitted.cost, prepared.area_px(), left, scoring_s)
