"""The steps of a fine-tuning: learn, score, keep the best, save the state, make do with memory."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from napari_coseg.core.errors import Cancelled
from napari_coseg.core.types import Prediction
from napari_coseg.core.words import counted
from napari_coseg.finetuning.features import FeatureCache
from napari_coseg.finetuning.feeding import Drawing, Take, drawn_ahead, fill, from_cache
from napari_coseg.finetuning.hooks import Gate
from napari_coseg.finetuning.input_match import AS_IT_IS
from napari_coseg.finetuning.interpolation import take_fraction
from napari_coseg.finetuning.network import set_training
from napari_coseg.finetuning.pictures import save_comparison
from napari_coseg.finetuning.plan import RunPlan, write_plan
from napari_coseg.finetuning.planning import TWICE, smaller_crop, tuner_of
from napari_coseg.finetuning.preparing import Prepared
from napari_coseg.finetuning.request import STATE_FILE
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.finetuning.scores import Scores, score, worth
from napari_coseg.finetuning.state import resume_state, save_state
from napari_coseg.finetuning.stepping import DTYPES, OutOfMemory
from napari_coseg.training.logs import LOG_FILE, CsvLog
from napari_coseg.training.recipe import OptimiserSettings
from napari_coseg.training.schedule import learning_rate
from napari_coseg.training.stepping import DivergedError

WHAT_TO_DO = "Lower learning_rate, set precision to fp32, or look for broken images"
SKIP_AT_MOST = 20
"""Steps in a row without a finite loss, before the training stops."""
CACHED_AT, LEARNT_AT = 0.1, 0.95
"""Parts of the way at which features are kept, and all steps are done."""
PICTURES = "pictures"
PART_OF_THE_WAY = (
    "{:.0%} of the change is taken: on what is held back it scores better than all of it"
)


class Learning:
    """Steps from where the state stands to the end of the plan.

    Parameters
    ----------
    replayed
        Images of the base's own domain; none to leave them out.
    """

    def __init__(
        self,
        prepared: Prepared,
        plan: RunPlan,
        folder: Path,
        gate: Gate,
        replayed: tuple[ReviewedImage, ...] = (),
    ) -> None:
        self.prepared, self.plan, self.folder, self.gate = prepared, plan, folder, gate
        self.replayed = replayed
        self.settings = prepared.settings
        self.tuner = tuner_of(prepared, gate, plan.precision)
        self.tuner.micro = min(plan.micro, self.settings.crops)
        self.progress = resume_state(folder / STATE_FILE, self.tuner)
        warmup = min(20, plan.steps // 10)
        self.schedule = OptimiserSettings(
            learning_rate=self.settings.rate(), schedule="cosine", warmup_steps=warmup
        )
        self.skipped = 0
        """In a row."""
        self.saved_at = time.monotonic()

    def run(self, cache: FeatureCache) -> RunPlan:
        """All steps that are left; returns the plan, with what memory made of it.

        Raises
        ------
        Cancelled
            The state is saved.
        DivergedError
            Too many steps in a row had no finite loss, or all of them. The last state is kept.
        SettingsError
            Where the device has not enough memory for the smallest crop.
        """
        if self.plan.activation_checkpointing and self.settings.speed == "adapters":
            self.tuner.checkpoint_activations()
        self.tuner.ask_often()
        try:
            while not self._is_done():
                try:
                    self._steps(cache)
                except OutOfMemory:
                    self._make_do(cache)
            self._tell_left_out()
        except (Cancelled, DivergedError):
            self._save()
            raise
        finally:
            self.tuner.close()
        self._save()
        return self.plan

    def _is_done(self) -> bool:
        """All steps taken, and the last one scored where anything is held back."""
        taken = self.progress.step >= self.plan.steps
        return taken and (not self._is_due(self.plan.steps))

    def _is_due(self, step: int) -> bool:
        """Whether the held-back regions are still to be scored after this step."""
        if not self.prepared.divided.held_back or self.progress.scored_step >= step:
            return False
        return step >= self.plan.steps or step % self.plan.validate_every == 0

    def take_best(self) -> float:
        """Give the network the weights that scored best; the last ones where nothing scored.

        Returns
        -------
        float
            How much of their change from the base's was taken: what scores best, too.
        """
        if not self.progress.best:
            return 1.0
        with torch.no_grad():
            for name, parameter in self.tuner.trained.items():
                parameter.copy_(self.progress.best[name])
        if not self.settings.interpolate:
            return 1.0
        trained, origin = self.tuner.trained, self.tuner.origin
        fraction = take_fraction(trained, origin, self.progress.best_worth, self._worth_of)
        if fraction < 1:
            self.gate.tell(PART_OF_THE_WAY.format(fraction))
        return fraction

    def _worth_of(self, fraction: float) -> float:
        self.gate.progress(LEARNT_AT, f"scoring {fraction:.0%} of the change")
        self.prepared.network.eval()
        held_back = self.prepared.divided.held_back
        return worth(score(self.prepared.network, held_back, should_cancel=self.gate))

    def _steps(self, cache: FeatureCache) -> None:
        with ExitStack() as within:
            take = self._take(cache, within)
            log = CsvLog(self.folder / LOG_FILE, self.progress.step)
            within.callback(log.close)
            set_training(self.prepared.network)
            self._score_if_due(self.progress.step, log)  # a run may have been stopped before that
            began, first = self.gate.clock(), self.progress.step
            for step in range(first, self.plan.steps):
                torch.manual_seed(self.settings.seed * 1_000_003 + step)  # dropout
                rate = learning_rate(step, self.plan.steps, self.schedule)
                terms = self.tuner.learn(take(step), rate)
                self.progress.step = step + 1
                self._watch(terms)
                passed = self.gate.clock() - began
                left = passed / (step + 1 - first) * (self.plan.steps - step - 1)
                self._tell(step + 1, terms or {}, rate, left, log)
                self._score_if_due(step + 1, log)
                if time.monotonic() - self.saved_at > self.settings.checkpoint_every_s:
                    self._save()

    def _take(self, cache: FeatureCache, within: ExitStack) -> Take:
        """Where the steps' crops come from."""
        prepared, plan, seed = self.prepared, self.plan, self.settings.seed
        changed = plan.input != AS_IT_IS
        own = prepared.crops(prepared.divided.to_learn, plan.crop_px, seed, changed)
        again = prepared.crops(self.replayed, plan.crop_px, seed + 1) if self.replayed else None
        drawing = Drawing(own, again, self.settings.replay_fraction)
        crops = self.settings.crops
        if self.settings.speed == "adapters":
            return within.enter_context(drawn_ahead(drawing, crops, self.progress.step, plan.steps))

        def told(number: int) -> None:
            self.gate()
            part = CACHED_AT * number / max(1, plan.cached_crops)
            self.gate.progress(part, f"encoding crop {number} of {plan.cached_crops}")

        device = self.tuner.device
        dtype = DTYPES[plan.precision]
        fill(cache, prepared.network, drawing, plan.cached_crops, dtype, told)
        return from_cache(cache, plan.cached_crops, crops, seed, device)

    def _watch(self, terms: dict[str, float] | None) -> None:
        """End the training where steps in a row cannot be taken."""
        self.skipped = 0 if terms is not None else self.skipped + 1
        self.progress.left_out += terms is None
        if self.skipped <= SKIP_AT_MOST:
            return
        raise DivergedError(
            f"step {self.progress.step} had no finite loss or gradient, nor had the "
            f"{self.skipped - 1} steps before it; the last state is kept, and so are the reviews. "
            + WHAT_TO_DO
        )

    def _tell_left_out(self) -> None:
        """Of steps that changed nothing; where all are such, there is nothing to write."""
        left_out, steps = self.progress.left_out, self.plan.steps
        if left_out >= steps:
            raise DivergedError(
                f"none of the {steps} steps had a finite loss and gradient, so nothing was learnt; "
                f"the reviews are kept. {WHAT_TO_DO}, and begin anew"
            )
        if left_out:
            self.gate.tell(f"{left_out} of {steps} steps were left out: no finite loss or gradient")

    def _tell(
        self, step: int, terms: dict[str, float], rate: float, left_s: float, log: CsvLog
    ) -> None:
        loss = sum(terms.values()) if terms else math.nan
        log.write(step, {"learning_rate": rate, "loss": loss, **terms})
        values: dict[str, Any] = {
            "step": step,
            "steps": self.plan.steps,
            "loss": None if math.isnan(loss) else round(loss, 5),
            "terms": {name: round(value, 5) for name, value in terms.items()},
            "learning_rate": rate,
            "seconds_left": round(left_s, 1),
        }
        self.gate.hooks.report("step", values)
        part = CACHED_AT + (LEARNT_AT - CACHED_AT) * step / self.plan.steps
        minutes, seconds = divmod(round(left_s), 60)
        self.gate.progress(
            part, f"step {step} of {self.plan.steps}, loss {loss:.3f}, {minutes}:{seconds:02d} left"
        )

    def _score_if_due(self, step: int, log: CsvLog) -> None:
        if not self._is_due(step):
            return
        self._save()  # scoring may take minutes
        network = self.prepared.network
        path = self.folder / PICTURES / f"step-{step:06d}.png"
        drawn: list[Path] = []

        def look(image: ReviewedImage, found: Prediction) -> None:
            if not drawn:
                save_comparison(path, image, found)
                drawn.append(path)

        network.eval()
        try:
            scores = score(
                network, self.prepared.divided.held_back, should_cancel=self.gate, look=look
            )
        finally:
            set_training(network)
        self._keep_if_best(step, scores, log)
        self.progress.scored_step = step
        self.gate.hooks.report("picture", {"path": str(path), "step": step})

    def _keep_if_best(self, step: int, scores: Scores, log: CsvLog) -> None:
        self.gate.hooks.report("scores", {"when": "validation", "step": step, "scores": scores})
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        log.write(step, {f"validation_{name}": value for name, value in numbers.items()})
        # Without truth there are no scores, and no weights to prefer. Of equal ones the latest.
        if scores and worth(scores) >= self.progress.best_worth:
            self.progress.best_worth, self.progress.best_step = worth(scores), step
            self.progress.best = {
                name: p.detach().cpu().clone() for name, p in self.tuner.trained.items()
            }

    def _make_do(self, cache: FeatureCache) -> None:
        """Less memory: blocks computed twice, then smaller micro batches, then smaller crops."""
        tuner, plan = self.tuner, self.plan
        through = self.settings.speed == "adapters"
        update: dict[str, Any]
        allowed = self.settings.activation_checkpointing is not False
        if through and allowed and not tuner.is_checkpointing:
            tuner.checkpoint_activations()
            change, update = TWICE, {"activation_checkpointing": True}
        elif tuner.micro > 1:
            before, tuner.micro = tuner.micro, tuner.micro // 2
            crops = counted(tuner.micro, "crop")
            change, update = f"{crops} at once in place of {before}", {"micro": tuner.micro}
        else:
            smaller = smaller_crop(self.prepared, plan.crop_px)
            change = f"crops of {plan.crop_px} -> {smaller} pixels"
            update = {"crop_px": smaller}
            cache.clear()
            cache.folder.mkdir(parents=True, exist_ok=True)
        told = f"out of memory: {change}"
        self.gate.tell(told)
        self.plan = plan.model_copy(update={**update, "notes": (*plan.notes, told)})
        write_plan(self.folder, self.plan)

    def _save(self) -> None:
        save_state(self.folder / STATE_FILE, self.tuner, self.progress)
        self.saved_at = time.monotonic()
