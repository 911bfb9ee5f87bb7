"""From a recipe and a folder of data to a weights file: what ``napari-coseg train`` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_coseg.checkpoints.native import read_card, save
from napari_coseg.datasets.base import Dataset
from napari_coseg.datasets.batches import Batch, CropSampler, CropSource
from napari_coseg.datasets.registry import hold_out, load_split, open_dataset
from napari_coseg.errors import SettingsError
from napari_coseg.models.base import CosegModel
from napari_coseg.models.registry import build
from napari_coseg.training.loop import TrainingHooks, train
from napari_coseg.training.recipe import BatchPart, Recipe, read_recipe

Validate = Callable[[CosegModel, Recipe, Path], dict[str, float]]
"""Scores a model on the recipe's held-out images below a data root, by name; larger is better."""


@dataclass(frozen=True)
class Turn:
    """When a part of the recipe takes part, and with crops of what size."""

    from_step: int
    every_steps: int
    crop_px: int

    def comes(self, step: int) -> bool:
        return step >= self.from_step and step % self.every_steps == 0


@dataclass(frozen=True)
class StepSource:
    """Draws the batches of a step, one for each size of crop; a pure function of the step."""

    samplers: tuple[tuple[Turn, CropSampler], ...]

    def __call__(self, step: int) -> Sequence[Batch]:
        return [sampler.draw(step) for turn, sampler in self.samplers if turn.comes(step)]


def train_recipe(
    recipe: str | Path | Recipe,
    data_root: Path,
    output_dir: Path,
    validate: Validate,
    *,
    device: str = "cpu",
    workers: int = 1,
    progress: Callable[[float, str], None] | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> Path:
    """Train, or go on where `output_dir` left off; returns the path of the chosen weights.

    The weights are those of the moving average that `validate` scored best; the test images are
    never looked at. Usually `validate` is `napari_coseg.evaluation.score_held_out`.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    torch.manual_seed(recipe.seed)
    model = build(recipe.card)
    chosen = output_dir / f"{recipe.name}.safetensors"
    hooks = TrainingHooks(
        progress=progress or (lambda fraction, message: None),
        should_cancel=should_cancel or (lambda: False),
        validate=_KeepBest(recipe, validate, data_root, chosen),
    )
    source = step_source(recipe, data_root)
    train(model, source, recipe, output_dir, hooks, device=device, workers=workers)
    return chosen


def step_source(recipe: Recipe, data_root: Path) -> StepSource:
    """Load what the recipe trains on, without its held-out part, into memory.

    Parts with crops of one size whose turns come together share a batch.
    """
    shared: dict[Turn, list[CropSource]] = {}
    for part in recipe.batches:
        turn = Turn(part.from_step, part.every_steps, part.crop_px)
        source = _crop_source(part, data_root, recipe.held_out)
        shared.setdefault(turn, []).append(source)
    return StepSource(
        tuple(
            (
                turn,
                CropSampler(
                    sources,
                    size_px=turn.crop_px,
                    pixel_size_um=recipe.card.pixel_size_um,
                    seed=recipe.seed * 10_000 + turn.from_step + turn.crop_px,
                    settings=recipe.augmentation,
                ),
            )
            for turn, sources in shared.items()
        )
    )


def validation_names(dataset: Dataset, split: str, held_out: str) -> tuple[str, ...]:
    """The held-out images of a dataset's split."""
    return hold_out(dataset.names(split), load_split(held_out)[dataset.name]).validation


def _crop_source(part: BatchPart, data_root: Path, held_out: str) -> CropSource:
    dataset = open_dataset(part.dataset, data_root)
    names = hold_out(dataset.names(part.split), load_split(held_out)[part.dataset]).train
    return CropSource(dataset.load_all(part.split, names), part.crops, part.object_fraction)


class _KeepBest:
    """Writes the weights whose chosen scores add up to most so far."""

    def __init__(self, recipe: Recipe, validate: Validate, data_root: Path, path: Path) -> None:
        self.recipe, self.validate, self.data_root, self.path = recipe, validate, data_root, path
        self.best = -math.inf
        if path.exists():  # a resumed training must beat what it has chosen before
            self.best = self._worth(read_card(path).scores.get("validation", {}))

    def __call__(self, step: int, model: CosegModel) -> dict[str, float]:
        scores = self.validate(model, self.recipe, self.data_root)
        worth = self._worth(scores)
        if worth > self.best:
            self.best = worth
            told = {"validation": {name: round(value, 4) for name, value in scores.items()}}
            told["validation"]["step"] = step
            card = model.card.model_copy(update={"scores": told})
            save(self.path, model, card, dtype=torch.float16)
        return {f"validation_{name}": value for name, value in scores.items()}

    def _worth(self, scores: dict[str, float]) -> float:
        missing = [name for name in self.recipe.validation.choose_by if name not in scores]
        if missing:
            raise SettingsError(
                f"choose_by names {', '.join(missing)}; validation gives {', '.join(scores)}"
            )
        return sum(scores[name] for name in self.recipe.validation.choose_by)
