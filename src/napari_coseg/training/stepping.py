"""One step of the optimiser: micro batches, mixed precision, and what is done when it overflows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from napari_coseg.core.errors import CosegError, SettingsError
from napari_coseg.datasets.batches import NOT_GIVEN, Batch
from napari_coseg.models.base import CosegModel, GivenMasks
from napari_coseg.training.losses import (
    Shares,
    Targets,
    near_two_objects,
    two_forward_loss,
)
from napari_coseg.training.processes import Processes
from napari_coseg.training.recipe import OptimiserSettings, Recipe
from napari_coseg.training.trainable import decay_groups

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


class DivergedError(CosegError):
    """The loss or its gradient is no number, step after step."""


@dataclass(frozen=True)
class Outcome:
    """What a step did: its weighted loss terms, and whether the weights were changed."""

    terms: dict[str, float]
    taken: bool


@dataclass(frozen=True)
class Stepper:
    """Takes steps with one network, one optimiser and one scaler.

    A step whose gradient is not finite is left out, not learnt: with fp16 that is how the scaler
    finds its factor, otherwise a sign that something is wrong.
    """

    model: CosegModel
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    recipe: Recipe
    device: str
    processes: Processes

    def __call__(self, batches: Sequence[Batch], rate: float) -> Outcome:
        """Learn from the batches of one step, whose losses add up."""
        self.set_rate(rate)
        self.optimiser.zero_grad(set_to_none=True)
        terms: dict[str, float] = {}
        for batch in batches:  # different crop sizes cannot share a tensor: their gradients add up
            for part, shares in self._micro_batches(batch):
                for name, value in self._backward(part, shares).items():
                    terms[name] = terms.get(name, 0.0) + value
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.processes.add_gradients(parameters)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(parameters, self.recipe.optimiser.clip_gradient_norm)
        taken = bool(torch.isfinite(norm)) and all(map(math.isfinite, terms.values()))
        if taken:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        return Outcome(terms, taken)

    def set_rate(self, rate: float) -> None:
        """The learning rate from here on; a part with a factor of its own learns at its share."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]

    def _backward(self, batch: Batch, shares: Shares) -> dict[str, float]:
        images, targets = to_tensors(batch, self.device)
        images = self.model.normalise(images).to(memory_format=torch.channels_last)
        kind, dtype = torch.device(self.device).type, AUTOCAST.get(self.recipe.precision)
        with torch.autocast(kind, dtype, enabled=dtype is not None):
            # Nothing is learnt of a task without labels.
            output = self.model(images, given_masks(batch, self.device), targets.labelled)
        loss, terms = two_forward_loss(
            output, targets, self.recipe.losses, shares, self.processes.add
        )
        self.scaler.scale(loss).backward()
        return terms

    def _micro_batches(self, batch: Batch) -> list[tuple[Batch, Shares]]:
        """The batch in as many parts as the recipe says, or as the smallest share has crops."""
        crops = len(batch.images)
        count = self.recipe.accumulate
        if count == 1:
            return [(batch, Shares())]
        count = min(count, self.processes.least(crops, self.device))
        parts = [cut(batch, slice(first, None, count)) for first in range(count)]
        labels = [_labels(part) for part in parts]
        flat = self.processes.add_up([n for counts in labels for n in counts], self.device)
        kinds = len(Shares._fields)
        counts = [flat[kinds * i : kinds * (i + 1)] for i in range(count)]
        totals = [sum(column) for column in zip(*counts, strict=True)]
        return [
            (part, Shares(*(n / max(total, 1) for n, total in zip(of_part, totals, strict=True))))
            for part, of_part in zip(parts, counts, strict=True)
        ]


def make_optimiser(
    parts: Mapping[str, Sequence[nn.Parameter]], settings: OptimiserSettings
) -> torch.optim.Optimizer:
    """Adam as in the papers, where decay is added to the gradient, or AdamW, where it is not.

    Parameters
    ----------
    parts
        What trains, by the name that `settings.rates` calls it.
    """
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.algorithm]
    if unknown := sorted(settings.rates.keys() - parts.keys()):
        raise SettingsError(
            f"optimiser.rates names {', '.join(unknown)}; what trains is {', '.join(parts)}"
        )
    groups = [
        {**group, "factor": settings.rates.get(name, 1.0)}
        for name, parameters in parts.items()
        for group in decay_groups(parameters, settings.weight_decay)
    ]
    return kind(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2))


def make_scaler(recipe: Recipe, device: str) -> torch.amp.GradScaler:
    """What keeps the small gradients of fp16 from vanishing; does nothing in other precisions."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=recipe.precision == "fp16")


def cut(batch: Batch, crops: slice) -> Batch:
    """Some crops of a batch."""
    arrays = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    parts: dict[str, Any] = {n: None if a is None else a[crops] for n, a in arrays.items()}
    return Batch(**parts)


def given_masks(batch: Batch, device: str) -> GivenMasks | None:
    """The prompts drawn for a batch; None where the first forward prompts the second alone."""
    if batch.prompts is None:
        return None
    masks = torch.as_tensor(batch.prompts).to(device, non_blocking=True)
    shares = masks.float().masked_fill(masks == NOT_GIVEN, float("nan"))
    return GivenMasks(shares[:, :1], shares[:, 1:])


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
        semantic_known=put(batch.semantic_known),
        objects_known=put(batch.instances_known),
        classes_known=put(batch.types_known),
        crowded=near_two_objects(put(batch.instances)),
    )
    return put(batch.images), targets


def _labels(batch: Batch) -> tuple[float, ...]:
    """Crops with regions, with objects, with classes of objects, and all, as `Shares` has them."""
    masks = (batch.semantic_known, batch.instances_known, batch.types_known)
    return (*(float(mask.any(axis=(1, 2)).sum()) for mask in masks), float(len(batch.images)))
