"""The contract of every model family: encode once, decode as often as you like.

A family subclasses `CosegModel` and answers three questions, each on a whole batch:

    encode(images)                    -> Features        (the expensive part, once)
    first_forward(features)           -> FirstForward    (one binary mask a task)
    second_forward(features, prompts) -> TaskMaps        (the answer, prompted by those masks)

What comes back always has the same type. Nothing here knows of tiles, files or pixel sizes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_coseg.core.card import ModelCard

Task = Literal["semantic", "instance"]
BOTH_TASKS: tuple[Task, ...] = ("semantic", "instance")
MAPS_OF: dict[Task, tuple[str, ...]] = {
    "semantic": ("semantic",),
    "instance": ("object", "classes", "hv"),
}
"""Which of `TaskMaps` answer a task."""


class Features(NamedTuple):
    """What the encoder keeps of a batch of images of (Y, X) pixels.

    embedding      (B, C, Y/16, X/16)
    high_resolution  from fine to coarse, each (B, C_i, Y/s_i, X/s_i), added while upscaling
    image_size     (Y, X) of the images, to which the maps are resized
    """

    embedding: Tensor
    high_resolution: tuple[Tensor, ...]
    image_size: tuple[int, int]

    def of(self, images: Tensor) -> Features:
        """Those of some images of the batch, by their numbers (N,)."""
        finer = tuple(maps[images] for maps in self.high_resolution)
        return Features(self.embedding[images], finer, self.image_size)


class FirstForward(NamedTuple):
    """The first forward's binary masks (logits) and consistency maps, one pair a task.

    semantic_mask, instance_mask                 (B, 1, y, x)
    semantic_consistency, instance_consistency   (B, 2, Y/16, X/16), None where a family has none
    """

    semantic_mask: Tensor
    instance_mask: Tensor
    semantic_consistency: Tensor | None
    instance_consistency: Tensor | None


class MaskPrompts(NamedTuple):
    """The masks fed to the second forward, as logits (B, 1, y, x).

    Usually the first forward's own; masks that are given go in the same way (`prompts_from`).
    """

    semantic: Tensor
    instance: Tensor


class GivenMasks(NamedTuple):
    """Masks to prompt with in place of the first forward's: a person's, or in training the truth.

    semantic, instance   (B, 1, Y, X) float, at the size of the images: the share of each pixel that
                         lies in any region, or in any object, 0..1; not a number where the first
                         forward's own mask stays
    """

    semantic: Tensor
    instance: Tensor


PAINTED_LOGIT = 6.0
"""The largest logit of a given mask: as sure as trained networks are of their own (4 to 7)."""


class TaskMaps(NamedTuple):
    """The answer of both tasks as logits, at the size of the images.

    semantic   (B, 1 + K, Y, X)   background and K region classes
    object     (B, 1, Y, X)       object or not
    classes    (B, 1 + T, Y, X)   background and T object classes; T = 0 gives (B, 0, Y, X)
    hv         (B, 2, Y, X)       horizontal and vertical distance to the centre of mass, -1..1
    """

    semantic: Tensor
    object: Tensor
    classes: Tensor
    hv: Tensor

    def resized(self, size: tuple[int, int]) -> TaskMaps:
        """Bilinear, to (Y, X). A map that has that size already stays as it is."""
        return TaskMaps(*(_resize(maps, size) for maps in self))


class TwoForwards(NamedTuple):
    """Everything one call of a model gives; always both forwards."""

    first: FirstForward
    second: TaskMaps


class CosegModel(nn.Module, ABC):
    """Base of every family.

    Parameters
    ----------
    card
        Says what the channels mean and how images are normalised.
    """

    size_multiple: int = 32
    """Height and width of the images must be multiples of this."""
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        mean = torch.tensor(card.normalisation.mean).view(1, 3, 1, 1)
        std = torch.tensor(card.normalisation.std).view(1, 3, 1, 1)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    def normalise(self, rgb: Tensor) -> Tensor:
        """(B, 3, Y, X) red, green, blue of 0..255 -> the encoder's input, float."""
        return (rgb.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    @abstractmethod
    def encode(self, images: Tensor) -> Features:
        """Normalised images (B, 3, Y, X) -> features. Y and X are multiples of `size_multiple`."""

    @abstractmethod
    def first_forward(self, features: Features) -> FirstForward:
        """Decode both tasks without prompts."""

    @abstractmethod
    def second_forward(
        self, features: Features, prompts: MaskPrompts, tasks: Sequence[Task] = BOTH_TASKS
    ) -> TaskMaps:
        """Decode at least the tasks asked for, each prompted by the other's mask.

        The maps of a task that was not asked for mean nothing.
        """

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part ("trunk", "adapters", ...); each stands in exactly one part."""

    def forward(
        self,
        images: Tensor,
        given: GivenMasks | None = None,
        asked: Mapping[Task, Tensor] | None = None,
    ) -> TwoForwards:
        """Normalised images (B, 3, Y, X) -> both forwards, from one encoding.

        Parameters
        ----------
        given
            Masks that prompt the second forward; where there are none, the first's do.
        asked
            (B,) bool of each task: images of which the second forward is wanted. The others' maps
            are zeros, and cost nothing: a training has no use for tasks without labels.
        """
        return self.decode(self.encode(images), given, asked)

    def decode(
        self,
        features: Features,
        given: GivenMasks | None = None,
        asked: Mapping[Task, Tensor] | None = None,
    ) -> TwoForwards:
        """Both forwards from features; parameters as in `forward`."""
        first = self.first_forward(features)
        prompts = prompts_from(first, given)
        if asked is None:
            return TwoForwards(first, self.second_forward(features, prompts))
        return TwoForwards(first, self._only_asked(features, prompts, asked))

    def _only_asked(
        self, features: Features, prompts: MaskPrompts, asked: Mapping[Task, Tensor]
    ) -> TaskMaps:
        types = len(self.card.instance_classes)
        channels = (1 + len(self.card.semantic_classes), 1, 1 + types if types else 0, 2)
        found = TaskMaps(*(nothing_said(features, count) for count in channels))._asdict()
        for task in BOTH_TASKS:
            rows = asked[task].nonzero()[:, 0]
            if len(rows):
                maps = self.second_forward(
                    features.of(rows), MaskPrompts(*(mask[rows] for mask in prompts)), (task,)
                )
                for name in MAPS_OF[task]:
                    answer = getattr(maps, name)
                    zeros = answer.new_zeros(found[name].shape)
                    found[name] = zeros.index_copy(0, rows, answer)
        return TaskMaps(**found)


def nothing_said(features: Features, channels: int) -> Tensor:
    """Zeros (B, K, Y, X) in place of a task's maps, without memory of their own."""
    z = features.embedding
    return z.new_zeros(1, 1, 1, 1).expand(len(z), channels, *features.image_size)


def prompts_from(first: FirstForward, given: GivenMasks | None = None) -> MaskPrompts:
    """The first forward's masks, with those that are given painted over them.

    A given mask is shrunk to the first forward's size and becomes what a perfect first forward
    would say: the log-odds of the share of each pixel, at most `PAINTED_LOGIT`. A pixel that is
    not given as a whole keeps the first forward's value.
    """
    if given is None:
        return MaskPrompts(first.semantic_mask, first.instance_mask)
    return MaskPrompts(
        _painted(first.semantic_mask, given.semantic),
        _painted(first.instance_mask, given.instance),
    )


def _painted(own: Tensor, given: Tensor) -> Tensor:
    # The area mean of what holds a NaN is NaN: such pixels stay as they are.
    share = F.interpolate(given.float(), size=own.shape[-2:], mode="area")
    least = torch.sigmoid(torch.tensor(-PAINTED_LOGIT)).item()
    logits = torch.logit(share.nan_to_num(0.5), eps=least).to(own.dtype)
    return torch.where(share.isnan(), own, logits)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if maps.shape[1] == 0:
        return maps.new_zeros((maps.shape[0], 0, *size))
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
