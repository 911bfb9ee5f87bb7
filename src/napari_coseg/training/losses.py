"""Losses of the two forwards (Co-Seg++ sections 3.3 and 3.4, equations 9 to 12).

Every image may be labelled for one task, for both, or for none: a term counts the images that
have its label and the pixels marked valid, and is zero where there are none.

The defaults are the paper's; `AS_RELEASED` holds the weights of the authors' code, which differ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from napari_coseg.models.base import FirstForward, TaskMaps, TwoForwards
from napari_coseg.settings import Settings


class LossSettings(Settings):
    """Weight of each term; 0 leaves it out."""

    first_forward: float = Field(0.5, ge=0, description="lambda of equation 12")
    first_cross_entropy: float = Field(1.0, ge=0, description="equation 10")
    first_dice: float = Field(0.0, ge=0)
    consistency: float = Field(1.0, ge=0, description="equation 9")
    consistency_symmetric: bool = False
    semantic_cross_entropy: float = Field(1.0, ge=0)
    semantic_dice: float = Field(1.0, ge=0)
    object_cross_entropy: float = Field(0.0, ge=0)
    object_focal: float = Field(1.0, ge=0)
    object_dice: float = Field(1.0, ge=0)
    class_cross_entropy: float = Field(0.5, ge=0)
    class_dice: float = Field(0.2, ge=0)
    class_focal: float = Field(0.5, ge=0)
    hv_mse: float = Field(2.5, ge=0, description="as CellViT, which the paper follows")
    hv_msge: float = Field(8.0, ge=0)
    focal_gamma: float = Field(2.0, ge=0)
    gradient_axis: str = Field(
        "right",
        pattern="^(right|as_released)$",
        description="the released code differentiates each HV map along the other's axis",
    )


AS_RELEASED: dict[str, Any] = {
    "first_dice": 1.0,
    "consistency": 10.0,
    "consistency_symmetric": True,
    "semantic_cross_entropy": 0.5,
    "semantic_dice": 0.5,
    "object_cross_entropy": 1.0,
    "object_focal": 0.0,
    "class_cross_entropy": 1.0,
    "class_dice": 1.0,
    "class_focal": 0.0,
    "hv_mse": 8.0,
    "hv_msge": 2.5,
    "gradient_axis": "as_released",
}


class Targets(NamedTuple):
    """Truth for a batch.

    semantic       (B, Y, X) int64 class ids; read where has_semantic
    objects        (B, Y, X) bool
    classes        (B, Y, X) int64 object class ids, 0 outside; read where has_instances
    hv             (B, 2, Y, X) float32
    has_semantic, has_instances   (B,) bool
    valid          (B, Y, X) bool, false where the crop lies beyond the image
    """

    semantic: Tensor
    objects: Tensor
    classes: Tensor
    hv: Tensor
    has_semantic: Tensor
    has_instances: Tensor
    valid: Tensor


def two_forward_loss(
    output: TwoForwards, targets: Targets, settings: LossSettings
) -> tuple[Tensor, dict[str, float]]:
    """Equation 12: the total, and each weighted term by name for the log."""
    terms = {
        **_first_terms(output.first, targets, settings),
        **_semantic_terms(output.second, targets, settings),
        **_instance_terms(output.second, targets, settings),
    }
    total = torch.stack(list(terms.values())).sum()
    return total, {name: float(value.detach()) for name, value in terms.items()}


def _first_terms(
    first: FirstForward, targets: Targets, settings: LossSettings
) -> dict[str, Tensor]:
    size = first.semantic_mask.shape[-2:]
    terms = {}
    for task, logits, truth, known in (
        ("semantic", first.semantic_mask, targets.semantic > 0, targets.has_semantic),
        ("instance", first.instance_mask, targets.objects, targets.has_instances),
    ):
        logits = logits[known, 0].float()
        truth = _area_fraction(truth[known], size)
        weight = _area_fraction(targets.valid[known], size)
        terms[f"first_{task}"] = settings.first_forward * (
            settings.first_cross_entropy * binary_cross_entropy(logits, truth, weight)
            + settings.first_dice * dice_loss(logits.sigmoid(), truth, weight)
        )
    maps = first.semantic_consistency, first.instance_consistency
    if settings.consistency and maps[0] is not None and maps[1] is not None:
        loss = consistency_loss(maps[0], maps[1], settings.consistency_symmetric)
        terms["consistency"] = settings.first_forward * settings.consistency * loss
    return terms


def _semantic_terms(maps: TaskMaps, targets: Targets, settings: LossSettings) -> dict[str, Tensor]:
    known = targets.has_semantic
    logits = maps.semantic[known].float()
    truth, weight = targets.semantic[known], targets.valid[known].float()
    cross_entropy = _mean(F.cross_entropy(logits, truth, reduction="none"), weight)
    return {
        "semantic_cross_entropy": settings.semantic_cross_entropy * cross_entropy,
        "semantic_dice": settings.semantic_dice * _class_dice_loss(logits, truth, weight),
    }


def _instance_terms(maps: TaskMaps, targets: Targets, settings: LossSettings) -> dict[str, Tensor]:
    known = targets.has_instances
    weight = targets.valid[known].float()
    objects = targets.objects[known].float()
    logits = maps.object[known, 0].float()
    per_pixel = F.binary_cross_entropy_with_logits(logits, objects, reduction="none")
    terms = {
        "object_cross_entropy": settings.object_cross_entropy * _mean(per_pixel, weight),
        "object_focal": settings.object_focal
        * _mean(_focal(per_pixel, settings.focal_gamma), weight),
        "object_dice": settings.object_dice * dice_loss(logits.sigmoid(), objects, weight),
    }
    hv, hv_truth = maps.hv[known].float(), targets.hv[known]
    terms["hv_mse"] = settings.hv_mse * _mean((hv - hv_truth).square().mean(dim=1), weight)
    terms["hv_msge"] = settings.hv_msge * gradient_loss(
        hv, hv_truth, objects * weight, settings.gradient_axis
    )
    if maps.classes.shape[1]:
        class_logits, classes = maps.classes[known].float(), targets.classes[known]
        per_pixel = F.cross_entropy(class_logits, classes, reduction="none")
        terms["class_cross_entropy"] = settings.class_cross_entropy * _mean(per_pixel, weight)
        terms["class_focal"] = settings.class_focal * _mean(
            _focal(per_pixel, settings.focal_gamma), weight
        )
        terms["class_dice"] = settings.class_dice * _class_dice_loss(class_logits, classes, weight)
    return terms


def binary_cross_entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean over weighted pixels; truth may be a fraction (B, y, x)."""
    return _mean(F.binary_cross_entropy_with_logits(logits, truth, reduction="none"), weight)


def dice_loss(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """1 - Dice over all pixels of the batch at once, so that empty images do no harm."""
    intersection = (probability * truth * weight).sum()
    total = ((probability + truth) * weight).sum()
    return 1 - (2 * intersection + 1) / (total + 1)


def consistency_loss(semantic: Tensor, instance: Tensor, symmetric: bool) -> Tensor:
    """Equation 9: KL divergence between the two tasks' maps (B, 2, h, w), mean over elements."""
    log_semantic = F.log_softmax(semantic.float(), dim=1)
    log_instance = F.log_softmax(instance.float(), dim=1)
    loss = F.kl_div(log_semantic, log_instance, reduction="none", log_target=True).mean()
    if symmetric:
        back = F.kl_div(log_instance, log_semantic, reduction="none", log_target=True).mean()
        loss = 0.5 * (loss + back)
    return loss


def gradient_loss(hv: Tensor, truth: Tensor, inside: Tensor, axis: str = "right") -> Tensor:
    """Mean squared gradient error inside objects (HoVer-Net, equation 4).

    The horizontal map is differentiated along x and the vertical one along y, by 5x5 kernels
    weighted by inverse distance. ``as_released`` swaps the axes, as the authors' code does.
    """
    offset = torch.arange(-2.0, 3.0, device=hv.device)
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    distance = x.square() + y.square()
    distance[2, 2] = 1
    along_x, along_y = x / distance, y / distance
    kernels = (along_x, along_y) if axis == "right" else (along_y, along_x)
    kernel = torch.stack(kernels).unsqueeze(1)  # (2, 1, 5, 5), one a map
    difference = F.conv2d(hv - truth, kernel, padding=2, groups=2)
    return _mean(difference.square().mean(dim=1), inside)


def _class_dice_loss(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """1 - mean Dice over the foreground classes that the batch holds."""
    probability = logits.softmax(dim=1)[:, 1:]
    one_hot = F.one_hot(truth, logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(logits.dtype)
    weight = weight.unsqueeze(1)
    intersection = (probability * one_hot * weight).sum(dim=(0, 2, 3))
    truth_area = (one_hot * weight).sum(dim=(0, 2, 3))
    total = (probability * weight).sum(dim=(0, 2, 3)) + truth_area
    loss = 1 - (2 * intersection + 1) / (total + 1)
    present = (truth_area > 0).to(loss.dtype)
    return (loss * present).sum() / present.sum().clamp(min=1)


def _focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    return (1 - torch.exp(-cross_entropy)).pow(gamma) * cross_entropy


def _area_fraction(mask: Tensor, size: torch.Size) -> Tensor:
    """(B, Y, X) bool -> (B, y, x), the share of each coarse pixel that is true."""
    if mask.shape[0] == 0:
        return mask.new_zeros((0, *size), dtype=torch.float32)
    return F.adaptive_avg_pool2d(mask.unsqueeze(1).float(), (size[0], size[1]))[:, 0]


def _mean(per_pixel: Tensor, weight: Tensor) -> Tensor:
    return (per_pixel * weight).sum() / weight.sum().clamp(min=1)
