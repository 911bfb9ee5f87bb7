"""The training loop: steps, moving average, checkpoints, exact resume.

The loop knows nothing of files of images: `draw(step)` gives a step's batches (this process' share
of them) and depends on nothing but the step, so that a resumed run sees what an uninterrupted one
would have seen. Dropout is seeded by the step, too.
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
from napari_coseg.datasets.batches import Batch, drawn_ahead
from napari_coseg.models.base import CosegModel
from napari_coseg.models.nn.modes import evaluating
from napari_coseg.training.logs import Logs
from napari_coseg.training.memory import OutOfMemory, reproducible
from napari_coseg.training.processes import ALONE, Processes
from napari_coseg.training.saving import TrainingState
from napari_coseg.training.schedule import learning_rate, steps_of
from napari_coseg.training.settings import STATE_FILE, TrainingSettings
from napari_coseg.training.stepping import (
    DivergedError,
    Outcome,
    Stepper,
    checked_often,
    make_optimiser,
)
from napari_coseg.training.trainable import (
    freeze_statistics,
    in_channels_last,
    train_only,
)

Draw = Callable[[int], Sequence[Batch]]
ADVICE = 'Lower the learning rate, set precision = "fp32", or look for broken images or labels'


@dataclass(frozen=True)
class StepReport:
    """One step: its number from 1 on, of how many, and about how many seconds are left."""

    step: int
    steps: int
    outcome: Outcome
    learning_rate: float
    seconds_left: float

    @property
    def loss(self) -> float:
        return sum(self.outcome.terms.values())


@dataclass
class TrainingHooks:
    """What the caller wants to know, and whether it wants to stop. All are optional.

    Where several processes train, only the first one's are called; all or none have a `validate`.

    Parameters
    ----------
    progress
        Called with the part done, 0..1, and one line of text.
    should_cancel
        Asked after every step.
    validate
        Called with the number of steps done and the weights' moving average, when the settings say
        so; returns the scores to log.
    check
        Called several times within a step, where one process trains; may raise `Cancelled`.
    notify
        Called with what a user should know, such as that memory ran out.
    stepped
        Called after each step.
    changed
        Called with the learning rate after each change of the weights; may change them further.
    clock
        Seconds, for the time left; it may stand still in a pause.
    """

    progress: Callable[[float, str], None] = lambda fraction, message: None
    should_cancel: Callable[[], bool] = lambda: False
    validate: Callable[[int, CosegModel], dict[str, float]] | None = None
    check: Callable[[], object] | None = None
    notify: Callable[[str], None] = lambda message: None
    stepped: Callable[[StepReport], None] = lambda report: None
    changed: Callable[[float], None] = lambda rate: None
    clock: Callable[[], float] = time.monotonic


def train(
    model: CosegModel,
    draw: Draw,
    settings: TrainingSettings,
    output_dir: Path,
    hooks: TrainingHooks | None = None,
    device: str = "cpu",
    workers: int = 1,
    processes: Processes | None = None,
    whole_state: bool = True,
) -> CosegModel:
    """Train `model` in place, resuming from `output_dir`; returns the average of its weights.

    Where memory runs out in a single process, blocks are recomputed, then batches divided.

    Parameters
    ----------
    workers
        Processes that draw crops ahead, and make their horizontal and vertical maps; with 0 a
        thread does.
    processes
        Those that share every batch; `draw` then gives the share of this one.
    whole_state
        Whether the saved state holds the frozen weights as well.

    Raises
    ------
    Cancelled
        `should_cancel` or `check` said so; the state is saved, and the same call resumes.
    DivergedError
        More steps in a row than `skip_at_most` had no finite loss, or all of them; the last state
        is kept.
    OutOfMemory
        Where not even one crop fits; the state is saved.
    """
    hooks, processes = hooks or TrainingHooks(), processes or ALONE
    loop = _Loop(model, settings, output_dir, hooks, device, processes, whole_state)
    return loop.run(draw, workers)


class _Loop:
    """One call of `train`."""

    def __init__(
        self,
        model: CosegModel,
        settings: TrainingSettings,
        output_dir: Path,
        hooks: TrainingHooks,
        device: str,
        processes: Processes,
        whole_state: bool,
    ) -> None:
        self.settings, self.hooks, self.device, self.processes = settings, hooks, device, processes
        self.steps, self.output_dir = steps_of(settings), output_dir
        output_dir.mkdir(parents=True, exist_ok=True)
        model = _one_normalisation(in_channels_last(model.to(device)), processes, device).train()
        processes.copy_from_first(model)
        self.model = model
        optimiser = make_optimiser(train_only(model, settings.trained_parts), settings.optimiser)
        check = hooks.check if hooks.check and processes.count == 1 else lambda: None
        self.stepper = Stepper(model, optimiser, settings, device, processes, check)
        decay = settings.optimiser.ema_decay
        self.average = AveragedModel(model, multi_avg_fn=_average_towards(decay)) if decay else None
        self.averaged = model if self.average is None else cast(CosegModel, self.average.module)
        self.state = TrainingState(
            model, self.average, optimiser, self.stepper.scaler, device, whole_state
        )
        self.path = output_dir / STATE_FILE
        self.state.resume(self.path, processes)
        self.skipped_in_a_row = 0
        self.saved_at = time.monotonic()

    def run(self, draw: Draw, workers: int) -> CosegModel:
        settings, start = self.settings, self.state.step
        frozen_from = settings.optimiser.freeze_statistics_from_step
        with ExitStack() as within:
            within.enter_context(reproducible(settings.deterministic))
            within.enter_context(self.stepper)
            if self.hooks.check is not None:
                within.enter_context(checked_often(self.model, self.stepper.check))
            logs = within.enter_context(
                Logs.open(self.output_dir, start, settings.logs, self.processes)
            )
            try:
                self._validate_if_due(logs)  # it was interrupted
                began = self.hooks.clock()
                feed = _feed(draw, start, self.steps, workers)
                for step, batches in zip(range(start, self.steps), feed, strict=True):
                    if frozen_from is not None and step >= frozen_from:
                        freeze_statistics(self.model)
                    self._seed(step)
                    rate = learning_rate(step, self.steps, settings.optimiser)
                    outcome = self._take(batches, rate)
                    passed = self.hooks.clock() - began
                    left = passed / (step + 1 - start) * (self.steps - step - 1)
                    self._after(StepReport(step + 1, self.steps, outcome, rate, left), logs)
                    logs.draw(step + 1, batches, self.averaged, self.device)
                    self._validate_if_due(logs)
            except (Cancelled, OutOfMemory):
                self._save()
                raise
        if self.state.skipped >= self.steps:
            raise DivergedError(
                f"none of the {self.steps} steps had a finite loss and gradient, so nothing was "
                f"trained. {ADVICE}, and start over"
            )
        if self.state.skipped:
            self.hooks.notify(
                f"{self.state.skipped} of {self.steps} steps were left out: no finite loss or "
                "gradient"
            )
        return self.averaged.eval()

    def _seed(self, step: int) -> None:
        """Dropout is a function of the step, and not the same in two processes."""
        torch.manual_seed(
            self.settings.seed * 1_000_003 + step * self.processes.count + self.processes.rank
        )

    def _take(self, batches: Sequence[Batch], rate: float) -> Outcome:
        """One step, with less memory where that runs out."""
        while True:
            try:
                outcome = self.stepper(batches, rate)
                break
            except OutOfMemory:
                if self.processes.count > 1:  # what one process divides, all would have to
                    raise
                change = self.stepper.reduce_memory(batches)
                if change is None:
                    raise
            self.hooks.notify(f"out of memory: {change}")
            self._seed(self.state.step)
        if outcome.taken:
            self.hooks.changed(rate)
            if self.average is not None:
                self.average.update_parameters(self.model)
        return outcome

    def _after(self, report: StepReport, logs: Logs) -> None:
        """Count, log and report a step, and save the state where that is due."""
        state, outcome, done = self.state, report.outcome, report.step
        state.step, state.skipped = done, state.skipped + (not outcome.taken)
        self.skipped_in_a_row = 0 if outcome.taken else self.skipped_in_a_row + 1
        self._stop_if_diverged(outcome)
        values = {"learning_rate": report.learning_rate, "loss": report.loss, **outcome.terms}
        logs.write(done, values)
        if self.processes.is_first:
            skipped = "" if outcome.taken else ", left out"
            self.hooks.progress(
                done / self.steps,
                f"step {done} of {self.steps}, loss {report.loss:.3f}{skipped}, "
                f"{report.seconds_left / 60:.0f} min left",
            )
            self.hooks.stepped(report)
        asked = self.processes.is_first and self.hooks.should_cancel()
        if self.processes.add_up([float(asked)], self.device)[0]:
            raise Cancelled(f"training stopped after step {done}; the same command resumes")
        if self._is_due(done) or done == self.steps:
            self._save()

    def _is_due(self, done: int) -> bool:
        """Whether the state is to be saved; not between steps that were skipped."""
        if self.skipped_in_a_row:
            return False
        if self.settings.checkpoint_every_s is not None:
            return time.monotonic() - self.saved_at > self.settings.checkpoint_every_s
        return done % self.settings.checkpoint_every_steps == 0

    def _save(self) -> None:
        if self.processes.is_first:
            self.state.save(self.path)
        self.saved_at = time.monotonic()

    def _validate_if_due(self, logs: Logs) -> None:
        """Validate where that is due and has not been done; the state is saved before and after."""
        state, when = self.state, self.settings.validation
        due = state.step % when.every_steps == 0 and state.step > when.start_step
        wanted = due or state.step == self.steps
        if self.hooks.validate is None or not wanted or state.validated_step >= state.step:
            return
        if not self.skipped_in_a_row:
            self._save()  # it may take minutes
        if self.processes.is_first:
            self._seed(state.step)
            with evaluating(self.averaged):
                logs.write(state.step, self.hooks.validate(state.step, self.averaged))
        state.validated_step = state.step
        if not self.skipped_in_a_row or state.step == self.steps:
            self._save()

    def _stop_if_diverged(self, outcome: Outcome) -> None:
        if self.skipped_in_a_row <= self.settings.skip_at_most:
            return
        terms = ", ".join(f"{name} {value:.4g}" for name, value in outcome.terms.items())
        kept = f"{self.path} is kept" if self.path.exists() else "no state was saved before"
        raise DivergedError(
            f"step {self.state.step} had no finite loss or gradient ({terms}), nor had the "
            f"{self.skipped_in_a_row - 1} steps before it; {kept}, as it was before them. {ADVICE}"
        )


def _one_normalisation(model: CosegModel, processes: Processes, device: str) -> CosegModel:
    """Let batch normalisation see the whole batch; torch has that for CUDA only.

    Elsewhere each process normalises its own share; the first one's statistics are kept.
    """
    if processes.count == 1 or not device.startswith("cuda"):
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


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
    if not workers:
        yield from drawn_ahead(draw, start, stop)
        return
    yield from DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=3,
        collate_fn=_as_drawn,
        generator=torch.Generator(),  # drawing its seed must not move the networks' random state
    )
