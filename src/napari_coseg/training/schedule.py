"""The number of steps of a training, and its learning rate at each of them."""

from __future__ import annotations

import math

from napari_coseg.core.errors import SettingsError
from napari_coseg.training.recipe import Recipe
from napari_coseg.training.settings import OptimiserSettings, TrainingSettings


def with_steps(recipe: Recipe, steps_per_epoch: int) -> Recipe:
    """The recipe with `epochs` counted out in steps; the same where it has none.

    The learning rate's epochs and `validation.every_epochs` are counted with the same length, also
    where `steps` say how many of them are taken.
    """
    if recipe.epochs is None:
        return recipe
    validation = recipe.validation
    if validation.every_epochs is not None:
        every = validation.every_epochs * steps_per_epoch
        validation = validation.model_copy(update={"every_steps": every})
    return recipe.model_copy(
        update={
            "steps": recipe.steps or recipe.epochs * steps_per_epoch,
            "optimiser": recipe.optimiser.model_copy(update={"steps_per_epoch": steps_per_epoch}),
            "validation": validation,
        }
    )


def steps_of(recipe: TrainingSettings) -> int:
    """The number of steps, which must be known by now."""
    if recipe.steps is None:
        raise SettingsError(
            f"recipe {recipe.name!r} counts in epochs, whose length depends on the data; count "
            "them out with with_steps(recipe, steps_per_epoch) first"
        )
    return recipe.steps


def learning_rate(step: int, steps: int, settings: OptimiserSettings) -> float:
    """Linear warm-up, then cosines to zero, the exponential decay, or nnU-Net's poly rule."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "cosine":
        restart = settings.restart_step or steps
        if step < restart:
            return settings.learning_rate * _cosine(step, settings.warmup_steps, restart)
        rate = settings.learning_rate * settings.restart_rate
        return rate * _cosine(step, restart, steps)
    if settings.schedule == "poly":
        epochs = max(1, math.ceil(steps / settings.steps_per_epoch))
        left = 1 - step // settings.steps_per_epoch / epochs
        return settings.learning_rate * left**settings.power
    return settings.learning_rate * settings.decay ** (step // settings.steps_per_epoch)


def _cosine(step: int, start: int, stop: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, stop - start)))
