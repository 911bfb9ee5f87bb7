"""Build the network that an adapter starts from: a copy of the base with its classes and LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from napari_coseg.core.card import ModelCard
from napari_coseg.core.errors import SettingsError
from napari_coseg.models.base import CosegModel
from napari_coseg.models.growing import Origins, grow
from napari_coseg.models.nn.lora import put_in_lora
from napari_coseg.models.registry import build_two_task

LORA = "lora"


def starting_network(
    base: CosegModel,
    card: ModelCard,
    semantic_origins: Origins,
    instance_origins: Origins,
    lora_rank: int = 0,
    building: Callable[[ModelCard], CosegModel] = build_two_task,
) -> CosegModel:
    """The starting network of an adapter; deterministic for a base and arguments.

    Parameters
    ----------
    base
        Unchanged; no memory is shared with it.
    card, semantic_origins, instance_origins, building
        As in `growing.grow`.
    lora_rank
        Rank of LoRA added to a trunk without it; 0 for none.

    Raises
    ------
    SettingsError
        If LoRA is requested and the trunk has no attention, or has LoRA already.
    """
    same = (_kept(base.card.semantic_classes), _kept(base.card.instance_classes))
    if (semantic_origins, instance_origins) == same:
        card = card.model_copy(update={"config": base.card.config})
        network = copy.deepcopy(base)
    else:
        network = grow(base, card, semantic_origins, instance_origins, building)
        card = card.model_copy(update={"config": network.card.config})
    take_over(network, card)
    if lora_rank:
        _put_in_lora(network, lora_rank)
    return network


def parts_of(network: CosegModel) -> dict[str, list[nn.Parameter]]:
    """`CosegModel.parts` without empty ones, and ``lora`` if it was added."""
    parts = network.parts()
    lora = getattr(network, LORA, None)
    if isinstance(lora, nn.Module) and LORA not in parts:
        parts = {**parts, LORA: list(lora.parameters())}
    return {name: parameters for name, parameters in parts.items() if parameters}


def take_over(network: CosegModel, card: ModelCard) -> None:
    """Set class names and normalisation from `card`; the number of classes is unchanged."""
    network.card = card
    for buffer, values in (
        (network.pixel_mean, card.normalisation.mean),
        (network.pixel_std, card.normalisation.std),
    ):
        buffer.copy_(torch.tensor(values).view_as(buffer))


def _kept(classes: tuple[Any, ...]) -> Origins:
    return tuple((entry.id,) for entry in classes)


def _put_in_lora(network: CosegModel, rank: int) -> None:
    encoder = network.image_encoder
    layers = encoder.attention_layers() if encoder else ()
    if not layers:
        raise SettingsError(
            f"the encoder of {network.card.name!r} has no attention for LoRA; choose other parts"
        )
    if len(getattr(network, LORA, ())):
        raise SettingsError("the model already has LoRA; set lora_rank to 0")
    device = next(network.buffers()).device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lora = put_in_lora(layers, rank)
    cast(nn.Module, network).add_module(LORA, lora.to(device))
