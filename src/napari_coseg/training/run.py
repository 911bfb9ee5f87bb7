"""Trains a recipe on a folder of data: what ``napari-coseg train`` does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from napari_coseg.core.errors import DatasetError, SettingsError
from napari_coseg.datasets.base import Dataset, Sample
from napari_coseg.datasets.batches import Batch, CropSampler, CropSource
from napari_coseg.datasets.derived import class_id_of, with_derived_region
from napari_coseg.datasets.held_out import Split, hold_out, load_split
from napari_coseg.datasets.kept import KeptSamples
from napari_coseg.datasets.partition import (
    Partition,
    Partitioned,
    draw_partition_of,
    load_partition,
    names_parts,
    save_partition,
)
from napari_coseg.datasets.registry import SUBFOLDERS, open_dataset
from napari_coseg.datasets.stain import with_white_point
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.native import read_card, save
from napari_coseg.models.registry import build_two_task
from napari_coseg.training.classes import ClassMap
from napari_coseg.training.loop import TrainingHooks, train
from napari_coseg.training.processes import ALONE, Processes
from napari_coseg.training.prompting import NO_PROMPTS, PromptSettings, draw_prompts
from napari_coseg.training.recipe import BatchPart, Recipe, read_recipe
from napari_coseg.training.schedule import with_steps
from napari_coseg.training.settings import STATE_FILE

Value = TypeVar("Value")
DRAWN = "7:1:2"
"""`held_out` of a recipe whose images are drawn in three parts by its seed, as in the papers."""
DRAWN_FILE = "split.json"
OWN = "own"
"""`held_out` of a recipe whose datasets come in the splits train, validation and test."""
Validate = Callable[[CosegModel, Recipe, Path], dict[str, float]]
"""Scores a model on the recipe's held-out images below a data root, by name; larger is better."""


@dataclass(frozen=True)
class Turn:
    """When a part of the recipe takes part, and with crops of what size."""

    from_step: int
    to_step: int | None
    every_steps: int
    crop_px: int

    def comes(self, step: int) -> bool:
        started = step >= self.from_step
        over = self.to_step is not None and step >= self.to_step
        return started and not over and step % self.every_steps == 0


@dataclass(frozen=True)
class StepSource:
    """Draws the batches of a step, one for each size of crop; a pure function of the step.

    Where several processes share the batches, it draws the share of one of them.
    """

    samplers: tuple[tuple[Turn, CropSampler], ...]
    processes: Processes = ALONE
    prompts: PromptSettings = NO_PROMPTS
    seed: int = 0

    def __call__(self, step: int) -> Sequence[Batch]:
        rank, of = self.processes.rank, self.processes.count
        batches = [
            (number, sampler.draw(step, rank, of))
            for number, (turn, sampler) in enumerate(self.samplers)
            if turn.comes(step)
        ]
        return [
            draw_prompts(batch, self.prompts, (self.seed, step, number), first=rank, every=of)
            for number, batch in batches
        ]

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every part has shown as many crops as it has images, on average."""
        return max(
            math.ceil(len(source.samples) * turn.every_steps / source.share)
            for turn, sampler in self.samplers
            for source in sampler.sources
        )


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
    processes: Processes | None = None,
    start: Callable[[CosegModel], None] | None = None,
) -> Path:
    """Train, or resume from `output_dir`; returns the path of the chosen weights.

    The weights are those of the moving average that `validate` scored best; the test images are
    never looked at. Usually `validate` is `napari_coseg.evaluation.run.score_held_out`.

    Parameters
    ----------
    processes
        Those that share every batch (`processes.joined`); each calls this function, and the first
        one validates, writes and reports.
    start
        Gives a fresh network its first weights, as `models.checkpoints.starting.initialise`
        does. Not called where a training resumes.
    """
    processes = processes or ALONE
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    source = step_source(recipe, data_root, processes)
    recipe = with_steps(recipe, source.steps_per_epoch)
    torch.manual_seed(recipe.seed)
    model = build_two_task(recipe.card)
    _check_crops(recipe.batches, model.size_multiple)
    _check_held_out(recipe, data_root)
    if start is not None and not (output_dir / STATE_FILE).exists():
        start(model)
    if processes.is_first:
        _keep_drawn(recipe, data_root, output_dir)
    chosen = output_dir / f"{recipe.name}.safetensors"
    hooks = TrainingHooks(
        progress=progress or (lambda fraction, message: None),
        should_cancel=should_cancel or (lambda: False),
        validate=_KeepBest(recipe, validate, data_root, chosen),
        notify=lambda message: warnings.warn(message, stacklevel=2),
    )
    train(model, source, recipe, output_dir, hooks, device, workers, processes)
    return chosen


def step_source(recipe: Recipe, data_root: Path, processes: Processes | None = None) -> StepSource:
    """What the recipe trains on, without its held-out part; in memory as far as it fits.

    Parts with crops of one size whose turns come together share a batch.
    """
    shared: dict[Turn, list[CropSource]] = {}
    for part in recipe.batches:
        turn = Turn(part.from_step, part.to_step, part.every_steps, part.crop_px)
        source = _crop_source(part, data_root, recipe)
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
        ),
        processes or ALONE,
        recipe.prompts,
        recipe.seed,
    )


def open_part(name: str, data_root: Path, recipe: Recipe) -> Dataset:
    """A dataset of a recipe; in "train", "validation" and "test" where the recipe says so.

    It may draw them, or name a file of them: then the folders that images lie in do not count.
    """
    if recipe.held_out == DRAWN:
        return _draw(name, data_root, recipe.seed)
    if recipe.held_out == OWN:
        return _in_own_parts(name, data_root)
    parts = None
    if names_parts(recipe.held_out):
        parts = _of(name, load_partition(recipe.held_out))
    return open_dataset(name, data_root) if parts is None else _in_parts(name, data_root, parts)


@lru_cache(maxsize=8)
def _in_parts(name: str, data_root: Path, parts: Partition) -> Partitioned:
    """Kept as those that are drawn; what is there decides which images of the parts are."""
    dataset = open_dataset(name, data_root)
    there = (image for split in dataset.splits for image in dataset.names(split))
    return Partitioned.of(dataset, parts.within(there))


@lru_cache(maxsize=8)
def _in_own_parts(name: str, data_root: Path) -> Partitioned:
    """By the dataset's own splits; test images need not be there to train."""
    dataset = open_dataset(name, data_root)
    if not {"train", "validation"} <= set(dataset.splits):
        raise DatasetError(
            f"dataset {name!r} has the splits {', '.join(dataset.splits)}; held_out = {OWN!r} "
            f"needs train and validation: let the recipe draw them ({DRAWN!r}), or name a file"
        )
    test: tuple[str, ...] = ()
    if "test" in dataset.splits:
        with suppress(DatasetError):
            test = dataset.names("test")
    parts = Partition(dataset.names("train"), dataset.names("validation"), test)
    return Partitioned.of(dataset, parts)


@lru_cache(maxsize=8)
def _draw(name: str, data_root: Path, seed: int) -> Partitioned:
    """Kept, for it is asked at every validation, and names of slices cost reading the volumes."""
    dataset = open_dataset(name, data_root)
    return Partitioned.of(dataset, draw_partition_of(dataset, seed))


def validation_names(dataset: Dataset, split: str, held_out: str) -> tuple[str, ...]:
    """The images of a dataset's split to choose weights by."""
    return _divided(dataset, split, held_out).validation


def images_to_report_on(dataset: Dataset, split: str) -> tuple[str, tuple[str, ...]]:
    """The split that a dataset's test images lie in, and their names.

    Raises
    ------
    DatasetError
        Where it has none beside those that train or choose weights.
    """
    if isinstance(dataset, Partitioned):
        where, names = "test", dataset.names("test")
    else:
        where = dataset.split_to_score
        names = dataset.names(where) if where != split and "test" in where else ()
    if not names:
        raise DatasetError(
            f"{dataset.name!r} has no test images beside those of {split!r} that train "
            "or chosen by; score on the held-out ones, or give the recipe a split in three"
        )
    return where, names


def _check_crops(parts: Sequence[BatchPart], multiple: int) -> None:
    wrong = [part for part in parts if part.crop_px % multiple]
    if wrong:
        size, name = wrong[0].crop_px, wrong[0].dataset
        below = max(1, size // multiple) * multiple
        raise SettingsError(
            f"crop_px {size} of {name!r} is no multiple of {multiple}, as this network needs; take "
            f"{below} or {below + multiple}"
        )


def _check_held_out(recipe: Recipe, data_root: Path) -> None:
    """See to it before the first step, not at the first validation, that there are such images."""
    for name, split in dict.fromkeys((part.dataset, part.split) for part in recipe.batches):
        dataset = open_part(name, data_root, recipe)
        if not validation_names(dataset, split, recipe.held_out):
            raise DatasetError(
                f"split {recipe.held_out!r} holds no image of {dataset.name!r} out to choose "
                "weights by; name some as validation"
            )


def _keep_drawn(recipe: Recipe, data_root: Path, output_dir: Path) -> None:
    """Save the split that was drawn, for an evaluation of the test images."""
    if recipe.held_out == DRAWN:
        names = dict.fromkeys(part.dataset for part in recipe.batches)
        drawn = {name: _draw(name, data_root, recipe.seed).parts for name in names}
        output_dir.mkdir(parents=True, exist_ok=True)
        save_partition(output_dir / DRAWN_FILE, drawn, f"drawn {DRAWN} with seed {recipe.seed}")


def _crop_source(part: BatchPart, data_root: Path, recipe: Recipe) -> CropSource:
    dataset = open_part(part.dataset, data_root, recipe)
    to_card = ClassMap.between(dataset, recipe.card)
    names = _divided(dataset, part.split, recipe.held_out).train
    if not names:
        raise DatasetError(
            f"split {recipe.held_out!r} leaves no image of {part.split!r} of {dataset.name!r} to "
            "train on"
        )
    names = some_of(names, recipe.training_fraction, recipe.seed)
    kind = None
    if part.derived_region_of is not None:
        kind = class_id_of(part.derived_region_of, recipe.card.instance_label_classes)
    split = "train" if isinstance(dataset, Partitioned) else part.split
    reader = _Reader(dataset, split, to_card, kind, recipe.card.normalisation.white_point)
    hint = (
        f"Volumes are read fast enough once `napari-coseg datasets prepare {part.dataset}` has "
        "unpacked them"
    )
    samples = KeptSamples(reader, names, recipe.keep_in_memory_gib, hint)
    return CropSource(samples, part.crops, part.object_fraction, part.mosaic)


@dataclass(frozen=True)
class _Reader:
    """Gives a sample by its name, with the card's classes and the region derived, if any."""

    dataset: Dataset
    split: str
    to_card: ClassMap
    derived_of: int | None
    white_point: bool

    def __call__(self, name: str) -> Sample:
        sample = self.to_card(self.dataset.load(self.split, name))
        if self.white_point:
            sample = with_white_point(sample)
        return sample if self.derived_of is None else with_derived_region(sample, self.derived_of)


def some_of(names: Sequence[str], fraction: float, seed: int) -> tuple[str, ...]:
    """A part of the names, at least one, in their order; of one seed each part holds the smaller.

    >>> some_of(["a", "b", "c", "d"], 1.0, seed=0)
    ('a', 'b', 'c', 'd')
    """
    count = max(1, round(fraction * len(names)))
    drawn = np.random.default_rng(seed).permutation(len(names))[:count]
    return tuple(names[i] for i in sorted(drawn))


def _divided(dataset: Dataset, split: str, held_out: str) -> Split:
    """Images to train on and to choose weights by; a partition's test images are in neither."""
    if isinstance(dataset, Partitioned):
        return Split(train=dataset.names("train"), validation=dataset.names("validation"))
    known = load_split(held_out)
    held = _of(dataset.name, known)
    if held is None:
        raise DatasetError(
            f"split {held_out!r} does not name dataset {dataset.name!r}, only "
            f"{', '.join(known)}; name the images to choose weights by in a file of the form "
            f'{{"validation": {{"{dataset.name}": [names]}}}} and give its path as held_out'
        )
    return hold_out(dataset.names(split), held)


def _of(name: str, known: Mapping[str, Value]) -> Value | None:
    """What is said of a dataset, or of the one that it is another reading of."""
    return known.get(name, known.get(SUBFOLDERS.get(name, "")))


class _KeepBest:
    """Writes the weights whose chosen scores add up to most so far."""

    def __init__(self, recipe: Recipe, validate: Validate, data_root: Path, path: Path) -> None:
        self.recipe, self.validate, self.data_root, self.path = recipe, validate, data_root, path
        self.best = -math.inf
        if path.exists():  # a resumed training must beat what it has chosen before
            self.best = self._selection_score(read_card(path).scores.get("validation", {}))

    def __call__(self, step: int, model: CosegModel) -> dict[str, float]:
        scores = self.validate(model, self.recipe, self.data_root)
        found = self._selection_score(scores)
        if found > self.best:
            self.best = found
            # In full: a resumed training must not take a hardly worse score for a better one.
            kept = {"validation": {**scores, "step": float(step)}}
            card = model.card.model_copy(update={"scores": kept})
            save(self.path, model, card, dtype=torch.float16)
        return {f"validation_{name}": value for name, value in scores.items()}

    def _selection_score(self, scores: dict[str, float]) -> float:
        """The sum of the named scores that there are: images may be labelled for one task only."""
        named = [scores[name] for name in self.recipe.validation.choose_by if name in scores]
        if scores and not named:
            raise SettingsError(
                f"choose_by names {', '.join(self.recipe.validation.choose_by)}; the held-out "
                f"images give {', '.join(scores)}"
            )
        return sum(named) if named else -math.inf
