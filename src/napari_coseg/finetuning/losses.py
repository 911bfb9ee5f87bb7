"""The loss of reviewed crops: each task where it was reviewed, classes where they are known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_coseg.finetuning.crops import ReviewedBatch
from napari_coseg.models.base import TwoForwards
from napari_coseg.training.loss_settings import LossSettings
from napari_coseg.training.losses import Shares, Targets, two_forward_loss

_REGIONS = ("first_semantic", "semantic_cross_entropy", "semantic_dice")
_CLASSES = ("class_cross_entropy", "class_dice", "class_focal")
_OBJECTS = (
    *("first_instance", "object_cross_entropy", "object_focal", "object_dice"),
    *("hv_mse", "hv_msge"),
)


class Truth(NamedTuple):
    """Labels of a batch as tensors, and where each task's are known, bool (B, Y, X)."""

    targets: Targets
    semantic: Tensor
    objects: Tensor
    types: Tensor

    @classmethod
    def of(cls, batch: ReviewedBatch, device: torch.device) -> Truth:
        def put(array: object) -> Tensor:
            return torch.as_tensor(array).to(device, non_blocking=True)

        objects = put(batch.instances) > 0
        nowhere = torch.zeros(len(objects), dtype=torch.bool, device=device)
        targets = Targets(
            semantic=put(batch.semantic).long(),
            objects=objects,
            classes=put(batch.types).long() * objects,
            hv=put(batch.hv).float(),
            has_semantic=nowhere,
            has_instances=nowhere,
            valid=torch.zeros_like(objects),
        )
        known = (batch.semantic_known, batch.objects_known, batch.types_known)
        return cls(targets, *map(put, known))


def reviewed_loss(
    output: TwoForwards, truth: Truth, settings: LossSettings, share: float = 1.0
) -> tuple[Tensor, dict[str, float]]:
    """The sum of the terms whose labels are there, and each weighted term by name.

    Parameters
    ----------
    share
        How much a micro batch counts in its step.
    """
    total = output.second.object.float().sum() * 0
    terms: dict[str, float] = {}
    for names, known, task in (
        (_REGIONS, truth.semantic, "has_semantic"),
        (_OBJECTS, truth.objects, "has_instances"),
        (_CLASSES, truth.types, "has_instances"),
    ):
        labelled = known.flatten(1).any(1)
        if not bool(labelled.any()):
            continue
        targets = truth.targets._replace(**{task: labelled, "valid": known})
        only = _only(settings, names)
        seen = _hidden_beyond(output, targets) if names is _OBJECTS else output
        loss, found = two_forward_loss(seen, targets, only, Shares(share, share, share))
        total = total + loss
        terms |= {name: value for name, value in found.items() if name in names}
    if settings.consistency and output.first.semantic_consistency is not None:
        loss, found = two_forward_loss(
            output, truth.targets, _only(settings, ("consistency",)), Shares(share, share, share)
        )
        total = total + loss
        terms["consistency"] = found["consistency"]
    return total, terms


def _hidden_beyond(output: TwoForwards, targets: Targets) -> TwoForwards:
    """Distance maps are right beyond what is known: their gradients look two pixels further."""
    hv = torch.where(targets.valid.unsqueeze(1), output.second.hv.float(), targets.hv)
    return output._replace(second=output.second._replace(hv=hv))


def _only(settings: LossSettings, names: tuple[str, ...]) -> LossSettings:
    others = {*_REGIONS, *_OBJECTS, *_CLASSES, "consistency"} - set(names)
    return settings.model_copy(update=dict.fromkeys(others, 0.0))
