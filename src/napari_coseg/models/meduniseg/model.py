"""MedUniSeg: one network for tasks of several modalities, in 2D and 3D.

    image + MMap(modality) --encoder--> F --FUSE--> prior of the task
                              | skips   |             |
                              +------> decoder <--- (F, prior) --> logits, full size first

Planes are volumes of depth 1, computed in 2D (`layers`). Modality and task are those of each image,
also in a mixed batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import ImageError, SettingsError
from napari_coseg.models.base import NO_CONDITIONS, Conditions, SegmentationModel
from napari_coseg.models.meduniseg.config import MedUniSegConfig
from napari_coseg.models.meduniseg.layers import (
    Change,
    ConvBlock,
    Convolution,
    LowRankConvolution,
    Stem,
    Upscaling,
)
from napari_coseg.models.meduniseg.prompts import ModalMap, TaskPrior

LEAST_CLASSES = 2
SLOPE = 0.01
"""Of the leaky ReLU, for which the weights start."""


class Encoder(nn.Module):
    """Stages of two blocks; the first keeps the size, the second the depth, others halve all."""

    def __init__(self, config: MedUniSegConfig) -> None:
        super().__init__()
        widths, lora = config.widths, (config.lora_rank, config.lora_alpha)
        second = ConvBlock(widths[0], widths[0], (1, 3, 3), (1, 1, 1), lora)
        self.stages = nn.ModuleList([nn.ModuleList([Stem(config.stems, widths[0], lora), second])])
        for number, (before, width) in enumerate(itertools.pairwise(widths)):
            stride = (2 if number else 1, 2, 2)
            blocks = [
                ConvBlock(before, width, (3, 3, 3), stride, lora),
                ConvBlock(width, width, (3, 3, 3), (1, 1, 1), lora),
            ]
            self.stages.append(nn.ModuleList(blocks))

    def forward(self, images: Tensor, adapted: Tensor | None = None) -> list[Tensor]:
        """Images (B, C, Z, Y, X) -> the features of each stage, from fine to coarse."""
        found = []
        maps = images
        for stage in self.stages:
            for block in stage.children():
                maps = block(maps, adapted)
            found.append(maps)
        return found


class DecoderStage(nn.Module):
    """Upscaling, the encoder's features of that size beside it, two blocks, and a head."""

    def __init__(
        self, config: MedUniSegConfig, width_in: int, width: int, depth_factor: int, channels: int
    ) -> None:
        super().__init__()
        lora, factors = (config.lora_rank, config.lora_alpha), (depth_factor, 2, 2)
        up_change = head_change = None
        if config.lora_rank:
            up_change = Upscaling(width_in, width, factors, config.single_plane)
            head_change = Convolution(width, channels, (1, 1, 1), bias=False)
        self.up = Upscaling(width_in, width, factors, config.single_plane, up_change)
        self.blocks = nn.ModuleList(
            ConvBlock(before, width, (3, 3, 3), (1, 1, 1), lora) for before in (2 * width, width)
        )
        self.head = Convolution(width, channels, (1, 1, 1), bias=False, change=head_change)

    def forward(
        self, maps: Tensor, skip: Tensor, adapted: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Coarser maps and the encoder's -> maps at the encoder's size, and their logits."""
        maps = torch.cat([self.up(maps, skip.shape[2] == 1, adapted), skip], dim=1)
        for block in self.blocks:
            maps = block(maps, adapted)
        return maps, self.head(maps, adapted)


class MedUniSeg(SegmentationModel):
    """The network; `card.config` holds a `MedUniSegConfig`.

    The card's tasks and modalities, in their order, are those of the prompts.
    """

    def __init__(self, card: ModelCard) -> None:
        self.config = config = MedUniSegConfig.from_mapping(card.config)
        # Written in full, since defaults may change.
        super().__init__(card.model_copy(update={"config": config.model_dump(mode="json")}))
        self.size_multiple, self.depth_multiple = config.plane_multiple, config.depth_multiple
        self._task_numbers = {task.name: n for n, task in enumerate(card.tasks)}
        self._check_card(card, config)
        widths = config.widths
        self.encoder = Encoder(config)
        uses_modalities = config.modal_prompt != "none" and card.modalities
        self.modal = ModalMap(config, len(card.modalities)) if uses_modalities else None
        self.prior = TaskPrior(config, len(card.tasks)) if config.task_prior else None
        channels = config.head_channels or max(LEAST_CLASSES, *map(len, self._classes().values()))
        self.decoder = nn.ModuleList()
        width_in = widths[-1] + (1 if config.task_prior else 0)
        for number in reversed(range(len(widths) - 1)):
            depth_factor = 2 if number else 1
            stage = DecoderStage(config, width_in, widths[number], depth_factor, channels)
            self.decoder.append(stage)
            width_in = widths[number]
        self._start()

    @property
    def task_prior(self) -> bool:
        """Whether the network has a universal task prompt."""
        return self.prior is not None

    def maps(self, images: Tensor, conditions: Conditions = NO_CONDITIONS) -> dict[str, Tensor]:
        """Logits ``semantic`` (B, 1 + K, [Z,] Y, X); those of other tasks' classes are -inf.

        So the softmax is over the task's own classes, before anything is averaged.
        """
        logits = self(images, conditions)[0]
        classes = self._classes()
        names = conditions.tasks or ("",) * len(images)
        shape = (len(images), 1 + len(self.card.semantic_classes), *logits.shape[2:])
        answer = logits.new_full(shape, -torch.inf)
        for row, name in enumerate(names):
            ids = classes[name]
            answer[row, list(ids)] = logits[row, : len(ids)]
        return {"semantic": answer if images.ndim > 4 else answer.squeeze(2)}

    def forward(self, images: Tensor, conditions: Conditions = NO_CONDITIONS) -> tuple[Tensor, ...]:
        """Normalised images (B, C, [Z,] Y, X) -> logits of each scale, full size first.

        Returns
        -------
        tuple of Tensor
            (B, H, z, y, x), with z = 1 for planes. The first 1 + n channels are those of a task's n
            classes; cut to them before any softmax.

        Raises
        ------
        ImageError
            If there is no stem for that number of channels, or a side does not fit the strides.
        SettingsError
            See `check_conditions`.
        """
        self.check_conditions(conditions, len(images))
        volume = images if images.ndim > 4 else images.unsqueeze(2)
        self._check_size(volume)
        adapted = self._adapted(conditions, volume)
        features = self.encode(volume, conditions, adapted)
        logits = []
        maps = self.with_prior(features[-1], conditions, adapted)
        for stage, skip in zip(self.decoder, features[-2::-1], strict=True):
            maps, found = stage(maps, skip, adapted)
            logits.append(found)
        return tuple(reversed(logits))

    def encode(
        self, volume: Tensor, conditions: Conditions, adapted: Tensor | None = None
    ) -> list[Tensor]:
        """The encoder's features, from fine to coarse; the modality's map is added on its way."""
        where = self.config.modal_prompt if self.modal is not None else "none"
        if where == "input":
            volume = volume + self.modal_map(conditions, volume)
        features: list[Tensor] = self.encoder(volume, adapted)
        if where == "bottleneck":
            features[-1] = features[-1] + self.modal_map(conditions, features[-1])
        return features

    def modal_map(self, conditions: Conditions, volume: Tensor) -> Tensor:
        """The map of each image's modality, (B, 1, Z, Y, X) at the size of `volume`."""
        if self.modal is None:
            raise SettingsError(f"{self.card.name} has no modal prompts")
        numbers = [self.card.modalities.index(name) for name in conditions.modalities]
        maps: Tensor = self.modal(_on_device(numbers, volume), volume.shape[2:])
        return maps

    def with_prior(
        self, features: Tensor, conditions: Conditions, adapted: Tensor | None = None
    ) -> Tensor:
        """The last features with the prior of each image's own task beside them, if any."""
        if self.prior is None:
            return features
        numbers = [self._task_numbers[name] for name in conditions.tasks]
        prior = self.prior(features, _on_device(numbers, features), adapted)
        return torch.cat([features, prior], dim=1)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part. A transfer freezes ``modal_prompts``, MedUniSeg* all but ``lora``."""
        changes = {id(p) for _, change in self.changes() for p in change.parameters()}
        modules: dict[str, Iterable[nn.Parameter]] = {
            "encoder": self.encoder.parameters(),
            "modal_prompts": [self.modal.prompts] if self.modal else [],
            "modal_map": self.modal.linear.parameters() if self.modal else [],
            "task_prior": self.prior.parameters() if self.prior else [],
            "decoder": (p for name, p in self.decoder.named_parameters() if ".head." not in name),
            "heads": (p for name, p in self.decoder.named_parameters() if ".head." in name),
        }
        parts = {name: [p for p in ps if id(p) not in changes] for name, ps in modules.items()}
        parts["lora"] = [p for p in self.parameters() if id(p) in changes]
        return {name: parameters for name, parameters in parts.items() if parameters}

    def changes(self) -> list[tuple[Convolution | Upscaling, Change | Upscaling]]:
        """Layers that MedUniSeg* changes, each with its change."""
        layers = (m for m in self.modules() if isinstance(m, (Convolution, Upscaling)))
        return [(layer, layer.change) for layer in layers if layer.change is not None]

    def _classes(self) -> dict[str, tuple[int, ...]]:
        """Ids of each task's channels, background first; of all classes where there is no task."""
        ids = tuple(entry.id for entry in self.card.semantic_classes)
        tasks = {task.name: (0, *self.channels_of(task.name)) for task in self.card.tasks}
        return tasks or {"": (0, *ids)}

    def _check_card(self, card: ModelCard, config: MedUniSegConfig) -> None:
        if config.task_prior and not card.tasks:
            raise SettingsError(
                f"{card.name} lists no tasks, but its config has task_prior; list the tasks, or "
                "set task_prior = false"
            )
        needed = max(map(len, self._classes().values()))
        if config.head_channels is not None and config.head_channels < needed:
            raise SettingsError(
                f"{card.name}: a task has {needed} classes with the background, but head_channels "
                f"is {config.head_channels}"
            )
        if unknown := sorted(set(config.adapted_tasks) - set(self._task_numbers)):
            raise SettingsError(
                f"{card.name}: adapted_tasks names {', '.join(unknown)}; its tasks are "
                f"{', '.join(self._task_numbers) or 'none'}"
            )

    def _check_size(self, volume: Tensor) -> None:
        channels, *sides = volume.shape[1:]
        config = self.config
        if channels not in config.stems:
            raise ImageError(
                f"{self.card.name} has first convolutions for {_listed(config.stems)} channels; "
                f"got {channels}"
            )
        multiples = (config.depth_multiple, config.plane_multiple, config.plane_multiple)
        coarse = [-(-side // multiple) for side, multiple in zip(sides, multiples, strict=True)]
        depth_fits = sides[0] == 1 or sides[0] % multiples[0] == 0
        plane_fits = all(side % multiples[1] == 0 for side in sides[1:])
        if not depth_fits or not plane_fits or coarse == [1, 1, 1] or 0 in sides:
            raise ImageError(
                f"{self.card.name} takes images with sides in multiples of {multiples[1]} and a "
                f"depth of 1 or a multiple of {multiples[0]}, and at least {2 * multiples[1]} "
                f"along y or x; got {' x '.join(map(str, sides))}: pad the image"
            )

    def _adapted(self, conditions: Conditions, volume: Tensor) -> Tensor | None:
        """(B, 1, 1, 1, 1): 1 where the changes of MedUniSeg* serve the task; None for nowhere."""
        if not self.config.lora_rank:
            return None
        served = set(self.config.adapted_tasks)
        flags = [not served or name in served for name in conditions.tasks or [""] * len(volume)]
        return volume.new_tensor(flags).view(-1, 1, 1, 1, 1) if any(flags) else None

    def _start(self) -> None:
        """Kaiming's normal start with zero biases, as in UniSeg; changes start at zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for _, change in self.changes():
            last = change.up if isinstance(change, LowRankConvolution) else change
            nn.init.zeros_(last.weight)


def _on_device(numbers: list[int], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
