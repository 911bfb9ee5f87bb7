"""The contracts of model families.

Every family subclasses `SegmentationModel`. It takes images of 1 to 4 channels, 2D or 3D, and if
the card lists them, a modality and a task per image, and returns the maps that the card names:

    maps(images, conditions)          -> {name: Tensor}

A two-task family (Co-Seg, Co-Seg++) subclasses `CosegModel` and implements three steps, each on a
whole batch; the image is encoded once:

    encode(images)                    -> Features        (the expensive part)
    first_forward(features)           -> FirstForward    (one binary mask per task)
    second_forward(features, prompts) -> TaskMaps        (the result, prompted by those masks)

Models know nothing of tiles, files or pixel sizes.
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
"""Fields of `TaskMaps` by task."""


class Features(NamedTuple):
    """Features of a batch of images of (Y, X) pixels.

    embedding      (B, C, Y/16, X/16)
    high_resolution  from fine to coarse, each (B, C_i, Y/s_i, X/s_i), added while upscaling
    image_size     (Y, X) of the images, to which the maps are resized
    """

    embedding: Tensor
    high_resolution: tuple[Tensor, ...]
    image_size: tuple[int, int]

    def of(self, images: Tensor) -> Features:
        """Features of some images of the batch, by index (N,)."""
        finer = tuple(maps[images] for maps in self.high_resolution)
        return Features(self.embedding[images], finer, self.image_size)


class FirstForward(NamedTuple):
    """Binary masks (logits) and consistency maps of the first forward, per task.

    semantic_mask, instance_mask                 (B, 1, y, x)
    semantic_consistency, instance_consistency   (B, 2, Y/16, X/16), None if a family has none
    """

    semantic_mask: Tensor
    instance_mask: Tensor
    semantic_consistency: Tensor | None
    instance_consistency: Tensor | None


class MaskPrompts(NamedTuple):
    """The masks fed to the second forward, as logits (B, 1, y, x).

    Usually the first forward's own; given masks replace them (`prompts_from`).
    """

    semantic: Tensor
    instance: Tensor


class GivenMasks(NamedTuple):
    """Given mask prompts in place of the first forward's: corrections, or the truth in training.

    semantic, instance   (B, 1, Y, X) float, at the size of the images: the fraction of each pixel
                         in any region, or in any object, 0..1; NaN where the first forward's mask
                         is used
    """

    semantic: Tensor
    instance: Tensor


PAINTED_LOGIT = 6.0
"""Largest logit of a given mask; trained networks reach 4 to 7 in their own."""


class TaskMaps(NamedTuple):
    """Output maps of both tasks as logits, at the size of the images.

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
        """Resize bilinearly to (Y, X); no-op for maps of that size."""
        return TaskMaps(*(_resize(maps, size) for maps in self))


class TwoForwards(NamedTuple):
    """Result of a call of a two-task model: both forwards."""

    first: FirstForward
    second: TaskMaps


class Conditions(NamedTuple):
    """Modality and task of each image of a batch, by name.

    A tuple is empty if the card lists no modalities or tasks. Tasks of one batch may differ;
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
        Defines input channels, output maps and normalisation.
    """

    size_multiple: int = 32
    """Every spatial side of the images must be a multiple of this."""
    depth_multiple: int = 1
    """So must the number of slices of a volume."""
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
        """The image encoder; None for a family without an encoder of `models.nn.encoders`."""
        return None

    def normalise(self, values: Tensor, tasks: Sequence[str] = ()) -> Tensor:
        """Normalise (B, C, [Z,] Y, X) values of the scale `card.normalisation.values`.

        Parameters
        ----------
        tasks
            The task of each image, whose own channels and normalisation hold; none for the card's.
        """
        mean, std = self.pixel_mean, self.pixel_std
        cards = [self.card.for_task(name) for name in tasks] or [self.card]
        for card in cards:
            if values.ndim != 2 + card.dimensions or values.shape[1] != len(card.channels):
                raise ImageError(
                    f"{card.name} takes {card.dimensions}D images with the channels "
                    f"{', '.join(card.channels)}; got a batch of shape {tuple(values.shape)}"
                )
        if tasks:
            shape = (len(cards), values.shape[1], *(1,) * (values.ndim - 2))
            mean, std = (
                torch.tensor([getattr(card.normalisation, which) for card in cards])
                .view(shape)
                .to(mean)
                for which in ("mean", "std")
            )
        return (values.to(mean.dtype) - mean) / std

    def check_conditions(self, conditions: Conditions, batch: int) -> None:
        """Check the conditions against the card.

        Raises
        ------
        SettingsError
            If names are missing, superfluous or not listed in the card.
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
            See `check_conditions`.
        """

    @abstractmethod
    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part ("trunk", "adapters", ...), each in exactly one part."""


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

        The maps of other tasks are undefined.
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
            Masks that prompt the second forward; by default those of the first.
        asked
            (B,) bool per task: images that need the second forward. Other maps are zeros and cost
            nothing: training skips tasks without labels.
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
        If the model is of another kind; names its maps.
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
    """Zeros (B, K, Y, X) in place of a task's maps, expanded without memory."""
    z = features.embedding
    return z.new_zeros(1, 1, 1, 1).expand(len(z), channels, *features.image_size)


def prompts_from(first: FirstForward, given: GivenMasks | None = None) -> MaskPrompts:
    """The first forward's masks, overwritten by given ones.

    A given mask is reduced to the first forward's size and converted to logits: the log-odds of
    the fraction of each pixel, limited to `PAINTED_LOGIT`. Pixels that are not fully given keep
    the first forward's value.
    """
    if given is None:
        return MaskPrompts(first.semantic_mask, first.instance_mask)
    return MaskPrompts(
        _painted(first.semantic_mask, given.semantic),
        _painted(first.instance_mask, given.instance),
    )


def _painted(own: Tensor, given: Tensor) -> Tensor:
    # An area mean over any NaN is NaN: such pixels are kept.
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
