"""The training loop: steps, moving average, checkpoints, exact resume.

The loop knows nothing of files of images: `draw(step)` gives a step's batches (this process' share
of them) and depends on nothing but the step, so that a resumed run sees what an uninterrupted one
would have seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from napari_coseg.core.errors import Cancelled
from napari_coseg.datasets.batches import Batch
from napari_coseg.models.base import CosegModel
from napari_coseg.training.logs import Logs
from napari_coseg.training.memory import checkpointed_blocks, reproducible
from napari_coseg.training.processes import ALONE, Processes
from napari_coseg.training.recipe import Recipe
from napari_coseg.training.saving import STATE_FILE, TrainingState
from napari_coseg.training.schedule import learning_rate, steps_of
from napari_coseg.training.stepping import (
    DivergedError,
    Outcome,
    Stepper,
    make_optimiser,
    make_scaler,
)
from napari_coseg.training.trainable import freeze_statistics, train_only

Draw = Callable[[int], Sequence[Batch]]


@dataclass
class TrainingHooks:
    """What the caller wants to hear, and whether it wants to stop. All are optional.

    progress(fraction, message); should_cancel() -> bool; validate(step, model) is called with the
    moving average when the recipe says so and returns the scores to log. Where several processes
    train, only the first one's are called; all or none of them have a `validate`.
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
    processes: Processes | None = None,
) -> CosegModel:
    """Train `model` in place of its recipe, resuming from `output_dir`; returns the average.

    Parameters
    ----------
    workers
        Processes that draw crops ahead, and make their horizontal and vertical maps.
    processes
        Those that share every batch; `draw` then gives the share of this one.

    Raises
    ------
    Cancelled
        `should_cancel` said so; the state is saved, and the same call goes on from there.
    DivergedError
        More steps in a row than `skip_at_most` had no finite loss; the last state is kept.
    """
    hooks, processes = hooks or TrainingHooks(), processes or ALONE
    steps = steps_of(recipe)
    output_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed + processes.rank)  # dropout is not the same in two processes
    model = _one_normalisation(in_channels_last(model.to(device)), processes, device).train()
    processes.copy_from_first(model)
    parts = train_only(model, recipe.trained_parts)
    optimiser = make_optimiser(parts, recipe.optimiser)
    average = AveragedModel(model, multi_avg_fn=_average_towards(recipe.optimiser.ema_decay))
    averaged = cast(CosegModel, average.module)
    scaler = make_scaler(recipe, device)
    state = TrainingState(model, average, optimiser, scaler, device)
    path = output_dir / STATE_FILE
    start = state.resume(path, processes)
    step_with = Stepper(model, optimiser, scaler, recipe, device, processes)
    watch = _Watch(recipe, path)
    frozen_from = recipe.optimiser.freeze_statistics_from_step
    if frozen_from is not None:
        frozen_from = max(start, frozen_from)

    began = time.monotonic()
    with ExitStack() as within:
        within.enter_context(reproducible(recipe.deterministic))
        within.enter_context(checkpointed_blocks(model, recipe.activation_checkpointing))
        logs = within.enter_context(Logs.open(output_dir, start, recipe.logs, processes))
        validate = _Validation(hooks, recipe, steps, averaged, logs, processes)
        if validate(state, start):  # it was interrupted
            state.save(path, start, processes)
        for step, batches in zip(
            range(start, steps), _feed(draw, start, steps, workers), strict=True
        ):
            rate = learning_rate(step, steps, recipe.optimiser)
            if step == frozen_from:
                freeze_statistics(model)
            outcome = step_with(batches, rate)
            done, last = step + 1, step + 1 == steps
            watch.look(done, outcome)
            if outcome.taken:
                average.update_parameters(model)
            else:
                _restore_statistics(model, averaged)
            logs.write(done, {"learning_rate": rate, **outcome.terms})
            if processes.is_first:
                left = (time.monotonic() - began) / (done - start) * (steps - done)
                hooks.progress(done / steps, _told(done, steps, outcome, left))
            asked = processes.is_first and hooks.should_cancel()
            cancelled = bool(processes.add_up([float(asked)], device)[0])
            due = done % recipe.checkpoint_every_steps == 0 and not watch.skipped
            if due or cancelled or last:
                state.save(path, done, processes)
            if cancelled:
                raise Cancelled(f"training stopped after step {done}; the same command goes on")
            logs.draw(done, batches, averaged, device)
            if validate(state, done) and (last or not watch.skipped):
                state.save(path, done, processes)
    return averaged.eval()


def in_channels_last(model: CosegModel) -> CosegModel:
    """Lay the kernels out as the convolutions of CPUs and tensor cores want them."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model


def _one_normalisation(model: CosegModel, processes: Processes, device: str) -> CosegModel:
    """Let batch normalisation see the whole batch; torch has that for CUDA only.

    Elsewhere each process normalises its own share; the first one's statistics are kept.
    """
    if processes.count == 1 or not device.startswith("cuda"):
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def _told(done: int, steps: int, outcome: Outcome, left_s: float) -> str:
    loss = f"loss {sum(outcome.terms.values()):.3f}"
    skipped = "" if outcome.taken else ", left out"
    return f"step {done} of {steps}, {loss}{skipped}, {left_s / 60:.0f} min left"


@dataclass(frozen=True)
class _Validation:
    """Validates where that is due and has not been done; says whether it was."""

    hooks: TrainingHooks
    recipe: Recipe
    steps: int
    averaged: CosegModel
    logs: Logs
    processes: Processes

    def __call__(self, state: TrainingState, done: int) -> bool:
        when = self.recipe.validation
        due = done % when.every_steps == 0 and done > when.start_step
        is_wanted = due or done == self.steps
        if self.hooks.validate is None or not is_wanted or state.validated_step >= done:
            return False
        if self.processes.is_first:
            self.logs.write(done, self.hooks.validate(done, self.averaged.eval()))
            self.averaged.train()
        state.validated_step = done
        return True


@dataclass
class _Watch:
    """Counts the steps in a row that were left out, and ends the training at too many."""

    recipe: Recipe
    state: Path
    skipped: int = 0

    def look(self, done: int, outcome: Outcome) -> None:
        self.skipped = 0 if outcome.taken else self.skipped + 1
        if self.skipped <= self.recipe.skip_at_most:
            return
        terms = ", ".join(f"{name} {value:.4g}" for name, value in outcome.terms.items())
        kept = f"{self.state} is kept" if self.state.exists() else "no state was saved before"
        raise DivergedError(
            f"step {done} had no finite loss or gradient ({terms}), nor had the "
            f"{self.skipped - 1} steps before it; {kept}, as it was before them. Lower "
            'optimiser.learning_rate, set precision = "fp32", or look for broken labels'
        )


@torch.no_grad()
def _restore_statistics(model: nn.Module, averaged: nn.Module) -> None:
    """Take running statistics from before a step that was left out: it may have spoilt them."""
    for mine, kept in zip(model.buffers(), averaged.buffers(), strict=True):
        mine.copy_(kept)


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


def _as_drawn(batches: Sequence[Batch]) -> Sequence[Batch]:
    """Nothing to collate; a function of its own, since processes that are spawned pickle it."""
    return batches


def _feed(draw: Draw, start: int, stop: int, workers: int) -> Iterator[Sequence[Batch]]:
    loader = DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        collate_fn=_as_drawn,
        generator=torch.Generator(),  # drawing its seed must not move the networks' random state
    )
    return iter(loader)
