"""The training loop: steps, moving average, checkpoints, exact resume.

The loop knows nothing of files of images: `draw(step)` gives a step's batches and depends on
nothing but the step, so that a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from napari_coseg.datasets.batches import Batch
from napari_coseg.errors import Cancelled, CheckpointError
from napari_coseg.models.base import CosegModel
from napari_coseg.training.losses import Targets, two_forward_loss
from napari_coseg.training.recipe import OptimiserSettings, Recipe
from napari_coseg.training.trainable import decay_groups, train_only

Draw = Callable[[int], Sequence[Batch]]
STATE_FILE = "training-state.pt"
LOG_FILE = "log.csv"


@dataclass
class TrainingHooks:
    """What the caller wants to hear, and whether it wants to stop. All are optional.

    progress(fraction, message); should_cancel() -> bool; validate(step, model) is called with the
    moving average when the recipe says so and returns the scores to log.
    """

    progress: Callable[[float, str], None] = lambda fraction, message: None
    should_cancel: Callable[[], bool] = lambda: False
    validate: Callable[[int, CosegModel], dict[str, float]] | None = None


def train(
    model: CosegModel,
    draw: Draw,
    recipe: Recipe,
    output_dir: Path,
    hooks: TrainingHooks | None = None,
    device: str = "cpu",
    workers: int = 1,
) -> CosegModel:
    """Train `model` in place of its recipe, resuming from `output_dir`; returns the average.

    Raises
    ------
    Cancelled
        `should_cancel` said so; the state is saved, and the same call goes on from there.
    """
    hooks = hooks or TrainingHooks()
    output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    in_channels_last(model.to(device)).train()
    parameters = train_only(model, recipe.trained_parts)
    settings = recipe.optimiser
    optimiser = torch.optim.AdamW(
        decay_groups(parameters, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
    )
    average = AveragedModel(model, multi_avg_fn=_average_towards(settings.ema_decay))
    state = output_dir / STATE_FILE
    start = _resume(state, model, average, optimiser)
    averaged = cast(CosegModel, average.module)
    began = time.monotonic()
    with _Log(output_dir / LOG_FILE, start) as log:
        for step, batches in zip(
            range(start, recipe.steps), _feed(draw, start, recipe.steps, workers), strict=True
        ):
            rate = learning_rate(step, recipe.steps, settings)
            terms = _one_step(model, optimiser, batches, recipe, rate, device)
            average.update_parameters(model)
            done = step + 1
            log.write(done, {"learning_rate": rate, **terms})
            left = (time.monotonic() - began) / (done - start) * (recipe.steps - done)
            hooks.progress(
                done / recipe.steps,
                f"step {done} of {recipe.steps}, loss {sum(terms.values()):.3f}, "
                f"{left / 60:.0f} min left",
            )
            cancelled = hooks.should_cancel()
            last = done == recipe.steps
            if done % recipe.checkpoint_every_steps == 0 or cancelled or last:
                _save(state, done, model, average, optimiser)
            if cancelled:
                raise Cancelled(f"training stopped after step {done}; the same command goes on")
            due = done % recipe.validation.every_steps == 0 and done > recipe.validation.start_step
            if hooks.validate is not None and (due or last):
                log.write(done, hooks.validate(done, averaged.eval()))
                averaged.train()
    return averaged.eval()


def in_channels_last(model: CosegModel) -> CosegModel:
    """Lay the kernels out as the convolutions of CPUs and tensor cores want them."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Linear warm-up, then one or two cosines to zero or the paper's exponential decay."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        restart = settings.restart_step or steps
        if step < restart:
            return settings.learning_rate * _cosine(step, settings.warmup_steps, restart)
        rate = settings.learning_rate * settings.restart_rate
        return rate * _cosine(step, restart, steps)
    return settings.learning_rate * settings.decay ** (step // settings.steps_per_epoch)


def _cosine(step: int, start: int, stop: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, stop - start)))


def to_tensors(batch: Batch, device: str) -> tuple[Tensor, Targets]:
    """Arrays of a batch -> images (B, 3, Y, X) of 0..255 and their targets, on the device."""

    def put(array: object) -> Tensor:
        return torch.as_tensor(array).to(device, non_blocking=True)

    objects = put(batch.instances) > 0
    targets = Targets(
        semantic=put(batch.semantic).long(),
        objects=objects,
        classes=put(batch.types).long() * objects,
        hv=put(batch.hv),
        has_semantic=put(batch.has_semantic),
        has_instances=put(batch.has_instances),
        valid=put(batch.valid),
    )
    return put(batch.images), targets


def _one_step(
    model: CosegModel,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[Batch],
    recipe: Recipe,
    rate: float,
    device: str,
) -> dict[str, float]:
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    terms: dict[str, float] = {}
    for batch in batches:  # different crop sizes cannot share a tensor: their gradients add up
        images, targets = to_tensors(batch, device)
        images = model.normalise(images).to(memory_format=torch.channels_last)
        with torch.autocast(
            torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bf16"
        ):
            output = model(images)
        loss, parts = two_forward_loss(output, targets, recipe.losses)
        loss.backward()
        for name, value in parts.items():
            terms[name] = terms.get(name, 0.0) + value
    norm = nn.utils.clip_grad_norm_(
        [p for group in optimiser.param_groups for p in group["params"]],
        recipe.optimiser.clip_gradient_norm,
    )
    if torch.isfinite(norm):  # a step that overflowed is left out, not learnt
        optimiser.step()
    return terms


def _average_towards(decay: float) -> Callable:
    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        # A young average would remember the random start: let its memory grow with its age.
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return update


class _Steps(Dataset):
    def __init__(self, draw: Draw) -> None:
        self.draw = draw

    def __getitem__(self, step: int) -> Sequence[Batch]:
        return self.draw(step)


def _feed(draw: Draw, start: int, stop: int, workers: int) -> Iterator[Sequence[Batch]]:
    loader = DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        collate_fn=lambda batches: batches,
        generator=torch.Generator(),  # drawing its seed must not move the networks' random state
    )
    return iter(loader)


def _save(
    path: Path, step: int, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def _resume(
    path: Path, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        return int(state["step"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a state of this training: {error}; give another output folder"
        ) from error


class _Log:
    """One row a value (step, name, value): tidy, and new names need no new columns."""

    def __init__(self, path: Path, start: int) -> None:
        keep = []
        if path.exists():
            with path.open(newline="") as file:
                keep = [
                    row for row in csv.reader(file) if row[0].isdigit() and int(row[0]) <= start
                ]
        self.file = path.open("w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(("step", "name", "value"))
        self.writer.writerows(keep)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        self.writer.writerows((step, name, f"{value:.6g}") for name, value in values.items())
        self.file.flush()
