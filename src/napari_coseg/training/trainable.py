"""What trains and what is frozen, by the model's own parts and never by a parameter's name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from napari_coseg.core.errors import SettingsError
from napari_coseg.models.adapted import parts_of
from napari_coseg.models.base import CosegModel


def train_only(model: CosegModel, part_names: Iterable[str]) -> dict[str, list[nn.Parameter]]:
    """Freeze everything but the named parts; returns what trains, by part."""
    parts = parts_of(model)
    wanted = set(part_names)
    unknown = wanted - parts.keys()
    if unknown:
        raise SettingsError(
            f"the model has no part {', '.join(sorted(unknown))}; it has {', '.join(parts)}"
        )
    for name, parameters in parts.items():
        for parameter in parameters:
            parameter.requires_grad_(name in wanted)
    return {name: parameters for name, parameters in parts.items() if name in wanted}


def in_channels_last(model: CosegModel) -> CosegModel:
    """Store the kernels in the layout in which CPUs and tensor cores convolve fastest."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return model


def freeze_statistics(model: CosegModel) -> None:
    """Batch normalisation takes its running statistics from now on, and leaves them as they are."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict]:
    """Optimiser groups: matrices decay, vectors (norms, biases, tokens' scales) do not."""
    parameters = list(parameters)
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
