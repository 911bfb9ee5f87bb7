"""Losses of the two forwards (Co-Seg++ equations 9 to 12, Co-Seg equation 8).

Every pixel may be labelled for one task, for both, or for none: a term counts the pixels whose
label of its kind is known, and is zero where there are none. The weights of the papers and of the
authors' code are in `loss_settings`.

Each term is a quotient of sums over a batch, Dice too. Where several processes share a batch, these
sums run over all of them (`Sum`): every process computes the loss of the whole batch, and the
gradients of all processes, each by its own part, add up to the gradient of one process alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_coseg.models.base import FirstForward, Task, TaskMaps, TwoForwards
from napari_coseg.training.loss_settings import LossSettings

CROWDED_REACH_PX = 3
Sum = Callable[[Tensor], Tensor]
"""Adds a tensor over the processes that share a batch; its gradient is that of one's own part."""


def alone(local: Tensor) -> Tensor:
    """The `Sum` of a process that has the batch to itself."""
    return local


class Targets(NamedTuple):
    """Truth for a batch.

    semantic       (B, Y, X) int64 class ids
    objects        (B, Y, X) bool
    classes        (B, Y, X) int64 object class ids, 0 outside
    hv             (B, 2, Y, X) float32
    semantic_known, objects_known, classes_known
                   (B, Y, X) bool: where these are read; `objects_known` is of `hv` as well
    crowded        (B, Y, X) bool: near two objects (`near_two_objects`)
    """

    semantic: Tensor
    objects: Tensor
    classes: Tensor
    hv: Tensor
    semantic_known: Tensor
    objects_known: Tensor
    classes_known: Tensor
    crowded: Tensor

    @property
    def labelled(self) -> dict[Task, Tensor]:
        """(B,) bool for each task: the images with any label of it."""
        return {"semantic": _any(self.semantic_known), "instance": _any(self.objects_known)}


class Shares(NamedTuple):
    """How much a micro batch counts in its step, by kind of label; a whole batch counts 1."""

    semantic: float = 1.0
    instance: float = 1.0
    types: float = 1.0
    images: float = 1.0


def two_forward_loss(
    output: TwoForwards,
    targets: Targets,
    settings: LossSettings,
    shares: Shares | None = None,
    add: Sum = alone,
) -> tuple[Tensor, dict[str, float]]:
    """Equation 12 (Co-Seg: 8): the total, and each weighted term by name for the log.

    Parameters
    ----------
    shares
        Of a micro batch, whose losses are added to those of the others of its step.
    add
        Where several processes share the batch.
    """
    count = shares or Shares()
    terms = {
        **_first_terms(output.first, targets, settings, count, add),
        **_times(count.semantic, _semantic_terms(output.second, targets, settings, add)),
        **_times(count.instance, _instance_terms(output.second, targets, settings, add)),
        **_times(count.types, _class_terms(output.second, targets, settings, add)),
    }
    total = torch.stack(list(terms.values())).sum()
    return total, {name: float(value.detach()) for name, value in terms.items()}


def _times(share: float, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: share * value for name, value in terms.items()}


def _first_terms(
    first: FirstForward, targets: Targets, settings: LossSettings, count: Shares, add: Sum
) -> dict[str, Tensor]:
    terms = {
        "first_semantic": count.semantic
        * settings.first_semantic
        * _mask_loss(
            first.semantic_mask,
            targets.semantic > 0,
            targets.semantic_known,
            settings,
            False,
            add,
        ),
        "first_instance": count.instance
        * settings.first_instance
        * _mask_loss(
            first.instance_mask,
            targets.objects,
            targets.objects_known,
            settings,
            settings.first_object == "focal",
            add,
        ),
    }
    maps = first.semantic_consistency, first.instance_consistency
    if settings.consistency and maps[0] is not None and maps[1] is not None:
        loss = consistency_loss(maps[0], maps[1], settings.consistency_symmetric, add)
        terms["consistency"] = count.images * settings.consistency * loss
    return _times(settings.first_forward, terms)


def _mask_loss(
    logits: Tensor, truth: Tensor, known: Tensor, settings: LossSettings, focal: bool, add: Sum
) -> Tensor:
    """Equation 10 on a binary mask, (B, 1, y, x) against (B, Y, X) as the share of each pixel."""
    rows = _any(known)
    logits, truth, known = logits[rows, 0].float(), (truth & known)[rows], known[rows]
    size = logits.shape[-2:]
    share, weight = _area_fraction(truth, size), _area_fraction(known, size)
    per_pixel = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    if focal:
        per_pixel = _focal(per_pixel, settings.focal_gamma)
    dice = dice_loss(logits.sigmoid(), share, weight, settings.dice_over, add)
    mean = _mean(per_pixel, weight, add)
    return settings.first_cross_entropy * mean + settings.first_dice * dice


def _semantic_terms(
    maps: TaskMaps, targets: Targets, settings: LossSettings, add: Sum
) -> dict[str, Tensor]:
    rows = _any(targets.semantic_known)
    logits = maps.semantic[rows].float()
    truth, weight = targets.semantic[rows], targets.semantic_known[rows].float()
    cross_entropy = _mean(F.cross_entropy(logits, truth, reduction="none"), weight, add)
    dice = class_dice_loss(logits, truth, weight, settings.dice_over, add)
    return {
        "semantic_cross_entropy": settings.semantic_cross_entropy * cross_entropy,
        "semantic_dice": settings.semantic_dice * dice,
    }


def _instance_terms(
    maps: TaskMaps, targets: Targets, settings: LossSettings, add: Sum
) -> dict[str, Tensor]:
    rows = _any(targets.objects_known)
    known = targets.objects_known[rows]
    weight, objects = known.float(), targets.objects[rows].float()
    logits = maps.object[rows, 0].float()
    per_pixel = F.binary_cross_entropy_with_logits(logits, objects, reduction="none")
    focal = _focal(per_pixel, settings.focal_gamma)
    dice = dice_loss(logits.sigmoid(), objects, weight, settings.dice_over, add)
    hv_truth = targets.hv[rows]
    # The gradient looks two pixels further: beyond what is known the map counts as right.
    hv = torch.where(known.unsqueeze(1), maps.hv[rows].float(), hv_truth)
    error = (hv - hv_truth).square().mean(dim=1)
    if settings.crowded:
        # Where a pixel of the wrong kind merges two objects.
        more = 1 + settings.crowded * targets.crowded[rows].float()
        per_pixel, error = per_pixel * more, error * more
    mse = _mean(error, weight, add)
    msge = gradient_loss(hv, hv_truth, objects * weight, settings.gradient_axis, add)
    return {
        "object_cross_entropy": settings.object_cross_entropy * _mean(per_pixel, weight, add),
        "object_focal": settings.object_focal * _mean(focal, weight, add),
        "object_dice": settings.object_dice * dice,
        "hv_mse": settings.hv_mse * mse,
        "hv_msge": settings.hv_msge * msge,
    }


def _class_terms(
    maps: TaskMaps, targets: Targets, settings: LossSettings, add: Sum
) -> dict[str, Tensor]:
    if not maps.classes.shape[1]:
        return {}
    rows = _any(targets.classes_known)
    weight = targets.classes_known[rows].float()
    logits, truth = maps.classes[rows].float(), targets.classes[rows]
    per_pixel = F.cross_entropy(logits, truth, reduction="none")
    focal = _focal(per_pixel, settings.focal_gamma)
    dice = class_dice_loss(logits, truth, weight, settings.dice_over, add)
    return {
        "class_cross_entropy": settings.class_cross_entropy * _mean(per_pixel, weight, add),
        "class_focal": settings.class_focal * _mean(focal, weight, add),
        "class_dice": settings.class_dice * dice,
    }


def dice_loss(
    probability: Tensor, truth: Tensor, weight: Tensor, over: str = "batch", add: Sum = alone
) -> Tensor:
    """1 - Dice of one mask (B, Y, X): of all pixels at once, or the mean over the images.

    At once, an empty image does no harm.
    """
    if over == "image":
        return _dice_by_image(probability.unsqueeze(1), truth.unsqueeze(1), weight, add)
    intersection, total = add(
        torch.stack([(probability * truth * weight).sum(), ((probability + truth) * weight).sum()])
    )
    return 1 - (2 * intersection + 1) / (total + 1)


def class_dice_loss(
    logits: Tensor, truth: Tensor, weight: Tensor, over: str = "batch", add: Sum = alone
) -> Tensor:
    """1 - mean Dice over the foreground classes that the batch holds, or as `_dice_by_image`."""
    probability = logits.softmax(dim=1)
    one_hot = F.one_hot(truth, logits.shape[1]).permute(0, 3, 1, 2).to(logits.dtype)
    if over == "image":
        return _dice_by_image(probability, one_hot, weight, add)
    probability, one_hot = probability[:, 1:], one_hot[:, 1:]
    weight = weight.unsqueeze(1)
    intersection, truth_area, area = add(
        torch.stack(
            [
                (maps * weight).sum(dim=(0, 2, 3))
                for maps in (probability * one_hot, one_hot, probability)
            ]
        )
    )
    loss = 1 - (2 * intersection + 1) / (area + truth_area + 1)
    present = (truth_area > 0).to(loss.dtype)
    return (loss * present).sum() / present.sum().clamp(min=1)


def _dice_by_image(probability: Tensor, truth: Tensor, weight: Tensor, add: Sum) -> Tensor:
    """Mean over images and classes of 1 - Dice, (B, C, Y, X); absent classes count as well."""
    weight = weight.unsqueeze(1)
    intersection = (probability * truth * weight).sum(dim=(2, 3))
    total = ((probability + truth) * weight).sum(dim=(2, 3))
    loss = 1 - (2 * intersection + 1e-5) / (total + 1e-5)
    return _mean(loss, torch.ones_like(loss), add)


def consistency_loss(
    semantic: Tensor, instance: Tensor, symmetric: bool, add: Sum = alone
) -> Tensor:
    """Equation 9: KL divergence between the two tasks' maps (B, 2, h, w), mean over elements."""
    log_semantic = F.log_softmax(semantic.float(), dim=1)
    log_instance = F.log_softmax(instance.float(), dim=1)
    loss = F.kl_div(log_semantic, log_instance, reduction="none", log_target=True)
    if symmetric:
        back = F.kl_div(log_instance, log_semantic, reduction="none", log_target=True)
        loss = 0.5 * (loss + back)
    return _mean(loss, torch.ones_like(loss), add)


def gradient_loss(
    hv: Tensor, truth: Tensor, inside: Tensor, axis: str = "right", add: Sum = alone
) -> Tensor:
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
    return _mean(difference.square().mean(dim=1), inside, add)


def _focal(cross_entropy: Tensor, gamma: float) -> Tensor:
    return (1 - torch.exp(-cross_entropy)).pow(gamma) * cross_entropy


def near_two_objects(ids: Tensor, reach_px: int = CROWDED_REACH_PX) -> Tensor:
    """(B, Y, X) object ids -> bool: pixels with two objects within `reach_px`, along y and x."""
    dense = ids.unsqueeze(1).float()  # exact below 2 ** 24; ids of a crop are those of its image
    beyond = dense.max() + 1
    side = 2 * reach_px + 1
    largest = F.max_pool2d(dense, side, 1, reach_px)
    inverted = torch.where(dense > 0, beyond - dense, dense)
    smallest = beyond - F.max_pool2d(inverted, side, 1, reach_px)
    return ((largest > 0) & (smallest < largest))[:, 0]


def _any(known: Tensor) -> Tensor:
    """(B,) bool: the images with anything known."""
    return known.flatten(1).any(dim=1)


def _area_fraction(mask: Tensor, size: torch.Size) -> Tensor:
    """(B, Y, X) bool -> (B, y, x), the share of each coarse pixel that is true."""
    if mask.shape[0] == 0:
        return mask.new_zeros((0, *size), dtype=torch.float32)
    return F.adaptive_avg_pool2d(mask.unsqueeze(1).float(), (size[0], size[1]))[:, 0]


def _mean(values: Tensor, weight: Tensor, add: Sum) -> Tensor:
    total, count = add(torch.stack([(values * weight).sum(), weight.sum()]))
    return total / count.clamp(min=1)
