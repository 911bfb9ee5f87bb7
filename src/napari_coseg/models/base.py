"""The contracts of model families.

Every family subclasses `SegmentationModel`. It takes images of 1 to 4 channels, 2D or 3D, and where
the card lists them, a modality and a task of each image, and gives the maps that the card names:

    maps(images, conditions)          -> {name: Tensor}

A two-task family (Co-Seg, Co-Seg++) subclasses `CosegModel` and implements three steps, each on a
whole batch; the image is encoded once:

    encode(images)                    -> Features        (the expensive part)
    first_forward(features)           -> FirstForward    (one binary mask for each task)
    second_forward(features, prompts) -> TaskMaps        (the result, prompted by those masks)

Nothing here knows tiles, files or pixel sizes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import CheckpointError, ImageError, SettingsError
from napari_coseg.models.nn.encoders.base import Encoder

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


class Conditions(NamedTuple):
    """What is told to a network beside the image, by name, one entry for each image of a batch.

    A tuple is empty where the card lists no modalities, or no tasks. Tasks of one batch may differ;
    each image's channels are then those of its own task (`SegmentationModel.channels_of`).
    """

    modalities: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


NO_CONDITIONS = Conditions()


class SegmentationModel(nn.Module, ABC):
    """Base of every family.

    Parameters
    ----------
    card
        Says what input channels and output maps mean and how images are normalised.
    """

    size_multiple: int = 32
    """Every spatial side of the images must be a multiple of this."""
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.card = card
        shape = (1, len(card.channels), *(1,) * card.dimensions)
        mean = torch.tensor(card.normalisation.mean).view(shape)
        std = torch.tensor(card.normalisation.std).view(shape)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    @property
    def image_encoder(self) -> Encoder | None:
        """What encodes the images; None where a family has no encoder of `models.nn.encoders`."""
        return None

    def normalise(self, values: Tensor) -> Tensor:
        """(B, C, [Z,] Y, X) values as `card.normalisation.values` says -> the network's input."""
        wanted = (self.pixel_mean.shape[1], self.pixel_mean.ndim)
        if (values.shape[1], values.ndim) != wanted:
            raise ImageError(
                f"{self.card.name} takes {self.card.dimensions}D images with the channels "
                f"{', '.join(self.card.channels)}; got a batch of shape {tuple(values.shape)}"
            )
        return (values.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std

    def check_conditions(self, conditions: Conditions, batch: int) -> None:
        """Refuse names that the card does not list, and missing or superfluous ones.

        Raises
        ------
        SettingsError
            Says what the card lists.
        """
        known = {
            "modality": (conditions.modalities, self.card.modalities),
            "task": (conditions.tasks, tuple(task.name for task in self.card.tasks)),
        }
        for kind, (given, listed) in known.items():
            expected = batch if listed else 0
            if len(given) != expected or not set(given) <= set(listed):
                raise SettingsError(
                    f"{self.card.name} needs a {kind} for each of {batch} images, one of "
                    f"{', '.join(listed)}; got {', '.join(given) or 'none'}"
                    if listed
                    else f"{self.card.name} takes no {kind}; got {', '.join(given)}"
                )

    def channels_of(self, task: str) -> tuple[int, ...]:
        """Ids of the semantic classes of a task, in the order of its channels after background."""
        ids = {entry.name: entry.id for entry in self.card.semantic_classes}
        (entry,) = (entry for entry in self.card.tasks if entry.name == task)
        return tuple(ids[name] for name in entry.classes)

    @abstractmethod
    def maps(self, images: Tensor, conditions: Conditions = NO_CONDITIONS) -> dict[str, Tensor]:
        """Normalised images (B, C, [Z,] Y, X) -> the maps of `card.output_maps`, at their size.

        Raises
        ------
        SettingsError
            As `check_conditions`.
        """

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part ("trunk", "adapters", ...); each belongs to exactly one part."""


class CosegModel(SegmentationModel):
    """Base of the two-task families: 2D, both tasks, two forwards."""

    def maps(self, images: Tensor, conditions: Conditions = NO_CONDITIONS) -> dict[str, Tensor]:
        self.check_conditions(conditions, len(images))
        answer: TaskMaps = self(images).second
        return answer._asdict()

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


def as_two_task(model: SegmentationModel) -> CosegModel:
    """The same model, for code that needs both tasks and two forwards.

    Raises
    ------
    CheckpointError
        For a model of another kind; says what it gives.
    """
    if isinstance(model, CosegModel):
        return model
    card = model.card
    raise CheckpointError(
        f"{card.name} (family {card.family!r}) gives {card.dimensions}D maps of "
        f"{', '.join(entry.name for entry in card.output_maps)}, not regions and objects; choose a "
        "model of a two-task family"
    )


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
