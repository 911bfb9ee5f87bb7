"""What of a network trains, and the proof that the rest does not."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from napari_coseg.core.errors import SettingsError
from napari_coseg.finetuning.settings import HEADS, THROUGH_ENCODER, FinetuneSettings
from napari_coseg.models.adapted import parts_of
from napari_coseg.models.base import CosegModel
from napari_coseg.models.checkpoints.adapters import fingerprint


def parts_to_train(network: CosegModel, settings: FinetuneSettings) -> tuple[str, ...]:
    """The parts that the settings choose of those that the network has.

    Raises
    ------
    SettingsError
        Where a part is not there, is the trunk, or lies before the features that are kept.
    """
    there = parts_of(network)
    allowed = [*HEADS, *(THROUGH_ENCODER if settings.speed == "adapters" else ())]
    possible = tuple(name for name in there if name in allowed)
    if settings.parts is None:
        return possible
    strange = [name for name in settings.parts if name not in possible]
    if strange or not settings.parts:
        raise SettingsError(
            f"{', '.join(strange) or 'no part'} cannot train at speed {settings.speed!r}; of this "
            f"model {', '.join(possible)} can"
            + (
                " (adapters, lora and neck at speed 'adapters')"
                if "heads" in settings.speed
                else ""
            )
        )
    return tuple(name for name in possible if name in settings.parts)


def freeze_all_but(network: CosegModel, parts: Iterable[str]) -> dict[str, nn.Parameter]:
    """Freeze everything else; returns what trains, by its name in the state."""
    wanted = {id(p) for part in parts for p in parts_of(network)[part]}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def frozen_fingerprint(state: dict[str, Tensor], trained: Iterable[str]) -> str:
    """Hash of all entries that do not train: weights, and the statistics of normalisation."""
    return fingerprint(state, state.keys() - set(trained))


def set_training(network: CosegModel) -> None:
    """Dropout on; running statistics, which few crops would spoil, stay those of the base."""
    network.train()
    for module in network.modules():
        if getattr(module, "running_mean", None) is not None:
            module.eval()
