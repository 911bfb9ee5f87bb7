"""Runs the training loop for a fine-tuning: its crops, validation, best weights and reports."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from napari_coseg.core.errors import CheckpointError
from napari_coseg.core.files import atomic_write
from napari_coseg.core.types import Prediction
from napari_coseg.datasets.batches import Batch
from napari_coseg.finetuning.features import FeatureCache
from napari_coseg.finetuning.hooks import RunControl
from napari_coseg.finetuning.input_match import AS_IT_IS
from napari_coseg.finetuning.interpolation import take_fraction
from napari_coseg.finetuning.pictures import save_comparison
from napari_coseg.finetuning.plan import RunPlan, write_plan
from napari_coseg.finetuning.planning import smaller_crop
from napari_coseg.finetuning.preparing import Prepared
from napari_coseg.finetuning.request import BEST_FILE
from napari_coseg.finetuning.reviewed import ReviewedImage
from napari_coseg.finetuning.scores import Scores, score, selection_score
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.safe import load_state_dict, read_header
from napari_coseg.training.loop import StepReport, TrainingHooks, train
from napari_coseg.training.memory import OutOfMemory

CACHED_AT, TRAINED_AT = 0.1, 0.95
"""Parts of the progress at which features are cached, and all steps are done."""
PICTURES = "pictures"
PART_TAKEN = "{:.0%} of the change is taken: on the held-out part it scores better than all of it"


class Learning:
    """Trains from where the state stands to the end of the plan.

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
        control: RunControl,
        replayed: tuple[ReviewedImage, ...] = (),
    ) -> None:
        self.prepared, self.plan, self.folder, self.control = prepared, plan, folder, control
        self.replayed = replayed
        self.settings = prepared.settings
        self.best = BestWeights(folder / BEST_FILE)
        self.origin = {name: p.detach().clone() for name, p in prepared.trained.items()}

    @property
    def step(self) -> int:
        """Steps after which the best weights were scored; all where nothing was."""
        return self.best.step or self.plan.steps

    def run(self, cache: FeatureCache) -> None:
        """Take all steps that are left; `plan` then has the crop that fitted the memory.

        Raises
        ------
        Cancelled
            The state is saved.
        DivergedError
            Too many steps in a row had no finite loss, or all of them. The last state is kept.
        SettingsError
            Where the device has not enough memory for the smallest crop.
        """
        while True:
            try:
                self._train(self._crops(cache))
                break
            except OutOfMemory:
                pass
            crop_px, change = smaller_crop(self.prepared, self.plan.crop_px)
            self._note(f"out of memory: {change}", crop_px=crop_px)
            cache.clear()

    def take_best(self) -> float:
        """Give the network the weights that scored best; the last ones where nothing scored.

        Returns
        -------
        float
            How much of their change from the base was taken: what scores best, too.
        """
        if not self.best.step:
            return 1.0
        trained = self.prepared.trained
        self.best.restore(trained)
        if not self.settings.interpolate:
            return 1.0
        fraction = take_fraction(trained, self.origin, self.best.score, self._score_of)
        if fraction < 1:
            self.control.note(PART_TAKEN.format(fraction))
        return fraction

    def _score_of(self, fraction: float) -> float:
        self.control.progress(TRAINED_AT, f"scoring {fraction:.0%} of the change")
        self.prepared.network.eval()
        held_out = self.prepared.divided.held_out
        return selection_score(score(self.prepared.network, held_out, should_cancel=self.control))

    def _train(self, draw: Callable[[int], Sequence[Batch]]) -> None:
        plan, prepared = self.plan, self.prepared
        settings = prepared.training(
            plan.precision, plan.steps, plan.validate_every, plan.activation_checkpointing
        )
        hooks = TrainingHooks(
            should_cancel=self.control,
            validate=self._validate if prepared.divided.held_out else None,
            check=self.control,
            notify=self._note,
            stepped=self._report,
            changed=self._draw_back,
            clock=self.control.clock,
        )
        device = prepared.device
        train(prepared.network, draw, settings, self.folder, hooks, device, 0, whole_state=False)

    def _crops(self, cache: FeatureCache) -> Callable[[int], Sequence[Batch]]:
        """The batches of a step: drawn, or read from the cache with their features."""
        plan, settings = self.plan, self.settings
        crops = self.prepared.crops(plan.crop_px, self.replayed, plan.input != AS_IT_IS)
        if settings.speed == "adapters":
            return lambda step: [crops.draw(step, settings.crops)]

        def on_crop(number: int) -> None:
            self.control()
            part = CACHED_AT * number / max(1, plan.cached_crops)
            self.control.progress(part, f"encoding crop {number} of {plan.cached_crops}")

        cache.fill(
            self.prepared.network,
            lambda number: crops.draw(number, 1),
            plan.cached_crops,
            plan.precision,
            on_crop,
        )
        return lambda step: [cache.draw(step, settings.crops, plan.cached_crops, settings.seed)]

    def _note(self, message: str, **changes: Any) -> None:
        """Tell the user, and keep it in the plan for a run that resumes."""
        self.control.note(message)
        changes["notes"] = tuple(dict.fromkeys((*self.plan.notes, message)))
        self.plan = self.plan.model_copy(update=changes)
        write_plan(self.folder, self.plan)

    @torch.no_grad()
    def _draw_back(self, rate: float) -> None:
        """Move the weights a little towards the base (L2-SP; Li, Grandvalet and Davoine 2018).

        Apart from the gradient, as AdamW's decay is: the optimiser's scaling would undo it.
        """
        part = min(1.0, rate * self.settings.distance_to_base)
        for name, parameter in self.prepared.trained.items() if part else ():
            parameter.lerp_(self.origin[name], part)

    def _report(self, report: StepReport) -> None:
        loss = report.loss if report.outcome.taken else math.nan
        values: dict[str, Any] = {
            "step": report.step,
            "steps": report.steps,
            "loss": None if math.isnan(loss) else round(loss, 5),
            "terms": {name: round(value, 5) for name, value in report.outcome.terms.items()},
            "learning_rate": report.learning_rate,
            "seconds_left": round(report.seconds_left, 1),
        }
        self.control.hooks.report("step", values)
        part = CACHED_AT + (TRAINED_AT - CACHED_AT) * report.step / report.steps
        minutes, seconds = divmod(round(report.seconds_left), 60)
        self.control.progress(
            part,
            f"step {report.step} of {report.steps}, loss {loss:.3f}, {minutes}:{seconds:02d} left",
        )

    def _validate(self, step: int, network: CosegModel) -> dict[str, float]:
        """Score the held-out part, draw the first of its images, keep the best weights."""
        path = self.folder / PICTURES / f"step-{step:06d}.png"
        drawn: list[ReviewedImage] = []

        def look(image: ReviewedImage, found: Prediction) -> None:
            if not drawn:
                save_comparison(path, image, found)
                drawn.append(image)

        held_out = self.prepared.divided.held_out
        scores = score(network, held_out, should_cancel=self.control, look=look)
        self.control.hooks.report("scores", {"when": "validation", "step": step, "scores": scores})
        self.control.hooks.report("picture", {"path": str(path), "step": step})
        self.best.keep_if_best(step, scores, self.prepared.trained)
        numbers = {name: value for name, value in scores.items() if isinstance(value, float)}
        return {f"validation_{name}": value for name, value in numbers.items()}


class BestWeights:
    """The trained weights with the highest score so far, in a file of the run folder.

    Attributes
    ----------
    step
        After which they were scored; 0 before any were.
    score
        `selection_score`; of equal ones the latest are kept.
    """

    KEY = "napari_coseg_best"

    def __init__(self, path: Path) -> None:
        self.path, self.step, self.score = path, 0, -1.0
        if path.exists():
            try:
                values = json.loads(read_header(path).metadata[self.KEY])
                self.step, self.score = int(values["step"]), float(values["score"])
            except (KeyError, ValueError, TypeError) as error:
                raise _broken(path, error) from error

    def keep_if_best(
        self, step: int, scores: Scores, trained: dict[str, torch.nn.Parameter]
    ) -> None:
        """Nothing where there are no scores: without truth there are no weights to prefer."""
        found = selection_score(scores)
        if not scores or found < self.score:
            return
        self.step, self.score = step, found
        weights = {name: p.detach().cpu().contiguous() for name, p in trained.items()}
        values = {self.KEY: json.dumps({"step": step, "score": found})}
        with atomic_write(self.path, overwrite=True, failures=(SafetensorError,)) as partial:
            save_file(weights, partial, metadata=values)

    @torch.no_grad()
    def restore(self, trained: dict[str, torch.nn.Parameter]) -> None:
        """Give the parameters these weights.

        Raises
        ------
        CheckpointError
            Where the file is broken or of other parts.
        """
        try:
            weights = load_state_dict(self.path)
            for name, parameter in trained.items():
                parameter.copy_(weights[name])
        except (KeyError, RuntimeError) as error:
            raise _broken(self.path, error) from error


def _broken(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not of this fine-tuning ({error}); start it over")
