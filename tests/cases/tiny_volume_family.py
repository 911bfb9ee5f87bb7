"""A family for volumes, as small as one can be: channels, modality and task in, region maps out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from napari_coseg.core.card import ClassEntry, ModelCard, Normalisation, OutputMap, TaskEntry
from napari_coseg.models.base import NO_CONDITIONS, Conditions, SegmentationModel

NAMES = ("bone", "vessel", "tumour", "oedema")


class TinyVolumeFamily(SegmentationModel):
    """One convolution, a learned vector for each modality, one head for each task."""

    size_multiple = 4

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        convolution = nn.Conv2d if card.dimensions == 2 else nn.Conv3d
        self.trunk = convolution(len(card.channels), 8, 3, padding=1)
        self.modality = nn.Embedding(len(card.modalities), 8)
        heads = {task.name: convolution(8, 1 + len(task.classes), 1) for task in card.tasks}
        self.heads = nn.ModuleDict(heads)

    def maps(self, images: Tensor, conditions: Conditions = NO_CONDITIONS) -> dict[str, Tensor]:
        self.check_conditions(conditions, len(images))
        numbers = [self.card.modalities.index(name) for name in conditions.modalities]
        told = self.modality(torch.tensor(numbers, device=images.device))
        features = self.trunk(images) + told.view(*told.shape, *(1,) * self.card.dimensions)
        channels = 1 + len(self.card.semantic_classes)
        answer = images.new_full((len(images), channels, *images.shape[2:]), -torch.inf)
        for row, task in enumerate(conditions.tasks):
            answer[row, [0, *self.channels_of(task)]] = self.heads[task](features[row])
        return {"semantic": answer}

    def parts(self) -> dict[str, list[nn.Parameter]]:
        return {
            "trunk": [*self.trunk.parameters()],
            "prompts": [*self.modality.parameters()],
            "heads": [*self.heads.parameters()],
        }


def volume_card(channels: int = 1, dimensions: int = 3, **changed: Any) -> ModelCard:
    """Two modalities, two tasks; spacing 3 x 0.5 x 0.5 mm where there are slices."""
    values: dict[str, Any] = {
        "name": "tiny-volumes",
        "family": "tiny-volumes",
        "config": {},
        "channels": tuple(f"sequence {n}" for n in range(channels)),
        "dimensions": dimensions,
        "modalities": ("CT", "MR"),
        "tasks": (
            TaskEntry(name="head", classes=("bone", "vessel"), modalities=("CT",)),
            TaskEntry(name="brain", classes=("tumour", "oedema", "vessel")),
        ),
        "semantic_classes": tuple(
            ClassEntry(id=n, name=name, color=(n, 0, 0)) for n, name in enumerate(NAMES, start=1)
        ),
        "maps": (OutputMap(name="semantic", channels=5, activation="softmax"),),
        "pixel_size_um": 500.0,
        "slice_spacing_um": 3000.0 if dimensions == 3 else None,
        "normalisation": Normalisation(
            mean=(40.0,) * channels, std=(200.0,) * channels, values="measured"
        ),
    }
    return ModelCard(**{**values, **changed})
